"""Labels of patches on pictures drawn by hand, and the loss over them."""

import math

import pytest
import torch
from PIL import Image

from handlens.core.slicing import plan_slices
from handlens.data.records import Glyph, Line, Record, Thing
from handlens.train.reading import CHARACTERS, COLOURS, SHAPES, ReadingHead, patch_labels
from handlens.train.warmstart import CODE


def glyph(char: str, x: float, y: float) -> Glyph:
    """A character whose middle stands at (x, y), counted in patches of 14 px."""
    return Glyph(char=char, box=(14.0 * x - 3, 14.0 * y - 4, 14.0 * x + 3, 14.0 * y + 4))


def record(width: int, height: int, glyphs: tuple[Glyph, ...] = (), things: tuple[Thing, ...] = ()) -> Record:
    text = "".join(one.char for one in glyphs)
    return Record(
        key="k", kind="lines", split="train", language="en", picture=Image.new("RGB", (width, height)),
        lines=(Line(text=text, box=(0.0, 0.0, float(width), 20.0), glyphs=glyphs),), things=things, table=None,
        turns=(), facts={}, seed=0, licence="", source="",
    )  # fmt: skip


def code(char: str) -> int:
    return CHARACTERS.index(char) + 1


def test_a_character_labels_the_quarter_of_the_patch_under_its_middle():
    # (3.75, 5.25): patch column 3, row 5; right half, upper half: quarter 1. (3.25, 5.75): left, lower: quarter 2.
    glyphs = (glyph("A", 3.75, 5.25), glyph("z", 3.25, 5.75), glyph("7", 0.2, 0.2), glyph("€", 15.9, 15.9))
    plan = plan_slices(224, 224, side_px=224)
    (labels,) = patch_labels(record(224, 224, glyphs), plan)
    assert labels.shape == (16 * 16, 6)
    assert labels[5 * 16 + 3].tolist() == [0, code("A"), code("z"), 0, 0, 0]
    assert labels[0].tolist() == [code("7"), 0, 0, 0, 0, 0]
    assert labels[255].tolist() == [0, 0, 0, code("€"), 0, 0]
    assert (labels > 0).sum() == 4


def test_spaces_and_unknown_characters_are_nothing():
    plan = plan_slices(224, 224, side_px=224)
    (labels,) = patch_labels(record(224, 224, (glyph(" ", 3, 3.5), glyph("漢", 5.5, 5.5))), plan)
    assert not labels.any()


def test_a_thing_labels_its_inner_two_thirds():
    # From patch 2 to 8 it is six wide; without a sixth on each side 3 to 7 are left: sixteen patches.
    thing = Thing(shape="star", colour="blue", size="small", box=(28.0, 28.0, 112.0, 112.0))
    (labels,) = patch_labels(record(224, 224, things=(thing,)), plan_slices(224, 224, side_px=224))
    grid = labels.reshape(16, 16, 6)
    assert (grid[3:7, 3:7, 4] == SHAPES.index("star") + 1).all()
    assert (grid[3:7, 3:7, 5] == COLOURS.index("blue") + 1).all()
    assert (grid > 0).sum() == 2 * 16


def test_every_slice_has_labels_in_its_own_coordinates():
    """448x224 px at 224: an overview of half the scale and two slices side by side."""
    plan = plan_slices(448, 224, side_px=224)
    assert (plan.grid.columns, plan.grid.rows) == (2, 1)
    assert plan.patches[1:] == [(16, 16), (16, 16)]
    overview, left, right = patch_labels(record(448, 224, (glyph("Q", 20.25, 2.25),)), plan)
    assert not left.any()
    assert right[2 * 16 + 4].tolist() == [code("Q"), 0, 0, 0, 0, 0]
    assert (right > 0).sum() == 1
    rows, columns = plan.patches[0]
    (place,) = overview.any(axis=1).nonzero()[0]
    assert divmod(int(place), columns) == (int(2.25 / 16 * rows), int(20.25 / 32 * columns))


def test_a_picture_of_nothing_has_no_labels():
    (labels,) = patch_labels(record(224, 224), plan_slices(224, 224, side_px=224))
    assert not labels.any()


def test_loss_of_a_head_that_knows_nothing_is_the_log_of_the_choices():
    head = ReadingHead(8)
    torch.nn.init.zeros_(head.out.weight)
    torch.nn.init.zeros_(head.out.bias)
    labels = torch.randint(0, 8, (5, 6), generator=torch.Generator().manual_seed(0))
    torch.nn.init.zeros_(head.place.weight)
    torch.nn.init.zeros_(head.place.bias)
    loss, scores = head(torch.ones(5, 8), labels, torch.full((5, CODE), 0.5**0.5))
    choices = [len(CHARACTERS) + 1] * 4 + [len(SHAPES) + 1, len(COLOURS) + 1]
    assert float(loss.detach()) == pytest.approx(sum(map(math.log, choices)) / 6 + 0.5, rel=1e-5)
    assert set(scores) == {"characters", "shapes", "colours", "place_r2"}
    assert scores["place_r2"] == pytest.approx(0.0, abs=1e-5)


def test_accuracy_counts_only_where_something_is():
    """A head that always says "A" in the first quarter: right for one of two characters there."""
    head = ReadingHead(8)
    torch.nn.init.zeros_(head.out.weight)
    torch.nn.init.zeros_(head.out.bias)
    with torch.no_grad():
        head.out.bias[code("A")] = 5.0
    labels = torch.zeros(3, 6, dtype=torch.int64)
    labels[0, 0], labels[1, 0] = code("A"), code("B")
    _, scores = head(torch.ones(3, 8), labels, torch.zeros(3, CODE))
    assert {kind: share for kind, share in scores.items() if kind != "place_r2"} == {"characters": 0.5}
