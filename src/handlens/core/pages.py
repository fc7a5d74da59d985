"""Open pages of a PDF as pictures; ``doc.pdf#3`` names page 3.

Boundary: pypdfium2, imported only when a PDF is opened; gives the same ``Picture`` as ``images.py``.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from handlens.core.images import MAX_PIXELS, Picture, open_picture
from handlens.errors import ImageError, SettingError

if TYPE_CHECKING:
    import pypdfium2

DPI = 150
"""Pixels per inch; 10 point text is then about 11 px high from baseline to top of the small letters."""
POINTS_PER_INCH = 72


def open_any(source: str | Path, *, dpi: int = DPI, max_pixels: int = MAX_PIXELS) -> Picture:
    """Return a picture file, or the page that ``doc.pdf#3`` names (page 1 without a number).

    Raises:
        ImageError: see ``open_picture`` and ``open_pages``.
    """
    path, page = split_page(source)
    if path.suffix.lower() == ".pdf" or _starts_like_pdf(path):
        return open_pages(path, [1 if page is None else page], dpi, max_pixels=max_pixels)[0]
    return open_picture(path, max_pixels=max_pixels)


def split_page(source: str | Path) -> tuple[Path, int | None]:
    """Return the path and the page number behind ``#``, None where there is none.

    >>> split_page("doc.pdf#3")
    (PosixPath('doc.pdf'), 3)
    >>> split_page("photo#3.png")
    (PosixPath('photo#3.png'), None)
    """
    parts = re.fullmatch(r"(.+\.pdf)#(\d+)", str(source), flags=re.IGNORECASE)
    if parts is None or Path(source).exists():
        return Path(source), None
    return Path(parts[1]), int(parts[2])


def open_pages(
    path: str | Path, pages: Sequence[int] | None = None, dpi: int = DPI, *, max_pixels: int = MAX_PIXELS
) -> list[Picture]:
    """Return pages, counted from 1, as pictures named ``doc.pdf#3``; all pages when ``pages`` is None.

    Raises:
        ImageError: the file is missing, encrypted or damaged, or a page does not exist or is too large.
        SettingError: ``dpi`` is below 1.
    """
    path = Path(path)
    if dpi < 1:
        raise SettingError(f"dpi is {dpi}; it must be at least 1 (150 suits printed text)")
    document = _open_document(path)
    try:
        wanted = range(1, len(document) + 1) if pages is None else pages
        return [_render(document, number, path, dpi, max_pixels) for number in wanted]
    finally:
        document.close()


def _open_document(path: Path) -> "pypdfium2.PdfDocument":
    if not path.is_file():
        what = "is a folder; give one PDF file" if path.is_dir() else "does not exist; check the path"
        raise ImageError(f"{path} {what}")
    import pypdfium2

    try:
        return pypdfium2.PdfDocument(path.read_bytes())
    except OSError as cause:
        raise ImageError(f"cannot read {path}: {cause.strerror or cause}") from None
    except pypdfium2.PdfiumError as cause:
        if "assword" in str(cause):
            raise ImageError(f"{path} is encrypted; save a copy without a password and give that") from None
        size = path.stat().st_size
        raise ImageError(f"{path} ({size:,} bytes) is a damaged PDF ({cause}); copy it again") from None


def _render(document: "pypdfium2.PdfDocument", number: int, path: Path, dpi: int, max_pixels: int) -> Picture:
    import pypdfium2

    count = len(document)
    if not 1 <= number <= count:
        have = "1 page" if count == 1 else f"{count} pages"
        raise ImageError(f"{path} has {have}; page {number} does not exist; give {path.name}#1 to {path.name}#{count}")
    name = f"{path.name}#{number}"
    try:
        page = document[number - 1]
        scale = dpi / POINTS_PER_INCH
        width, height = (math.ceil(points * scale) for points in page.get_size())
        if width * height > max_pixels:
            raise ImageError(
                f"{name} is {width}x{height} px at {dpi} dpi; the limit is {max_pixels:,} pixels; "
                f"lower the dpi or allow it with --max-pixels {width * height}"
            )
        image = page.render(scale=scale, fill_color=(255, 255, 255, 255)).to_pil().convert("RGB")
    except pypdfium2.PdfiumError as cause:
        raise ImageError(f"{name} cannot be drawn ({cause}); print the page to a new PDF") from None
    return Picture(image, name)


def _starts_like_pdf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(5) == b"%PDF-"
    except OSError:
        return False  # open_picture says what is wrong with the path
