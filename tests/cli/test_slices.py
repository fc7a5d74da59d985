"""``handlens slices``: the released table through the command line, drawings, errors."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from handlens.cli.main import run

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "slicing.json").read_text(encoding="utf-8"))


def printed(capsys: pytest.CaptureFixture, *args: str) -> str:
    assert run(["slices", *args]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("place", range(3))
def test_the_released_table_in_one_call(capsys, place):
    args = [word for width, height, _ in GOLDEN["rows"] for word in ("--size", f"{width}x{height}")]
    limit = str(GOLDEN["max_slices"][place])
    rows = json.loads(printed(capsys, *args, "--family", "2.6", "--max-slices", limit, "--json"))
    assert len(rows) == len(GOLDEN["rows"])
    for row, (width, height, decisions) in zip(rows, GOLDEN["rows"], strict=True):
        columns, lines, over_w, over_h, ref_w, ref_h, cell_h, cell_w, num_slices = decisions[place]
        sliced = columns > 0
        assert row == {
            "width": width,
            "height": height,
            "grid": [columns, lines] if sliced else None,
            "overview": [over_w, over_h],
            "refined": [ref_w, ref_h] if sliced else None,
            "cell_patches": [cell_h, cell_w] if sliced else None,
            "num_slices": num_slices,
        }


def test_families_differ_by_their_slice_side(capsys):
    rows = {
        name: json.loads(printed(capsys, "--size", "448x448", "--family", name, "--json"))[0]
        for name in ("nano", "4.0")
    }
    assert rows["4.0"]["grid"] is None
    assert rows["nano"]["grid"] == [2, 2]  # 448**2 / 224**2 = 4 slices
    assert json.loads(printed(capsys, "--size", "448x448", "--json"))[0] == rows["nano"]


def test_text_for_people(capsys):
    assert printed(capsys, "--size", "1920x1080", "--family", "2.6") == (
        "1920x1080: 1920x1080 px, grid 4x2 of 420x476 px and an overview of 602x336 px, 9 slices, 576 visual tokens\n"
        # sqrt(1680 * 952 / (1920 * 1080)) = 0.878; 8 / 0.878 = 9.1; 1 - 0.878**2 = 0.229
        "  resize factor 0.88; smallest readable letters about 9 px high; 23 % of the pixels are dropped\n"
    )
    assert "no grid, one view of 448x448 px, 1 slice, 64 visual tokens" in printed(
        capsys, "--size", "300x300", "--family", "2.6"
    )


def test_a_picture_is_measured_upright(capsys, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a phone held upright stores the picture lying
    Image.new("RGB", (600, 300)).save(tmp_path / "phone.jpg", exif=exif)
    (row,) = json.loads(printed(capsys, str(tmp_path / "phone.jpg"), "--json"))
    assert (row["width"], row["height"]) == (300, 600)


def test_the_drawing_marks_the_borders_of_the_slices(capsys, tmp_path):
    source, target = tmp_path / "plain.png", tmp_path / "grid.png"
    Image.new("RGB", (640, 480), "white").save(source)
    text = printed(capsys, str(source), "--family", "2.6", "--picture", str(target))
    assert "grid 2x1" in text
    with Image.open(target) as drawing:
        pixels = np.asarray(drawing.convert("RGB")).astype(int)
    assert pixels.shape[0] > 480  # a caption stands below
    is_red = (pixels[:480, :640, 0] > 180) & (pixels[:480, :640, 1] < 90)
    assert is_red[200, 318:322].any()  # the border in the middle
    assert is_red[200, :3].any() and is_red[200, 637:].any()
    assert not is_red[200, 20:300].any()


def test_a_huge_picture_gives_a_small_drawing(capsys, tmp_path):
    source, target = tmp_path / "strip.png", tmp_path / "grid.png"
    Image.new("L", (9_000, 300), 255).save(source)
    printed(capsys, str(source), "--picture", str(target))
    with Image.open(target) as drawing:
        assert max(drawing.size) <= 2_100


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ([], 2, "a picture or a --size is missing; for example: handlens slices photo.jpg"),
        (["--size", "1920"], 2, "'1920' is no size; write width and height in pixels, for example 1920x1080"),
        (["--size", "axb"], 2, "'axb' is no size"),
        (["--size", "0x10"], 1, "picture is 0x10 px; both sides must be at least 1 px"),
        (["--size", "9x9", "--max-slices", "0"], 2, "0 is not in the range x>=1"),
        (["--size", "9x9", "--family", "2.7"], 1, "unknown family '2.7'; did you mean '2.6'?"),
        (["--size", "9x9", "--picture", "out.png"], 2, "--picture needs exactly one picture; 0 were given"),
        (["no.png"], 1, "no.png does not exist; check the path"),
        (["."], 1, ". is a folder; give one picture file"),
    ],
)
def test_errors(capsys, args, code, message):
    assert run(["slices", *args]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("handlens slices: ") and err.count("\n") == 1
    assert message in err


def test_a_drawing_that_cannot_be_written(capsys, tmp_path):
    source = tmp_path / "a.png"
    Image.new("RGB", (9, 9)).save(source)
    assert run(["slices", str(source), "--picture", str(tmp_path / "no" / "out.png")]) == 1
    assert "out.png: No such file or directory" in capsys.readouterr().err
    assert run(["slices", str(source), "--picture", str(tmp_path / "out.what")]) == 1
    assert "its ending names no picture format; end it with .png" in capsys.readouterr().err
