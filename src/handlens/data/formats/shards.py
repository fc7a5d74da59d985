"""WebDataset shards: tar files in which ``KEY.json`` stands before the pictures ``KEY.png`` or ``KEY.0.jpg`` ...

Boundary: reads what ``handlens generate`` writes and foreign shards with ``KEY.txt`` captions, damaged or not;
writes the same layout with several pictures or none.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from handlens.data.formats.conversations import extension_of, read_messages, safe_name, unused
from handlens.data.samples import Damage, Encoded, Fault, Found, Sample, marked_text, parse_turns, said, talk

PER_SHARD = 1000
PICTURES = ("png", "jpg", "jpeg", "webp", "gif", "bmp", "tif", "tiff", "heic", "bin")
PLAIN = ("language", "licence", "source", "kind", "split")
MANIFEST = "manifest.parquet"
MAX_MEMBER_BYTES = 1 << 30

Row = dict[str, Any]


def shard_files(path: Path) -> list[Path]:
    """Return the shards of a folder in order, or the one file."""
    if path.is_file():
        return [path] if path.suffix == ".tar" else []
    return sorted(file for file in path.glob("*.tar") if not file.name.startswith("."))


def read_shards(path: Path) -> Iterator[Found]:
    """Yield the samples of all shards; then what the manifest promises and the shards do not hold."""
    seen: dict[str, str] = {}
    for file in shard_files(path):
        for members in _groups(file):
            if isinstance(members, Damage):
                yield members
                continue
            sample = members_to_sample(members, file.name)
            seen[sample.key] = hashlib.sha256(b"".join(_hashed(members))).hexdigest()
            yield sample
    if path.is_dir() and (path / MANIFEST).exists():
        yield from _compare_with_manifest(path / MANIFEST, seen)


def write_shards(samples: Iterable[Sample], out: Path, *, per_shard: int = PER_SHARD) -> int:
    """Write shards and manifest into a folder; return how many samples. The bytes depend on the samples alone."""
    out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    used: set[str] = set()
    tar: tarfile.TarFile | None = None
    partial = out / ".shard.part"
    name = ""
    for number, sample in enumerate(samples):
        if number % per_shard == 0:
            if tar is not None:
                tar.close()
                partial.replace(out / name)
            name = f"{number // per_shard:06d}.tar"
            tar = tarfile.open(partial, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115  closed when it is full
        assert tar is not None
        rows.append(_add(tar, sample, unused(safe_name(sample.key), used)) | {"shard": name})
    if tar is not None:
        tar.close()
        partial.replace(out / name)
    _write_manifest(rows, out / MANIFEST)
    return len(rows)


def sample_to_json(sample: Sample, key: str) -> Row:
    """Return everything but the pictures, as plain JSON in the layout of ``handlens generate``."""
    row: Row = {"key": key, **{name: getattr(sample, name) for name in PLAIN}, **sample.truth}
    pairs = _pairs(sample)
    if pairs is not None and len(sample.images) == 1:
        tasks = sample.truth.get("tasks") or [""] * len(pairs)
        row["turns"] = [
            {"task": task, "question": question, "answer": answer}
            for task, (question, answer) in zip(tasks, pairs, strict=False)
        ]
        row.pop("tasks", None)
    else:
        row["messages"] = [{"role": turn.role, "content": marked_text(turn)} for turn in sample.chat]
        row["num_images"] = len(sample.images)
    if sample.key != key:
        row["id"] = sample.key
    return row


def sample_from_json(row: Row, images: tuple[Encoded, ...], place: str) -> Sample:
    """Return the sample of a row; whatever has the wrong type becomes a fault."""
    faults: list[Fault] = []
    rest = {name: value for name, value in row.items() if name not in (*PLAIN, "key", "id", "turns", "messages")}
    rest.pop("num_images", None)
    faults += [
        Fault("misshapen", f"{name} is {type(row[name]).__name__}, not text")
        for name in PLAIN
        if not isinstance(row.get(name, ""), str)
    ]
    if "messages" in row or "conversations" in row:
        messages = read_messages(row.get("messages", row.get("conversations")), "minicpm-v", faults)
        chat, wrong = parse_turns(messages, len(images))
        faults += wrong
        if len(images) != row.get("num_images", len(images)):
            faults.append(Fault("missing-image", f"{len(images)} pictures lie there, {row['num_images']} are needed"))
    else:
        pairs, tasks = _read_turns(row.get("turns", []), faults)
        chat = talk(pairs, len(images))
        if any(tasks):
            rest["tasks"] = tasks
        if "turns" in row and not images:
            faults.append(Fault("missing-image", "the picture is missing from the shard"))
    key = row.get("id", row.get("key"))
    if not isinstance(key, str) or not key:
        faults.append(Fault("misshapen", f"key is {key!r:.40}, not text"))
        key = place
    return Sample(
        key=key, images=images, chat=chat, truth=rest, faults=tuple(faults),
        **{name: row[name] for name in PLAIN if isinstance(row.get(name), str)},
    )  # fmt: skip


def _pairs(sample: Sample) -> list[tuple[str, str]] | None:
    """Return questions and answers where the conversation has that simple form, else None."""
    roles = [turn.role for turn in sample.chat]
    if len(roles) % 2 or roles != ["user", "assistant"] * (len(roles) // 2):
        return None
    pairs = [(said(a), said(b)) for a, b in zip(sample.chat[::2], sample.chat[1::2], strict=True)]
    return pairs if talk(pairs, len(sample.images)) == sample.chat else None


def _read_turns(value: Any, faults: list[Fault]) -> tuple[list[tuple[str, str]], list[str]]:
    if not isinstance(value, list):
        faults.append(Fault("misshapen", f"turns is {type(value).__name__}, not a list"))
        return [], []
    pairs, tasks = [], []
    for turn in value:
        good = isinstance(turn, dict) and all(isinstance(turn.get(name), str) for name in ("question", "answer"))
        if not good:
            faults.append(Fault("misshapen", f"a turn is {turn!r:.40}; needed are question and answer"))
            continue
        pairs.append((turn["question"], turn["answer"]))
        tasks.append(str(turn.get("task", "")))
    return pairs, tasks


Members = list[tuple[str, bytes]]
"""The files of one sample: ending and content, in the order of the tar."""


def _groups(file: Path) -> Iterator[Members | Damage]:
    """Yield neighbours that share a stem; damage ends the shard, because what follows cannot be found."""
    stem, members, size = "", Members(), 0
    try:
        with tarfile.open(file) as tar:
            for entry in tar:
                if not entry.isfile() or entry.size > MAX_MEMBER_BYTES:
                    yield _damage(file, f"holds {entry.name!r:.60}, which is no ordinary file")
                    continue
                folder, _, name = entry.name.rpartition("/")
                own, _, ending = name.partition(".")
                if members and f"{folder}/{own}" != stem:
                    yield members
                    members = []
                stem = f"{folder}/{own}"
                stream = tar.extractfile(entry)
                members.append((ending.lower(), stream.read() if stream else b""))
                size = entry.offset_data + entry.size
        if members:
            yield members
        # tarfile ends silently at the first header that it cannot read
        rest = file.stat().st_size - (size + 511) // 512 * 512
        if rest > 0:
            with file.open("rb") as raw:
                raw.seek((size + 511) // 512 * 512)
                if raw.read(min(rest, 1 << 20)).strip(b"\0"):
                    yield _damage(file, f"has {rest:,} bytes after its last readable file")
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError) as cause:
        if members:
            yield members
        line = (str(cause).splitlines() or [type(cause).__name__])[0]  # tarfile tells of every compression it tried
        yield _damage(file, f"is damaged ({line.rstrip(':')})")


def _damage(file: Path, detail: str) -> Damage:
    return Damage(where=file.name, fault=Fault("unreadable", detail))


def members_to_sample(members: Members, shard: str) -> Sample:
    """Return the sample that the files of one stem make."""
    endings = [ending for ending, _ in members]
    place = f"{shard}:{'+'.join(endings)[:40]}"
    pictures = [(ending, data) for ending, data in members if ending.rsplit(".", 1)[-1] in PICTURES]
    pictures.sort(key=lambda pair: int(pair[0].split(".")[0]) if pair[0].split(".")[0].isdigit() else 0)
    images = tuple(Encoded(name=f"{shard}:{ending}", data=data) for ending, data in pictures)
    texts = {ending: data for ending, data in members if ending in ("json", "txt", "caption")}
    if len(texts) + len(pictures) < len(members):
        strange = [ending for ending in endings if ending not in texts and ending.rsplit(".", 1)[-1] not in PICTURES]
        return Sample(key=place, images=images, faults=(Fault("misshapen", f"holds {strange[:4]}, not known here"),))
    if "json" in texts:
        try:
            row = json.loads(texts["json"])
        except (ValueError, RecursionError) as cause:
            return Sample(key=place, images=images, faults=(Fault("misshapen", f"its JSON is damaged ({cause})"),))
        if not isinstance(row, dict):
            return Sample(key=place, images=images, faults=(Fault("misshapen", f"its JSON is {row!r:.40}"),))
        if "txt" not in texts or any(name in row for name in ("turns", "messages", "conversations")):
            return sample_from_json(row, images, place)
    caption = next((texts[name] for name in ("txt", "caption") if name in texts), b"")
    try:
        text = caption.decode("utf-8").strip()
    except UnicodeDecodeError as cause:
        return Sample(key=place, images=images, faults=(Fault("misshapen", f"its text is not UTF-8 ({cause})"),))
    lost = () if images else (Fault("missing-image", "the picture is missing from the shard"),)
    known = () if texts else (Fault("misshapen", "no JSON or text lies beside the picture"),)
    return Sample(key=place, images=images, chat=talk([("", text)], len(images)), faults=(*lost, *known))


def _hashed(members: Members) -> list[bytes]:
    """Return the parts of the digest in the manifest: pictures first, then the text."""
    pictures = [data for ending, data in members if ending.rsplit(".", 1)[-1] in PICTURES]
    return pictures + [data for ending, data in members if ending == "json"]


def _add(tar: tarfile.TarFile, sample: Sample, stem: str) -> Row:
    text = json.dumps(sample_to_json(sample, stem), ensure_ascii=False, sort_keys=True).encode("utf-8", "replace")
    pictures = [image.read() for image in sample.images]
    endings = [extension_of(data, image.name) for data, image in zip(pictures, sample.images, strict=True)]
    if len(pictures) > 1:
        endings = [f"{number}.{ending}" for number, ending in enumerate(endings)]
    for ending, data in [("json", text), *zip(endings, pictures, strict=True)]:
        entry = tarfile.TarInfo(f"{stem}.{ending}")  # mtime, uid and gid stay 0
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
    return {
        "key": sample.key, "kind": sample.kind, "split": sample.split, "language": sample.language,
        "num_images": len(pictures), "num_turns": len(sample.answers),
        "sha256": hashlib.sha256(b"".join([*pictures, text])).hexdigest(),
        "licence": sample.licence, "source": sample.source,
    }  # fmt: skip


def _write_manifest(rows: list[Row], path: Path) -> None:
    from handlens.data.formats.parquet import arrow

    pyarrow, parquet = arrow()
    partial = path.with_name(f".{path.name}.part")
    parquet.write_table(pyarrow.Table.from_pylist(rows), partial)
    partial.replace(path)


def _compare_with_manifest(path: Path, seen: dict[str, str]) -> Iterator[Damage]:
    from handlens.data.formats.parquet import arrow

    _, parquet = arrow()
    try:
        rows = parquet.read_table(path).to_pylist()
        promised = {str(row["key"]): row.get("sha256") for row in rows}
    except Exception as cause:  # pyarrow raises many kinds; KeyError where the column is missing
        yield Damage(where=path.name, fault=Fault("manifest", f"cannot be read ({str(cause).splitlines()[0]:.100})"))
        return
    for key in promised.keys() - seen.keys():
        yield Damage(where=key, fault=Fault("manifest", "stands in the manifest but in no shard"))
    for key in seen.keys() - promised.keys():
        yield Damage(where=key, fault=Fault("manifest", "stands in a shard but not in the manifest"))
    for key, digest in seen.items():
        if promised.get(key, digest) not in (digest, None):
            yield Damage(where=key, fault=Fault("manifest", "differs from the sha256 in the manifest"))
