"""Set text: boxes are where the ink is."""

import numpy as np
import pytest

from handlens.data.generate.fonts import CHARACTERS, FONTS, Font
from handlens.data.generate.ink import face_of, kern, pens, put_text, size_for_x_height, stamp, text_width

SAMPLE = [next(font for font in FONTS if font.style == style) for style in ("sans", "serif", "mono", "display")]


@pytest.mark.parametrize("font", SAMPLE, ids=lambda font: font.file)
def test_the_line_box_is_the_ink_box(font: Font) -> None:
    mask = np.zeros((60, 400), np.uint8)
    line = put_text(mask, face_of(font, 24), "Hxg 4,50 €", 20.0, 40.0)
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    ink = [g.box for g in line.glyphs if g.char != " "]
    assert min(box[0] for box in ink) == columns[0]
    assert max(box[2] for box in ink) == columns[-1] + 1
    assert min(box[1] for box in ink) == rows[0]
    assert max(box[3] for box in ink) == rows[-1] + 1


def test_ink_beyond_the_mask_is_cut_off() -> None:
    mask = np.zeros((10, 10), np.uint8)
    line = put_text(mask, face_of(FONTS[0], 30), "WW", -5.0, 5.0)
    assert mask.any()
    assert line.text == "WW"


@pytest.mark.parametrize("font", SAMPLE, ids=lambda font: font.file)
def test_x_height_is_as_asked(font: Font) -> None:
    for wanted in (8.0, 12.0, 18.0):
        mask = stamp(face_of(font, size_for_x_height(font, wanted)), "x").mask
        assert abs(mask.shape[0] - wanted) <= 1.5


def test_tracking_adds_to_every_advance() -> None:
    face = face_of(FONTS[0], 20)
    assert text_width(face, "abcd", 2.0) == pytest.approx(text_width(face, "abcd") + 8.0)


def test_mono_fonts_have_one_advance_and_no_kerning() -> None:
    face = face_of(next(font for font in FONTS if font.style == "mono"), 20)
    steps = np.diff(pens(face, "AVATo.il"))
    assert np.ptp(steps) < 1e-9


def test_kerning_by_hand() -> None:
    face = face_of(FONTS[0], 50)
    # A and V stand 0.06 em = 3 px closer than their advances
    assert text_width(face, "AV") == pytest.approx(stamp(face, "A").advance + stamp(face, "V").advance - 3.0)
    assert text_width(face, "1 1") == pytest.approx(2 * stamp(face, "1").advance + stamp(face, " ").advance)
    assert all(kern(font, f"{char} ") == 0.0 for font in FONTS for char in CHARACTERS)
