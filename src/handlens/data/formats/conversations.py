"""Conversation files: LLaVA-style JSON and the fine-tuning JSON of MiniCPM-V, as a list or one object a line.

Boundary: the two dialects differ only in the table ``DIALECTS``; pictures are files beside the JSON.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handlens.core.chat import Role
from handlens.data.samples import Damage, Encoded, Fault, Found, Sample, marked_text, parse_turns

ENDINGS = (".json", ".jsonl")
EXTENSIONS = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "TIFF": "tif"}
MAGIC = {b"\x89PNG": "png", b"\xff\xd8": "jpg", b"RIFF": "webp", b"GIF8": "gif", b"BM": "bmp", b"II*\0": "tif"}


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How a conversation is written down."""

    speaker: str
    words: str
    roles: dict[str, Role]
    many: str
    """Mark of one picture among several."""


DIALECTS = {
    "llava": Dialect(
        speaker="from", words="value", many="<image>", roles={"human": "user", "gpt": "assistant", "system": "system"}
    ),
    "minicpm-v": Dialect(
        speaker="role", words="content", many="<image_{index:02d}>",
        roles={"user": "user", "assistant": "assistant", "system": "system"},
    ),
}  # fmt: skip
OWN = ("language", "licence", "source", "kind", "split")
"""Optional keys of an entry that are ours; other tools ignore them."""


def files_in(path: Path) -> list[Path]:
    """Return the conversation files of a folder, or the file itself."""
    if path.is_file():
        return [path] if path.suffix.lower() in ENDINGS else []
    files = (file for file in path.glob("[!_.]*.json*") if file.suffix.lower() in ENDINGS)
    return sorted(file for file in files if file.is_file())


def dialect_of(path: Path) -> str | None:
    """Guess the dialect from the first speaker that is written in a file."""
    for file in files_in(path):
        try:
            with file.open("rb") as stream:
                head = stream.read(65_536).decode("utf-8", "replace")
        except OSError:
            continue
        scores = {
            name: len(re.findall(rf'"{dialect.speaker}"\s*:', head)) + len(re.findall(rf'"{dialect.words}"\s*:', head))
            for name, dialect in DIALECTS.items()
        }
        best = max(scores, key=lambda name: scores[name])
        if scores[best]:
            return best
        if '"conversations"' in head or '"image"' in head:
            return "minicpm-v"
    return None


def read_conversations(path: Path, name: str) -> Iterator[Found]:
    """Yield what the files of a folder hold, in order; an entry of the other dialect is understood too."""
    for file in files_in(path):
        for number, entry in enumerate(_entries(file)):
            if isinstance(entry, Damage):
                yield entry
            else:
                yield _sample(entry, f"{file.name}#{number}", file.parent, name)


def write_conversations(samples: Iterable[Sample], out: Path, name: str) -> int:
    """Write ``data.json`` and ``images/`` into a folder; return how many samples."""
    dialect = DIALECTS[name]
    speakers = {role: word for word, role in dialect.roles.items()}
    (out / "images").mkdir(parents=True, exist_ok=True)
    count, used = 0, set[str]()
    partial = out / ".data.json.part"
    with partial.open("w", encoding="utf-8") as file:
        for sample in samples:
            stem = unused(safe_name(sample.key), used)
            paths = [save_picture(image, out / "images", stem, n) for n, image in enumerate(sample.images)]
            mark = dialect.many if len(paths) > 1 else "<image>"
            entry: dict[str, Any] = {"id": sample.key}
            if paths:
                entry["image"] = _image_field(paths, dialect)
            entry["conversations"] = [
                {dialect.speaker: speakers[turn.role], dialect.words: marked_text(turn, mark)} for turn in sample.chat
            ]
            entry |= {key: getattr(sample, key) for key in OWN if getattr(sample, key)}
            if sample.truth:
                entry["truth"] = sample.truth
            file.write(("[\n" if count == 0 else ",\n") + json.dumps(entry, ensure_ascii=False))
            count += 1
        file.write("\n]\n" if count else "[]\n")
    partial.replace(out / "data.json")
    return count


def save_picture(image: Encoded, folder: Path, stem: str, number: int) -> str:
    """Write one picture of a sample; return its path from the folder above."""
    data = image.read()
    name = f"{stem}{f'.{number}' if number else ''}.{extension_of(data, image.name)}"
    (folder / name).write_bytes(data)
    return f"{folder.name}/{name}"


def safe_name(key: str) -> str:
    """Return a key as a file name that every system takes.

    >>> safe_name("a/b:c.7")
    'a-b-c-7'
    """
    return re.sub(r"[^\w-]+", "-", key, flags=re.ASCII).strip("-")[:120] or "sample"


