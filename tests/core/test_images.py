"""Every kind of picture a user may have, and every way in which it may be broken."""

import io
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from handlens.core.images import Picture, open_picture
from handlens.errors import ImageError


def encode(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def quarters(size: int = 64) -> Image.Image:
    """Return a square whose quarters are red, green / blue, white: tells every orientation apart."""
    image = Image.new("RGB", (size, size), "white")
    half = size // 2
    for place, colour in (((0, 0), "red"), ((half, 0), (0, 255, 0)), ((0, half), "blue")):
        image.paste(colour, (*place, place[0] + half, place[1] + half))
    return image


def corners(picture: Picture) -> list[str]:
    """Name the colour in the middle of each quarter, row by row."""
    width, height = picture.image.size
    names = {(1, 0, 0): "red", (0, 1, 0): "green", (0, 0, 1): "blue", (1, 1, 1): "white", (0, 0, 0): "black"}
    places = [(x, y) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    return [names[tuple(round(value / 255) for value in picture.image.getpixel(place))] for place in places]


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge_png(width: int, height: int) -> bytes:
    """Return a valid PNG of 1 bit per pixel, with only its first rows: the header alone must be enough to refuse it."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((width + 7) // 8 + 1) * 16, 9)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_every_format_from_every_source(kind, tmp_path):
    data = encode(quarters(), kind)
    file = tmp_path / f"photo.{kind.lower()}"
    file.write_bytes(data)
    for source in (data, io.BytesIO(data), file, str(file)):
        picture = open_picture(source)
        assert picture.image.mode == "RGB"
        assert corners(picture) == ["red", "green", "blue", "white"]
    assert open_picture(file).name == file.name
    assert open_picture(data, name="page 3").name == "page 3"


def test_heic_opens_with_pillow_heif():
    pillow_heif = pytest.importorskip("pillow_heif", reason="HEIC needs the extra 'heic'")
    stream = io.BytesIO()
    pillow_heif.from_pillow(quarters()).save(stream, format="HEIF")
    assert corners(open_picture(stream.getvalue())) == ["red", "green", "blue", "white"]


def test_damaged_heic_is_one_line():
    pillow_heif = pytest.importorskip("pillow_heif", reason="HEIC needs the extra 'heic'")
    stream = io.BytesIO()
    pillow_heif.from_pillow(quarters()).save(stream, format="HEIF")
    data = stream.getvalue()
    assert "damaged HEI" in failure(data[: len(data) - 40], name="photo.heic")


def test_heic_without_pillow_heif_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # what Python does for a module that is not there
    header = struct.pack(">I", 24) + b"ftypheic" + bytes(12)
    with pytest.raises(ImageError, match=r"photo.heic is a HEIC picture.*pip install 'handlens\[heic\]'"):
        open_picture(header, name="photo.heic")


def test_first_frame_of_an_animation():
    frames = [quarters(), Image.new("RGB", (64, 64), "black")]
    for kind in ("GIF", "WEBP", "TIFF"):
        data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
        assert corners(open_picture(data)) == ["red", "green", "blue", "white"], kind


# EXIF value -> what a viewer shows of the quarters red, green / blue, white (table of the EXIF standard).
ORIENTATIONS = {
    1: "red green blue white",
    2: "green red white blue",  # mirrored left to right
    3: "white blue green red",  # turned by 180 degrees
    4: "blue white red green",  # mirrored top to bottom
    5: "red blue green white",  # mirrored along the main diagonal
    6: "blue red white green",  # turned clockwise
    7: "white green blue red",  # mirrored along the other diagonal
    8: "green white red blue",  # turned counter-clockwise
}


@pytest.mark.parametrize("value", ORIENTATIONS)
def test_exif_orientation(value):
    exif = Image.Exif()
    exif[0x0112] = value
    picture = open_picture(encode(quarters(), "JPEG", exif=exif, quality=95))
    assert " ".join(corners(picture)) == ORIENTATIONS[value]


def test_damaged_exif_does_not_hide_the_picture():
    data = encode(quarters(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    assert corners(open_picture(data)) == ["red", "green", "blue", "white"]


def test_transparency_becomes_white_paper():
    layer = Image.new("RGBA", (4, 1), (0, 0, 0, 0))
    layer.putpixel((1, 0), (255, 0, 0, 255))
    layer.putpixel((2, 0), (0, 0, 0, 51))  # black at 20 % on white: 255 * 0.8 = 204
    pixels = list(np.asarray(open_picture(encode(layer, "PNG")).image)[0].tolist())
    assert pixels == [[255, 255, 255], [255, 0, 0], [204, 204, 204], [255, 255, 255]]


@pytest.mark.parametrize("mode", ["P", "LA", "L", "RGB"])
def test_other_forms_of_transparency(mode):
    if mode == "P":
        image = Image.new("P", (2, 1), 0)
        image.putpalette([0, 0, 0, 255, 0, 0])
        image.putpixel((1, 0), 1)
        data = encode(image, "PNG", transparency=0)
        expected = [[255, 255, 255], [255, 0, 0]]
    elif mode == "LA":
        image = Image.new("LA", (2, 1), (0, 0))
        image.putpixel((1, 0), (90, 255))
        data = encode(image, "PNG")
        expected = [[255, 255, 255], [90, 90, 90]]
    else:
        image = Image.new(mode, (2, 1), 0)
        image.putpixel((1, 0), 90 if mode == "L" else (90, 90, 90))
        data = encode(image, "PNG", transparency=0 if mode == "L" else (0, 0, 0))
        expected = [[255, 255, 255], [90, 90, 90]]
    assert np.asarray(open_picture(data).image)[0].tolist() == expected


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_gray_is_divided_by_257(kind):
    values = np.array([[0, 257, 128 * 257, 30_000, 65_535]], dtype=np.uint16)
    pixels = np.asarray(open_picture(encode(Image.fromarray(values), kind)).image)
    assert pixels[0, :, 0].tolist() == [0, 1, 128, round(30_000 / 257), 255]


@pytest.mark.parametrize("order", [">u2", "<u2"])
def test_sixteen_bit_gray_of_both_byte_orders(order):
    """A TIFF written by hand: Pillow writes only one order."""
    sign = ">" if order[0] == ">" else "<"
    pixels = np.array([0, 65_535, 257 * 100], dtype=order).tobytes()
    tags = [(256, 3, 3), (257, 3, 1), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 8), (278, 3, 1), (279, 4, 6)]
    entries = b"".join(
        struct.pack(f"{sign}HHI", tag, kind, 1)
        + (struct.pack(f"{sign}HH", value, 0) if kind == 3 else struct.pack(f"{sign}I", value))
        for tag, kind, value in tags
    )
    head = (b"MM" if sign == ">" else b"II") + struct.pack(f"{sign}HI", 42, 14)
    data = head + pixels + struct.pack(f"{sign}H", len(tags)) + entries + bytes(4)
    assert np.asarray(open_picture(data).image)[0, :, 0].tolist() == [0, 255, 100]


def test_cmyk_bilevel_and_gray():
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # full magenta and yellow is red
    red = np.asarray(open_picture(encode(cmyk, "TIFF")).image)[4, 4]
    assert red[0] > 200 and red[1] < 80 and red[2] < 80
    assert np.asarray(open_picture(encode(Image.new("1", (2, 2), 1), "PNG")).image).tolist() == [[[255] * 3] * 2] * 2
    assert np.asarray(open_picture(encode(Image.new("L", (2, 2), 77), "PNG")).image)[0, 0].tolist() == [77] * 3


def failure(source, **options) -> str:
    with pytest.raises(ImageError) as error:
        open_picture(source, **options)
    text = str(error.value)
    assert "\n" not in text
    return text


def test_paths_that_are_no_pictures(tmp_path):
    missing = tmp_path / "nothing.png"
    assert failure(missing) == f"{missing} does not exist; check the path (the current folder is {Path.cwd()})"
    assert failure(tmp_path) == (
        f"{tmp_path} is a folder; give one picture file (PNG, JPEG, WebP, GIF, BMP, TIFF or HEIC)"
    )
    empty = tmp_path / "empty.png"
    empty.touch()
    assert failure(empty) == "empty.png is empty (0 bytes); give a PNG, JPEG, WebP, GIF, BMP, TIFF or HEIC picture"
    text = tmp_path / "notes.jpg"
    text.write_text("dear diary")
    assert failure(text) == (
        "notes.jpg is not a picture (it looks like text); give a PNG, JPEG, WebP, GIF, BMP, TIFF or HEIC file"
    )
    assert "null byte" in failure("a\0b.png")
    assert failure(b"<svg xmlns=''>", name="a.svg").startswith("a.svg is not a picture (it looks like SVG or XML)")
    assert "give a page, for example FILE.pdf#1" in failure(b"%PDF-1.7 ...", name="a.pdf")
    assert "unknown content of 300 bytes" in failure(bytes(300), name="a.bin")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_truncated_at_any_place_is_one_clear_line(kind):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    data = encode(noise, kind)
    for share in (0.01, 0.1, 0.3, 0.6, 0.9):
        text = failure(data[: max(1, int(len(data) * share))], name=f"photo.{kind.lower()}")
        assert text.startswith(f"photo.{kind.lower()} is "), text
        assert "damaged" in text or "not a picture" in text


def test_a_gigapixel_png_is_refused_by_its_header(tmp_path):
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(huge_png(40_000, 25_000))
    assert bomb.stat().st_size < 10_000
    assert failure(bomb) == (
        "bomb.png is 40000x25000 px (1,000,000,000 pixels); the limit is 256,000,000; "
        "make it smaller or allow it with --max-pixels 1000000000"
    )


def test_the_limit_is_ours_and_not_a_global_of_pillow():
    before = Image.MAX_IMAGE_PIXELS
    data = encode(Image.new("1", (15_000, 13_000)), "PNG")  # 195 megapixels: above Pillow's limit, below ours
    assert open_picture(data).image.size == (15_000, 13_000)
    assert before == Image.MAX_IMAGE_PIXELS
    assert "the limit is 99; make it smaller or allow it with --max-pixels 100" in failure(
        encode(Image.new("L", (10, 10)), "PNG"), max_pixels=99
    )
    assert open_picture(encode(Image.new("L", (10, 10)), "PNG"), max_pixels=100).image.size == (10, 10)


def test_float_pixels_are_refused():
    assert "no agreed white" in failure(encode(Image.fromarray(np.ones((2, 2), dtype=np.float32)), "TIFF"))
