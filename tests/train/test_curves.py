"""Curves that can be read off again."""

from PIL import Image

from handlens.train.curves import COLOURS, draw_curves, points_of, text_curve

ROWS = [{"step": step, "loss": 4.0 / step} for step in range(1, 30)] + [{"step": 10, "held_out": 1.0}]


def test_points_are_those_rows_that_have_the_value():
    assert points_of(ROWS, "held_out") == [(10.0, 1.0)]
    assert len(points_of(ROWS, "loss")) == 29


def test_a_falling_loss_falls_in_the_terminal():
    lines = text_curve(points_of(ROWS, "loss"), width=10, height=3).splitlines()
    heights = [sum(line[7:][column : column + 1] not in ("", " ") for line in lines[:3]) for column in range(10)]
    assert heights == sorted(heights, reverse=True) and heights[0] == 3
    assert lines[-1].strip() == "step 1 to 29"
    assert text_curve([]) == "no values yet"
    assert "step 1 to 1" in text_curve([(1.0, 0.0)])


def test_the_picture_shows_the_curve_from_high_to_low(tmp_path):
    draw_curves(ROWS, tmp_path / "loss.png", "a run")
    picture = Image.open(tmp_path / "loss.png")
    pixels = picture.load()
    blue = [(x, y) for x in range(61, 640) for y in range(36, 360) if pixels[x, y] == COLOURS["loss"]]
    left = [y for x, y in blue if x < 80]
    right = [y for x, y in blue if x > 600]
    assert min(left) < 60 and min(right) > 300
    draw_curves([], tmp_path / "empty.png", "nothing yet")


def test_a_long_name_leaves_room_for_the_legend(tmp_path):
    for name in ("short", "a name that never ends " * 9):
        draw_curves(ROWS, tmp_path / f"{len(name)}.png", name)
    short, long = (Image.open(file) for file in sorted(tmp_path.iterdir(), key=lambda file: len(file.name)))
    legend = (720 - 20 - 2 * 80 - 5, 0, 720, 30)
    assert short.crop(legend).tobytes() == long.crop(legend).tobytes()
    assert short.tobytes() != long.tobytes()
