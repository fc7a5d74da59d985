"""The pictures of ``examples/`` are small, open, have their shapes, and are what the script draws."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from handlens.core.pages import open_any, open_pages

EXAMPLES = Path(__file__).parents[1] / "examples"
FILES = sorted(file for file in EXAMPLES.iterdir() if file.suffix in {".png", ".pdf"})


def test_every_example_opens_and_is_small():
    assert {file.name for file in FILES} >= {"receipt.png", "page.png", "chart.png", "strip.png", "screenshot.png"}
    for file in FILES:
        assert file.stat().st_size < 700_000, file
        assert min(open_any(file).image.size) >= 100, file
    assert len(open_pages(EXAMPLES / "page.pdf")) == 2


def test_the_strip_is_ten_to_one_and_the_screenshot_is_tall():
    width, height = open_any(EXAMPLES / "strip.png").image.size
    assert width == 10 * height
    width, height = open_any(EXAMPLES / "screenshot.png").image.size
    assert height > 2 * width


def test_the_script_draws_what_is_committed(tmp_path):
    pytest.importorskip("font_roboto", reason="the fonts come with the extra 'data'")
    spec = importlib.util.spec_from_file_location("make_examples", EXAMPLES / "make_examples.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [file.name for file in FILES]
    for file in FILES:
        if file.suffix == ".png":
            with Image.open(file) as old, Image.open(tmp_path / file.name) as new:
                pixels = [np.asarray(image.convert("RGB"), dtype=float) for image in (old, new)]
            # Another version of Pillow may smooth a letter differently; nothing larger may move.
            assert np.abs(pixels[0] - pixels[1]).mean() < 1.0, file
