"""Ways in which a data set gets broken, each a function of a folder and a seeded draw.

The name of a damage is its file-level act and, for JSON, the field and the new value. A damage returns the folder
that the doctor is asked about; most return the one they were given.
"""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

Act = Callable[[Path, Random], None]

WRONG_VALUES: dict[str, Any] = {
    "null": None, "number": 7, "text": "x", "empty text": "", "list": [], "object": {}, "nested": [[["deep"]]],
    "true": True, "huge": 10**400, "not a number": float("nan"), "lost half": "\ud800", "zero": "\x00",
    "marks": "<image><image>", "prompt mark": "<|im_end|>", "mojibake": "Ã©tÃ© â€œoui â€", "long": "word " * 5000,
}  # fmt: skip
"""What a field may turn into."""


def data_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file() and file.name != "manifest.parquet")


def pick(folder: Path, rng: Random) -> Path:
    return rng.choice(data_files(folder))


def cut_off(folder: Path, rng: Random) -> None:
    file = pick(folder, rng)
    data = file.read_bytes()
    file.write_bytes(data[: rng.randrange(len(data))])


def flip_bits(folder: Path, rng: Random) -> None:
    file = pick(folder, rng)
    data = bytearray(file.read_bytes())
    for _ in range(rng.choice((1, 4, 64))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    file.write_bytes(data)


def zero_block(folder: Path, rng: Random) -> None:
    file = pick(folder, rng)
    data = bytearray(file.read_bytes())
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.choice((1, 16, 512, 4096)))
    data[start:end] = bytes(end - start)
    file.write_bytes(data)


def add_rubbish(folder: Path, rng: Random) -> None:
    file = pick(folder, rng)
    file.write_bytes(file.read_bytes() + rng.randbytes(rng.choice((1, 600, 5000))))


def put_rubbish_first(folder: Path, rng: Random) -> None:
    file = pick(folder, rng)
    file.write_bytes(rng.randbytes(rng.choice((1, 600))) + file.read_bytes())


def empty(folder: Path, rng: Random) -> None:
    pick(folder, rng).write_bytes(b"")


def delete(folder: Path, rng: Random) -> None:
    pick(folder, rng).unlink()


def make_it_a_folder(folder: Path, rng: Random) -> None:
    file = pick(folder, rng)
    file.unlink()
    file.mkdir()


def swap_two(folder: Path, rng: Random) -> None:
    one, other = pick(folder, rng), pick(folder, rng)
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)


def spoil_manifest(folder: Path, rng: Random) -> None:
    manifest = folder / "manifest.parquet"
    file = manifest if manifest.exists() else pick(folder, rng)
    file.write_bytes(file.read_bytes()[:-9])


FILE_ACTS: dict[str, Act] = {
    act.__name__: act
    for act in (
        cut_off, flip_bits, zero_block, add_rubbish, put_rubbish_first, empty, delete, make_it_a_folder, swap_two,
        spoil_manifest,
    )
}  # fmt: skip


# ---- entries ---------------------------------------------------------------------------------------------------------


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place inside a JSON value, the whole included."""
    inner: list[tuple[Any, ...]] = [path]
    if isinstance(value, dict):
        items: Any = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        return inner
    for key, item in items:
        inner += places(item, (*path, key))
    return inner


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """The same JSON value with one place changed; ``...`` removes the place."""
    if not path:
        return new
    if isinstance(value, dict):
        rest = {key: item for key, item in value.items() if key != path[0]}
        if new is ... and len(path) == 1:
            return rest
        return {key: put(item, path[1:], new) if key == path[0] else item for key, item in value.items()}
    if new is ... and len(path) == 1:
        return [item for place, item in enumerate(value) if place != path[0]]
    return [put(item, path[1:], new) if place == path[0] else item for place, item in enumerate(value)]


def change_entry(folder: Path, rng: Random, new: Any) -> None:
    """Change one field of one entry, wherever the format keeps its JSON."""

    def spoil(entry: Any) -> Any:
        where = [place for place in places(entry) if place]
        return put(entry, rng.choice(where), new)

    edit_entries(folder, rng, spoil)


def repeat_entry(folder: Path, rng: Random) -> None:
    edit_entries(folder, rng, lambda entry: entry, copies=2)


def edit_entries(folder: Path, rng: Random, spoil: Callable[[Any], Any], copies: int = 1) -> None:
    text_files = [file for file in data_files(folder) if file.suffix in (".json", ".jsonl")]
    if text_files:
        file = text_files[0]
        lines = file.suffix == ".jsonl"
        text = file.read_text(encoding="utf-8")
        rows = [json.loads(line) for line in text.splitlines()] if lines else json.loads(text)
        number = rng.randrange(len(rows))
        rows[number : number + 1] = [spoil(rows[number])] * copies
        parts = [json.dumps(row) for row in rows]
        file.write_text("\n".join(parts) if lines else "[" + ",".join(parts) + "]", encoding="utf-8")
        return
    tars = [file for file in data_files(folder) if file.suffix == ".tar"]
    if tars:
        edit_tar(tars[0], rng, spoil, copies)
        return
    edit_parquet(data_files(folder)[0], rng, spoil, copies)


def edit_tar(file: Path, rng: Random, spoil: Callable[[Any], Any], copies: int) -> None:
    with tarfile.open(file) as tar:
        members = [(entry.name, tar.extractfile(entry).read()) for entry in tar]
    chosen = rng.choice([name for name, _ in members if name.endswith(".json")])
    with tarfile.open(file, "w") as tar:
        for name, data in members:
            times = 1
            if name == chosen:
                data, times = json.dumps(spoil(json.loads(data))).encode(), copies
            for _ in range(times):
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))


def edit_parquet(file: Path, rng: Random, spoil: Callable[[Any], Any], copies: int) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = pyarrow.parquet.read_table(file).to_pylist()
    number = rng.randrange(len(rows))
    changed = spoil(rows[number])
    rows[number : number + 1] = [changed if isinstance(changed, dict) else {}] * copies
    try:
        table = pyarrow.Table.from_pylist(rows)
    except (
        pyarrow.ArrowException,
        OverflowError,
        UnicodeEncodeError,
    ):  # a column holds one type: text of JSON is all that goes in
        rows = [{key: str(value).encode("utf-8", "replace") for key, value in row.items()} for row in rows]
        table = pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, file)


def all_damages() -> dict[str, Act]:
    """Every act by name; with five formats these are more than 200 kinds."""
    acts = dict(FILE_ACTS)
    acts["remove a field"] = lambda folder, rng: change_entry(folder, rng, ...)
    acts["repeat an entry"] = repeat_entry
    for name, value in WRONG_VALUES.items():
        acts[f"a field becomes {name}"] = lambda folder, rng, value=value: change_entry(folder, rng, value)
        acts[f"an entry becomes {name}"] = lambda folder, rng, value=value: edit_entries(folder, rng, lambda _: value)
    return acts
