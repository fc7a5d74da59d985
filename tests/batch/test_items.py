"""What is found in a folder, in which order, and what is left out."""

import os
from pathlib import Path

import pypdfium2
import pytest

from handlens.batch.items import find_items
from handlens.errors import ImageError


def pdf(file: Path, num_pages: int) -> None:
    document = pypdfium2.PdfDocument.new()
    for _ in range(num_pages):
        document.new_page(100, 100)
    document.save(str(file))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "b").mkdir()
    (tmp_path / ".hidden").mkdir()
    for name in ("z.PNG", "b/a.jpg", "b/.c.png", ".hidden/d.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    pdf(tmp_path / "a.pdf", 3)
    (tmp_path / "cut.pdf").write_bytes((tmp_path / "a.pdf").read_bytes()[:60])
    return tmp_path


def test_every_picture_and_page_in_the_order_of_names(folder: Path):
    found = find_items(folder)
    assert [item.key for item in found.items] == ["a.pdf#1", "a.pdf#2", "a.pdf#3", "b/a.jpg", "cut.pdf", "z.PNG"]
    assert (found.num_files, found.num_ignored, found.closed) == (4, 1, ())


def test_links_and_pipes(folder: Path):
    os.mkfifo(folder / "pipe.png")  # opening it would wait for ever
    (folder / "broken.png").symlink_to(folder / "nowhere.png")
    (folder / "round").symlink_to(folder, target_is_directory=True)
    keys = [item.key for item in find_items(folder).items]
    assert "broken.png" in keys
    assert "pipe.png" not in keys
    assert len(keys) == 7


def test_one_file_and_one_page(folder: Path):
    assert [item.key for item in find_items(folder / "a.pdf").items] == ["a.pdf#1", "a.pdf#2", "a.pdf#3"]
    assert [item.key for item in find_items(f"{folder}/a.pdf#2").items] == ["a.pdf#2"]
    assert [item.key for item in find_items(folder / "notes.txt").items] == ["notes.txt"]


def test_nothing_to_ask_about(tmp_path: Path):
    with pytest.raises(ImageError, match="does not exist; give a folder"):
        find_items(tmp_path / "none")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ImageError, match=r"has no picture among 1 files; wanted are files ending in \.bmp"):
        find_items(tmp_path)
