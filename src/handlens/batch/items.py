"""Find what is asked about: pictures and pages of PDFs in a folder, in an order that never changes.

Boundary: names of files, and the page counts of PDFs; opens no picture.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from handlens.core.pages import split_page
from handlens.errors import ImageError

ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".pdf"})
"""Files of a folder with other endings are left out."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """One picture, or one page of a PDF."""

    path: Path
    name: str
    """The path inside the folder that was given, with ``/`` on every system."""
    page: int | None = None
    """Counted from 1; None for a picture, and for a PDF that cannot be opened."""

    @property
    def key(self) -> str:
        """What tells it from all others, for example ``letters/may.pdf#3``."""
        return self.name if self.page is None else f"{self.name}#{self.page}"


@dataclass(frozen=True, kw_only=True)
class Found:
    """What lies in a folder."""

    items: tuple[Item, ...]
    num_files: int
    """Pictures and PDFs."""
    num_ignored: int
    """Files that are neither, by their ending."""
    closed: tuple[str, ...] = ()
    """Folders that may not be read."""


def find_items(source: str | Path) -> Found:
    """Return every picture and page of a folder and its folders, of one file, or the page ``doc.pdf#3``.

    Files and folders whose name begins with a dot are left out, and folders behind a link are not entered.

    Raises:
        ImageError: there is no such path, or nothing in it is a picture.
    """
    path, page = split_page(source)
    if not path.exists():
        raise ImageError(f"{path} does not exist; give a folder of pictures and PDFs, or one of them")
    if not path.is_dir():
        items = tuple(_items_of(path, path.name)) if page is None else (Item(path=path, name=path.name, page=page),)
        return Found(items=items, num_files=1, num_ignored=0)
    closed: list[str] = []
    files = sorted((file.relative_to(path).as_posix(), file) for file in _walk(path, closed))
    wanted = [(name, file) for name, file in files if file.suffix.lower() in ENDINGS]
    if not wanted:
        raise ImageError(
            f"{path} has no picture among {len(files)} files; wanted are files ending in {', '.join(sorted(ENDINGS))}"
        )
    found = tuple(item for name, file in wanted for item in _items_of(file, name))
    return Found(items=found, num_files=len(wanted), num_ignored=len(files) - len(wanted), closed=tuple(sorted(closed)))


def sha256_of_file(path: Path) -> str:
    """Return the sha256 of a file; empty where it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError:
        return ""


def _walk(folder: Path, closed: list[str]) -> Iterator[Path]:
    """Yield files and broken links, no pipes or devices: reading those would never end."""
    for place, folders, names in os.walk(folder, onerror=lambda error: closed.append(str(error.filename))):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for file in (Path(place) / name for name in names if not name.startswith(".")):
            if file.is_file() or not file.exists():
                yield file


def _items_of(path: Path, name: str) -> Iterator[Item]:
    if path.suffix.lower() != ".pdf":
        yield Item(path=path, name=name)
        return
    count = _count_pages(path)
    if not count:
        yield Item(path=path, name=name)
    for page in range(1, count + 1):
        yield Item(path=path, name=name, page=page)


def _count_pages(path: Path) -> int:
    """Return 0 for a PDF that cannot be opened: the worker that tries says why."""
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(path.read_bytes())
    except (OSError, pypdfium2.PdfiumError):
        return 0
    try:
        return len(document)
    finally:
        document.close()