def unused(stem: str, used: set[str]) -> str:
    """Return a name that differs from all before it, also where capitals are not told apart.

    >>> unused("a", {"a"})
    'a-2'
    """
    name, number = stem, 1
    while name.lower() in used:
        number += 1
        name = f"{stem}-{number}"
    used.add(name.lower())
    return name


def extension_of(data: bytes, name: str = "") -> str:
    """Return the ending that the first bytes of a picture ask for."""
    known = next((ending for magic, ending in MAGIC.items() if data.startswith(magic)), None)
    return known or (Path(name).suffix.lstrip(".").lower() or "bin")


def _image_field(paths: list[str], dialect: Dialect) -> Any:
    if len(paths) == 1:
        return paths[0]
    if dialect.many == "<image>":
        return paths
    return {dialect.many.format(index=index): path for index, path in enumerate(paths)}


def _entries(file: Path) -> Iterator[Any]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as cause:
        yield Damage(where=file.name, fault=Fault("unreadable", f"is not UTF-8 text ({cause})"))
        return
    if file.suffix.lower() == ".jsonl":
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                yield _parsed(line, f"{file.name}:{number}")
        return
    whole = _parsed(text, file.name)
    if isinstance(whole, list):
        yield from whole
    elif isinstance(whole, Damage) or (isinstance(whole, dict) and "conversations" in whole):
        yield whole
    else:
        yield Damage(where=file.name, fault=Fault("unreadable", "holds no list of samples"))


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as cause:
        return Damage(where=where, fault=Fault("unreadable", f"is not JSON ({cause})"))


def _sample(entry: Any, place: str, folder: Path, name: str) -> Sample:
    if not isinstance(entry, dict):
        return Sample(key=place, faults=(Fault("misshapen", f"is {type(entry).__name__}, not an object"),))
    faults: list[Fault] = []
    images = _images(entry.get("image", entry.get("images")), folder, faults)
    messages = read_messages(entry.get("conversations", entry.get("messages")), name, faults)
    chat, wrong_marks = parse_turns(messages, len(images))
    truth = entry.get("truth")
    if truth is not None and not isinstance(truth, dict):
        faults.append(Fault("misshapen", f"truth is {type(truth).__name__}, not an object"))
    return Sample(
        key=str(entry["id"]) if isinstance(entry.get("id"), str | int) else place,
        images=images, chat=chat, truth=truth if isinstance(truth, dict) else {},
        faults=(*faults, *wrong_marks), **{key: str(entry[key]) for key in OWN if isinstance(entry.get(key), str)},
    )  # fmt: skip


def _images(value: Any, folder: Path, faults: list[Fault]) -> tuple[Encoded, ...]:
    if value is None:
        return ()
    if isinstance(value, dict):
        wanted = [f"<image_{index:02d}>" for index in range(len(value))]
        if sorted(value) != wanted:
            faults.append(Fault("placeholder", f"names of pictures are {sorted(value)[:4]}, needed are {wanted[:4]}"))
        value = [value[key] for key in sorted(value)]
    paths = value if isinstance(value, list) else [value]
    images = []
    for path in paths:
        if isinstance(path, str) and path:
            images.append(Encoded(name=path, path=folder / path))
        else:
            faults.append(Fault("misshapen", f"a picture is {path!r:.40}, not a path"))
    return tuple(images)


def read_messages(value: Any, name: str, faults: list[Fault]) -> list[tuple[Role, str]]:
    """Return who says what; turns that cannot be understood become faults."""
    if not isinstance(value, list):
        faults.append(Fault("misshapen", f"conversations is {type(value).__name__}, not a list"))
        return []
    messages: list[tuple[Role, str]] = []
    for turn in value:
        if not isinstance(turn, dict):
            faults.append(Fault("misshapen", f"a turn is {type(turn).__name__}, not an object"))
            continue
        dialect = DIALECTS[name]
        if dialect.speaker not in turn:
            dialect = next((other for other in DIALECTS.values() if other.speaker in turn), dialect)
        speaker, words = turn.get(dialect.speaker), turn.get(dialect.words)
        role = dialect.roles.get(speaker) if isinstance(speaker, str) else None
        if role is None:
            faults.append(Fault("roles", f"a turn is said by {speaker!r:.40}; known are {', '.join(dialect.roles)}"))
        if not isinstance(words, str):
            faults.append(Fault("misshapen", f"the words of a turn are {type(words).__name__}, not text"))
        elif role is not None:
            messages.append((role, words))
    return messages
