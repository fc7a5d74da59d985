"""Heights of letters against text drawn at known sizes, and silence where there is no text."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from handlens.core.images import Picture, open_picture
from handlens.core.letters import letter_heights
from handlens.core.sight import look_at, sight_to_json
from handlens.core.slicing import plan_slices

EXAMPLES = Path(__file__).parents[2] / "examples"
WORDS = "some common nouns sum up as measures can\n"  # only small letters without ascenders, but for one t


def page(size_px: int, ink="black", paper="white", size=(900, 600)) -> Image.Image:
    image = Image.new("RGB", size, paper)
    pen = ImageDraw.Draw(image)
    pen.multiline_text((10, 10), WORDS * 12, fill=ink, font=ImageFont.load_default(size_px), spacing=size_px)
    return image


@pytest.mark.parametrize("size_px", [10, 14, 20, 32, 48])
@pytest.mark.parametrize(("ink", "paper"), [("black", "white"), ("white", "navy"), ((90, 90, 90), (200, 190, 170))])
def test_small_letters_have_the_height_of_the_font(size_px, ink, paper):
    box = ImageFont.load_default(size_px).getbbox("x")
    heights = letter_heights(page(size_px, ink, paper))
    assert len(heights) > 30
    assert float(np.median(heights)) == pytest.approx(box[3] - box[1], abs=1.5, rel=0.1)


def test_blur_and_noise_change_little():
    clean = page(20)
    noise = np.random.default_rng(0).normal(0, 6, (600, 900, 3))
    dirty = np.clip(np.asarray(clean.filter(ImageFilter.GaussianBlur(0.7))) + noise, 0, 255).astype(np.uint8)
    medians = [float(np.median(letter_heights(image))) for image in (clean, Image.fromarray(dirty))]
    assert medians[1] == pytest.approx(medians[0], abs=2)


def test_pictures_without_text_have_no_letters():
    assert len(letter_heights(Image.radial_gradient("L"))) == 0
    assert len(letter_heights(Image.new("RGB", (300, 200), "red"))) == 0
    assert len(letter_heights(open_picture(EXAMPLES / "shapes.png").image)) < 12
    assert len(letter_heights(Image.new("L", (1, 1)))) == 0


def test_the_warning_has_the_numbers_and_its_advice_helps():
    picture = Picture(page(14, size=(2400, 1600)), "page")
    plan = plan_slices(2400, 1600, side_px=224)
    sight = look_at(picture, plan, 64)
    # 6 slices of 224 px: factor sqrt(3 * 2 * 224**2 / (2400 * 1600)) = 0.28; letters of 7 px become 2 px.
    assert sight.num_too_small > 0.9 * sight.num_letters > 100
    assert f"about {sight.num_too_small} of {sight.num_letters} letters are too small to read" in (sight.warning or "")
    width, height = (int(part) for part in (sight.advice or "").split(" at most ")[1].split(" ")[0].split("x"))
    part = Picture(picture.image.crop((0, 0, width, height)), "part")
    closer = look_at(part, plan_slices(width, height, side_px=224), 64)
    assert closer.letter_px * closer.plan.resize_factor == pytest.approx(8, rel=0.25)


def test_readable_text_gives_no_warning():
    for name in ("receipt.png", "page.png", "label.png", "screenshot.png"):
        picture = open_picture(EXAMPLES / name)
        facts = sight_to_json(look_at(picture, plan_slices(*picture.image.size), 64))
        assert facts["letters"] > 40
        assert facts["warning"] is facts["advice"] is None
