"""Lines are read as printed, and pictures keep the sizes that slices expect."""

import pytest

from handlens.data.generate import generate
from handlens.data.records import Record


@pytest.fixture(scope="module")
def pages() -> list[Record]:
    every = [generate("lines", 61, i, split=split) for split in ("train", "heldout") for i in range(80)]
    return [record for record in every if record.facts.get("layout") != "strip"]


def test_some_pictures_have_an_extreme_shape() -> None:
    shapes = [generate("lines", 61, i).picture.size for i in range(80)]
    assert any(width > 7.5 * height or height > 1.5 * width for width, height in shapes)


def test_reading_is_what_is_printed(pages: list[Record]) -> None:
    for record in pages:
        texts = [line.text for line in record.lines]
        words = " ".join(texts).split()
        for turn in record.turns:
            if turn.task == "lines.read":
                assert turn.answer == "\n".join(texts)
            elif "lines" in turn.question:
                assert turn.answer == str(len(texts))
            elif "word" in turn.question:
                assert turn.answer == (words[0] if "first" in turn.question else words[-1])
            else:
                order = {"first": 0, "second": 1, "third": 2, "fourth": 3, "last": -1}
                (which,) = [i for name, i in order.items() if name in turn.question]
                assert turn.answer == texts[which]


def test_sizes_stay_in_their_limits(pages: list[Record]) -> None:
    for record in pages:
        width, height = record.picture.size
        assert 160 <= width <= 520
        assert 48 <= height <= 224
        assert 1.15 <= width / height <= 7.05
        assert all(3 <= len(line.text) <= 28 for line in record.lines)
        assert all("  " not in line.text for line in record.lines)


def test_four_of_ten_pictures_have_several_lines(pages: list[Record]) -> None:
    several = sum(len(record.lines) > 1 for record in pages)
    assert 0.28 < several / len(pages) < 0.52  # 0.4 +- 4 standard deviations


def test_most_letters_are_tall_enough_to_read(pages: list[Record]) -> None:
    heights = sorted(g.box[3] - g.box[1] for r in pages for ln in r.lines for g in ln.glyphs if g.char in "aceosxz")
    assert heights[len(heights) // 20] >= 7  # 5 % of the letters may be smaller
    assert heights[len(heights) // 2] >= 11
