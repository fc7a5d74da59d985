"""Fonts are all there, print every character, and are split by family."""

import importlib.util

import pytest

from handlens.data.generate import fonts, generate
from handlens.data.generate.fonts import FONTS, Font, font_path, fonts_of, missing_characters
from handlens.data.generate.ink import face_of, stamp
from handlens.errors import NeedsExtra


@pytest.mark.parametrize("font", FONTS, ids=lambda font: font.file)
def test_font_prints_every_character(font: Font) -> None:
    assert font_path(font).is_file()
    assert missing_characters(font) == frozenset()


@pytest.mark.parametrize("font", FONTS, ids=lambda font: font.file)
def test_advances_leave_room_for_the_ink(font: Font) -> None:
    """A broken advance prints the next character over this one."""
    face = face_of(font, 40)
    for char in fonts.CHARACTERS:
        ink = stamp(face, char)
        assert ink.left + ink.mask.shape[1] - ink.advance < 0.35 * 40, char


def test_families_are_not_shared_between_splits() -> None:
    train, heldout = ({font.family for font in fonts_of(split)} for split in ("train", "heldout"))
    assert train.isdisjoint(heldout)
    assert len(heldout) >= 4
    assert len(train) >= 8


def test_pictures_use_fonts_of_their_split() -> None:
    allowed = {split: {font.file for font in fonts_of(split)} for split in ("train", "heldout")}
    for split, files in allowed.items():
        for kind in ("lines", "receipts", "labels", "tables"):
            used = {generate(kind, 71, index, split=split).facts["font"] for index in range(12)}
            assert used <= files


def test_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    font_path.cache_clear()
    with pytest.raises(NeedsExtra, match=r"the font Roboto \(font-roboto\) needs the extra 'data': pip install"):
        font_path(FONTS[0])
