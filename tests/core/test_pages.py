"""Pages of a PDF: which page, its size, and every kind of broken file."""

import hashlib
import struct
from pathlib import Path

import pytest
from PIL import Image

from handlens.core.pages import open_any, open_pages, split_page
from handlens.errors import ImageError, SettingError

COLOURS = ("red", "blue", "white")


@pytest.fixture
def document(tmp_path: Path) -> Path:
    """Three pages of 72 x 144 points (1 x 2 inches) in one colour each."""
    file = tmp_path / "doc.pdf"
    pages = [Image.new("RGB", (72, 144), colour) for colour in COLOURS]
    pages[0].save(file, "PDF", resolution=72, save_all=True, append_images=pages[1:])
    return file


def colour_of(picture) -> str:
    red, _, blue = picture.image.getpixel((30, 30))
    return "white" if min(red, blue) > 200 else "red" if red > 200 else "blue"


def encrypted(tmp_path: Path) -> Path:
    """Write a PDF that opens only with the user password "pw" (RC4, 40 bits: PDF 1.4 reference, 3.5.2)."""
    padding = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")

    def rc4(key: bytes, data: bytes) -> bytes:
        state, j = list(range(256)), 0
        for i in range(256):
            j = (j + state[i] + key[i % len(key)]) % 256
            state[i], state[j] = state[j], state[i]
        i = j = 0
        out = bytearray()
        for byte in data:
            i = (i + 1) % 256
            j = (j + state[i]) % 256
            state[i], state[j] = state[j], state[i]
            out.append(byte ^ state[(state[i] + state[j]) % 256])
        return bytes(out)

    password = (b"pw" + padding)[:32]
    owner = rc4(hashlib.md5(password).digest()[:5], password)
    identity = bytes(16)
    key = hashlib.md5(password + owner + struct.pack("<i", -4) + identity).digest()[:5]
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 72 72]>>",
        b"<</Filter/Standard/V 1/R 2/P -4/O<"
        + owner.hex().encode()
        + b">/U<"
        + rc4(key, padding).hex().encode()
        + b">>>",
    ]
    data, places = bytearray(b"%PDF-1.4\n"), []
    for number, body in enumerate(objects, 1):
        places.append(len(data))
        data += b"%d 0 obj" % number + body + b"endobj\n"
    start = len(data)
    data += b"xref\n0 5\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % place for place in places)
    data += b"trailer<</Size 5/Root 1 0 R/Encrypt 4 0 R/ID[<" + identity.hex().encode() + b"><"
    data += identity.hex().encode() + b">]>>\nstartxref\n%d\n%%%%EOF" % start
    file = tmp_path / "secret.pdf"
    file.write_bytes(data)
    return file


def test_page_one_is_the_default_and_a_number_chooses(document):
    assert colour_of(open_any(document)) == "red"
    assert colour_of(open_any(f"{document}#2")) == "blue"
    assert open_any(f"{document}#2").name == "doc.pdf#2"
    assert [colour_of(picture) for picture in open_pages(document)] == list(COLOURS)
    assert [picture.name for picture in open_pages(document, [3, 1])] == ["doc.pdf#3", "doc.pdf#1"]


def test_dpi_decides_the_size(document):
    assert open_pages(document, [1], 72)[0].image.size == (72, 144)
    assert open_pages(document, [1], 144)[0].image.size == (144, 288)
    with pytest.raises(SettingError, match="dpi is 0; it must be at least 1"):
        open_pages(document, [1], 0)


def test_a_pdf_is_known_by_its_first_bytes(document):
    other = document.with_name("scan.bin")
    other.write_bytes(document.read_bytes())
    assert colour_of(open_any(other)) == "red"


def test_a_file_whose_name_holds_a_hash_is_that_file(tmp_path):
    odd = tmp_path / "a.pdf#2"
    Image.new("RGB", (8, 8), "blue").save(odd, "PNG")
    assert split_page(odd) == (odd, None)
    assert open_any(odd).image.size == (8, 8)


def failure(source, **options) -> str:
    with pytest.raises(ImageError) as error:
        open_any(source, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_errors_name_the_facts(document, tmp_path):
    assert failure(f"{document}#4") == (f"{document} has 3 pages; page 4 does not exist; give doc.pdf#1 to doc.pdf#3")
    assert "page 0 does not exist" in failure(f"{document}#0")
    assert failure(tmp_path / "no.pdf") == f"{tmp_path / 'no.pdf'} does not exist; check the path"
    folder = tmp_path / "folder.pdf"
    folder.mkdir()
    assert failure(folder) == f"{folder} is a folder; give one PDF file"
    broken = tmp_path / "broken.pdf"
    broken.write_bytes(b"%PDF-1.7\nnothing follows")
    assert failure(broken).startswith(f"{broken} (24 bytes) is a damaged PDF (")
    secret = encrypted(tmp_path)
    assert failure(secret) == f"{secret} is encrypted; save a copy without a password and give that"


def test_a_page_that_would_be_too_large_is_not_drawn(document):
    assert failure(document, dpi=144, max_pixels=1000) == (
        "doc.pdf#1 is 144x288 px at 144 dpi; the limit is 1,000 pixels; "
        "lower the dpi or allow it with --max-pixels 41472"
    )
