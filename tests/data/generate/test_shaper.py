"""Joined scripts are set as HarfBuzz and FriBidi set them; Pillow with raqm is the oracle."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont, features

from handlens.data.generate.fonts import Font, font_path
from handlens.data.generate.ink import face_of, put_text
from handlens.data.generate.language import language
from handlens.data.generate.shaper import needs_shaping, shape, visual_runs

TEXTS = {
    "ar": ("السلام عليكم", "المجموع: 12.50", "رقم KX-4821 في 2024", "٣٤٥ لا إله", "abc مرحبا 7"),
    "hi": ("हिन्दी क्षेत्र", "श्रीमती र्कु १२३", "कीर्ति 45.5"),
    "bn": ("বাংলাদেশ ক্ষুদ্র", "র্ক কৌ ১২৩"),
    "th": ("ภาษาไทย ปี้ ก็ได้", "น้ำแข็ง 7"),
    "my": ("မြန်မာ ကြွေ", "အင်္ဂါ ၁၂"),
    "syr": ("ܫܠܡܐ ܥܡܟܘܢ", "ܠܚܡܐ 12"),
}
SIZE_PX = 40


def drawn_by_pillow(font: Font, text: str) -> np.ndarray:
    face = ImageFont.truetype(str(font_path(font)), SIZE_PX, layout_engine=ImageFont.Layout.RAQM)
    image = Image.new("L", (900, 160))
    ImageDraw.Draw(image).text((20, 100), text, 255, face, anchor="ls")
    return np.asarray(image)


@pytest.mark.skipif(
    not features.check("raqm"),
    reason="Pillow has no raqm to compare with; its wheels for Linux, which CI installs, have it",
)
@pytest.mark.parametrize("code", TEXTS)
def test_ink_is_that_of_raqm(code: str) -> None:
    font = next(font for font in language(code).fonts("train") if not font.weight or font.weight == 400)
    for text in TEXTS[code]:
        mask = np.zeros((160, 900), np.uint8)
        put_text(mask, face_of(font, SIZE_PX), text, 20.0, 100.0)
        theirs = drawn_by_pillow(font, text)
        ours_box, their_box = (np.argwhere(ink > 100) for ink in (mask, theirs))
        assert np.abs(ours_box.min(0) - their_box.min(0)).max() <= 3, text
        assert np.abs(ours_box.max(0) - their_box.max(0)).max() <= 3 + len(text) // 4, text
        # column by column the same letters in the same order: rounding to whole px moves ink by one or two
        ours, other = (np.convolve(ink.astype(float).sum(0), np.ones(9) / 9, "same") for ink in (mask, theirs))
        assert np.corrcoef(ours, other)[0, 1] > 0.93, text


def test_arabic_letters_join_and_read_from_the_right() -> None:
    font = language("ar").fonts("train")[0]
    whole = shape(font, SIZE_PX, "سلام")
    apart = sum(shape(font, SIZE_PX, char).width for char in "سلام")
    assert whole.width < 0.85 * apart  # isolated forms are wider
    lefts = [span[0] for span in whole.spans]
    assert lefts == sorted(lefts, reverse=True)
    assert whole.spans[1] == whole.spans[2]  # lam and alef are one sign: one cluster, one box


def test_a_vowel_sign_belongs_to_its_cluster() -> None:
    font = language("hi").fonts("train")[0]
    spans = shape(font, SIZE_PX, "कि").spans
    assert spans[0] == spans[1]


@pytest.mark.parametrize(
    ("text", "runs"),
    [
        ("abc", [(0, 3, False)]),
        ("سلام", [(0, 4, True)]),
        ("سلام 12", [(5, 7, False), (0, 5, True)]),  # the number stands left of the word
        ("ab سلام", [(0, 3, False), (3, 7, True)]),
        ("سلام ab", [(5, 7, False), (0, 5, True)]),
    ],
)
def test_runs_by_hand(text: str, runs: list[tuple[int, int, bool]]) -> None:
    assert visual_runs(text) == runs


def test_every_character_is_in_one_run() -> None:
    for texts in TEXTS.values():
        for text in texts:
            at = sorted(i for start, end, _ in visual_runs(text) for i in range(start, end))
            assert at == list(range(len(text)))


def test_plain_scripts_are_not_shaped() -> None:
    assert not any(needs_shaping(text) for text in ("Größe", "Ελλάδα", "Ձյուն", "日本", "한국", "Việt"))
