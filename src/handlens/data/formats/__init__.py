"""Every format of a data set behind one protocol: recognise, read, write.

Boundary: a folder or file in, samples out, and back. A new format is one file and one row of ``FORMATS``.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from handlens.data.formats.conversations import dialect_of, read_conversations, write_conversations
from handlens.data.formats.folders import METADATA, pictures_in, read_folder, write_folder
from handlens.data.formats.parquet import parquet_files, read_parquet, write_parquet
from handlens.data.formats.shards import read_shards, shard_files, write_shards
from handlens.data.samples import Found, Sample
from handlens.errors import DataError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Format:
    """One way to keep a data set."""

    name: str
    title: str
    recognises: Callable[[Path], bool]
    read: Callable[[Path], Iterator[Found]]
    write: Callable[[Iterable[Sample], Path], int]
    num_images: tuple[int, int] = (0, 1000)
    """Fewest and most pictures of a sample that the format can hold."""


FORMATS: dict[str, Format] = {
    row.name: row
    for row in (
        Format(
            name="shards", title="WebDataset tar shards and a manifest, as handlens generate writes them",
            recognises=lambda path: bool(shard_files(path)), read=read_shards, write=write_shards,
        ),
        Format(
            name="llava", title="LLaVA-style JSON (from/value) and pictures",
            recognises=lambda path: not _has_metadata(path) and dialect_of(path) == "llava",
            read=partial(read_conversations, name="llava"), write=partial(write_conversations, name="llava"),
        ),
        Format(
            name="minicpm-v", title="the fine-tuning JSON of MiniCPM-V (role/content) and pictures",
            recognises=lambda path: not _has_metadata(path) and dialect_of(path) == "minicpm-v",
            read=partial(read_conversations, name="minicpm-v"), write=partial(write_conversations, name="minicpm-v"),
        ),
        Format(
            name="parquet", title="parquet files with the pictures inside",
            recognises=lambda path: bool(parquet_files(path)), read=read_parquet, write=write_parquet,
        ),
        Format(
            name="folder", title="pictures with NAME.txt, metadata.jsonl or metadata.csv",
            recognises=lambda path: _has_metadata(path) or bool(pictures_in(path)),
            read=read_folder, write=write_folder, num_images=(1, 1),
        ),
    )
}  # fmt: skip
"""In the order in which a folder is asked."""


def format_of(path: Path) -> Format:
    """Return the format of a folder or file.

    Raises:
        DataError: nothing is there, or nothing that is known.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist; check the path (the current folder is {Path.cwd()})")
    for known in FORMATS.values():
        if known.recognises(path):
            return known
    if path.is_dir() and any(path.glob("*.json*")):
        return FORMATS["minicpm-v"]
    if path.is_file() and path.stat().st_size < 64 and path.read_bytes().strip() in (b"", b"[]", b"{}"):
        raise DataError(f"{path} is empty; a data set has one sample or more")
    raise DataError(f"{path} holds no data set; known are {'; '.join(row.title for row in FORMATS.values())}")


def format_named(name: str) -> Format:
    """Return a format by name.

    Raises:
        DataError: the name is unknown.
    """
    if name not in FORMATS:
        raise DataError(f"unknown format '{name}'{did_you_mean(name, FORMATS)}")
    return FORMATS[name]


def read_samples(path: Path) -> Iterator[Found]:
    """Yield every sample of a data set in its order, and what could not be read.

    Raises:
        DataError: nothing is there, or nothing that is known.
    """
    return format_of(path).read(path)


def _has_metadata(path: Path) -> bool:
    return any((path / name).is_file() for name in METADATA)
