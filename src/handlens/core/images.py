"""Open a picture from a path, bytes or a stream, as RGB pixels the way a person sees it.

Boundary: Pillow only; everything that can be wrong with a picture is found here, once.
"""

import contextlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image, ImageOps

from handlens.errors import ImageError

MAX_PIXELS = 256_000_000
"""16,000 x 16,000 px; decoded to RGB this is 768 MB."""
READABLE = "PNG, JPEG, WebP, GIF, BMP, TIFF or HEIC"
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""Pillow's names. Its other decoders stay closed to untrusted files."""
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


@runtime_checkable
class Readable(Protocol):
    """Anything with bytes to read: an open file, standard input, a network answer."""

    def read(self) -> bytes:
        """Return all bytes."""
        ...


@dataclass(frozen=True)
class Picture:
    """An upright RGB picture and the name that messages use for it."""

    image: Image.Image
    name: str
    seconds: float | None = None
    """When it is shown, for a frame of a clip; None for a still picture."""


def open_picture(
    source: str | Path | bytes | Readable, *, name: str | None = None, max_pixels: int = MAX_PIXELS
) -> Picture:
    """Return the first frame, turned upright, transparency laid on white.

    Raises:
        ImageError: the file is missing, is no picture, is damaged, or has more than ``max_pixels``.
    """
    name = name or (Path(source).name if isinstance(source, str | Path) else "input")
    data = _read(source, name)
    with _decoder(data, name) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise ImageError(
                f"{name} is {width}x{height} px ({width * height:,} pixels); the limit is {max_pixels:,}; "
                f"make it smaller or allow it with --max-pixels {width * height}"
            )
        try:
            image.load()
            return Picture(to_rgb(_upright(image)), name)
        except MemoryError:
            raise ImageError(f"{name} is {width}x{height} px; there is not enough memory for it") from None
        except Exception as cause:  # decoders raise OSError, SyntaxError, ValueError, EOFError, struct.error ...
            raise ImageError(
                f"{name} is a damaged {image.format} picture of {len(data):,} bytes ({_one_line(cause)}); copy it again"
            ) from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Return RGB pixels: 16-bit gray is divided by 257, transparency is laid on white.

    Raises:
        ValueError: pixels are floating point numbers, for which no value is agreed to be white.
    """
    if image.mode == "F":
        raise ValueError("floating point pixels have no agreed white; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        return _deep_gray_to_rgb(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        paper = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(paper, layer).convert("RGB")
    # A copy, so that nothing keeps the file open.
    return image.convert("RGB") if image.mode != "RGB" else image.copy()


def _deep_gray_to_rgb(image: Image.Image) -> Image.Image:
    """Scale 16-bit gray; Pillow's own conversion clips at 255 and turns such scans white."""
    table = np.rint(np.arange(65_536) / 257).astype(np.uint8)
    values = np.asarray(image)
    if values.dtype != np.uint16:
        values = np.clip(values, 0, 65_535).astype(np.uint16)
    return Image.fromarray(table[values]).convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; a picture whose EXIF block is damaged stays as it is."""
    with contextlib.suppress(Exception):
        return ImageOps.exif_transpose(image)
    return image


def _read(source: str | Path | bytes | Readable, name: str) -> bytes:
    if isinstance(source, bytes):
        data = source
    elif isinstance(source, str | Path):
        data = _read_file(Path(source))
    else:
        data = source.read()
    if not data:
        raise ImageError(f"{name} is empty (0 bytes); give a {READABLE} picture")
    return data


def _read_file(path: Path) -> bytes:
    if path.is_dir():
        raise ImageError(f"{path} is a folder; give one picture file ({READABLE})")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist; check the path (the current folder is {Path.cwd()})") from None
    except (OSError, ValueError) as cause:
        reason = getattr(cause, "strerror", None) or cause
        raise ImageError(f"cannot read {path}: {reason}") from None


@contextlib.contextmanager
def _decoder(data: bytes, name: str) -> Iterator[Image.Image]:
    """Open the header only; pixels are not decoded yet."""
    if data[4:8] == b"ftyp" and data[8:12] in HEIC_BRANDS:
        with _heic(data, name) as image:
            yield image
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = _open_header(data, name)
    with image:
        yield image


def _open_header(data: bytes, name: str) -> Image.Image:
    """Call the decoder that knows the first bytes; ``Image.open`` would apply Pillow's global pixel limit."""
    Image.preinit()
    for kind in FORMATS:
        if kind not in Image.OPEN:
            Image.init()  # WebP and TIFF are not among the first; loading all plugins takes time
        factory, accepts = Image.OPEN[kind]
        if accepts is not None and accepts(data[:16]) is True:
            try:
                return factory(io.BytesIO(data), "")
            except Exception as cause:  # decoders raise SyntaxError, OSError, ValueError, struct.error ...
                raise ImageError(
                    f"{name} is a damaged {kind} picture of {len(data):,} bytes ({_one_line(cause)}); copy it again"
                ) from None
    raise ImageError(f"{name} is not a picture ({_guess(data)}); give a {READABLE} file")


def _heic(data: bytes, name: str) -> Image.Image:
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise ImageError(
            f"{name} is a HEIC picture, which needs the package pillow-heif: "
            "pip install 'handlens[heic]', or save the picture as JPEG"
        ) from None
    try:
        return HeifImageFile(io.BytesIO(data))
    except Exception as cause:
        raise ImageError(f"{name} is a damaged HEIC picture ({_one_line(cause)}); copy it again") from None


def _one_line(cause: Exception) -> str:
    """Return a decoder's message without its line breaks."""
    return " ".join(str(cause).split())


def _guess(data: bytes) -> str:
    """Say what a file that is no picture seems to be."""
    if data[:5] == b"%PDF-":
        return "it is a PDF; give a page, for example FILE.pdf#1"
    if data[:512].lstrip()[:4].lower() in (b"<svg", b"<?xm"):
        return "it looks like SVG or XML"
    if b"\0" not in data[:512]:
        with contextlib.suppress(UnicodeDecodeError):
            data[:512].decode("utf-8")
            return "it looks like text"
    return f"unknown content of {len(data):,} bytes"
