"""Cells: what a visual token should know, worked out by hand."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from handlens.core.slicing import plan_slices
from handlens.data.records import Glyph, Line, Record, Thing
from handlens.errors import SettingError
from handlens.recipes import nano
from handlens.train.cells import (
    BANDS,
    LETTERS,
    NUM_SLOTS,
    RUN,
    UNKNOWN,
    CellHead,
    CellTables,
    GatherHead,
    align,
    cell_labels,
)
from handlens.train.reading import COLOURS, SHAPES
from handlens.train.warmstart import place_code


def record_with(lines: tuple[Line, ...] = (), things: tuple[Thing, ...] = (), side: int = 224) -> Record:
    return Record(
        key="k", kind="lines", split="train", language="en", picture=Image.new("RGB", (side, side)), lines=lines,
        things=things, table=None, turns=(), facts={}, seed=0, licence="CC0-1.0", source="test",
    )  # fmt: skip


def line(text: str, left: float, top: float, size: float) -> Line:
    left, top, size = float(left), float(top), float(size)
    glyphs = tuple(
        Glyph(char=char, box=(left + i * size, top, left + (i + 1) * size, top + size)) for i, char in enumerate(text)
    )
    return Line(text=text, box=(left, top, left + len(text) * size, top + size), glyphs=glyphs)


def test_a_character_stands_in_the_quarter_of_its_cell() -> None:
    # A cell is 28 px of 224; the text begins at x = 28 (cell 1) and y = 56 (row 2), 7 px a character: its middle is
    # at 59.5, in the upper band of the row, and characters take the quarters 0, 1, 2 of cell 1.
    record = record_with((line("a b", 28, 56, 7),))
    (labels,) = cell_labels(record, plan_slices(224, 224, side_px=224), side=8)
    cell = labels.reshape(8, 8, -1)[2, 1]
    assert [LETTERS[code - 1] for code in cell[:3]] == ["a", " ", "b"]
    assert cell[3 : NUM_SLOTS + 2].sum() == 0
    assert (labels > 0).sum() == 3


def test_the_lower_half_of_a_row_is_the_second_band() -> None:
    record = record_with((line("x", 0, 16, 7),))  # its middle, 19.5, is below 14
    (labels,) = cell_labels(record, plan_slices(224, 224, side_px=224), side=8)
    assert labels[0, RUN] == LETTERS.index("x") + 1
    assert BANDS == 2


def test_a_taken_quarter_passes_its_character_on_in_order() -> None:
    record = record_with((line("abcdef", 0, 0, 3.5),))  # two characters a quarter: some move on, the last are dropped
    (labels,) = cell_labels(record, plan_slices(224, 224, side_px=224), side=8)
    read = "".join(LETTERS[code - 1] for code in labels[0, :RUN] if code)
    assert read == "abcd"


def test_a_letter_without_a_name_is_neither_asked_for_nor_called_nothing() -> None:
    record = record_with((line("aжb", 0, 0, 7),))
    (labels,) = cell_labels(record, plan_slices(224, 224, side_px=224), side=8)
    assert labels[0, :4].tolist() == [LETTERS.index("a") + 1, UNKNOWN, LETTERS.index("b") + 1, 0]
    head = CellHead(8)
    tokens = torch.randn(1, 64, 8, generator=torch.Generator().manual_seed(0))
    asked = torch.from_numpy(labels)[None]
    wanted, normal = 0.0, F.layer_norm(tokens, (8,))
    for column, logits in enumerate(head.out(normal).flatten(0, 1).split(head.sizes, dim=-1)):
        target = asked[..., column].flatten()
        known = target != UNKNOWN
        weight = torch.ones(logits.shape[-1])
        weight[0] = 0.1
        wanted += F.cross_entropy(logits[known], target[known], weight=weight) / len(head.sizes)
    torch.testing.assert_close(head(tokens, asked)[0], wanted)
    tables = CellTables(8)
    assert torch.isfinite(tables(asked)).all()


def test_slices_have_cells_of_their_own_part() -> None:
    # 448 x 224 px makes 2 x 1 slices of 224 px; a character at x = 231 is in the second slice only.
    glyph = Glyph(char="q", box=(228.0, 100.0, 235.0, 107.0))
    record = record_with((Line(text="q", box=glyph.box, glyphs=(glyph,)),))
    record = Record(**{**vars(record), "picture": Image.new("RGB", (448, 224))})
    plan = plan_slices(448, 224, side_px=224)
    overview, left, right = cell_labels(record, plan, side=8)
    assert (left > 0).sum() == 0
    assert (right > 0).sum() == 1
    assert right.reshape(8, 8, -1)[3, 0].max() == LETTERS.index("q") + 1
    assert (overview > 0).sum() == 1


def test_a_thing_fills_the_cells_whose_middle_it_covers() -> None:
    thing = Thing(shape="star", colour="red", size="large", box=(56.0, 56.0, 112.0, 84.0))  # cells 2 and 3 of row 2
    (labels,) = cell_labels(record_with(things=(thing,)), plan_slices(224, 224, side_px=224), side=8)
    grid = labels.reshape(8, 8, -1)
    assert np.argwhere(grid[..., -2] == SHAPES.index("star") + 1).tolist() == [[2, 2], [2, 3]]
    assert (grid[..., -1] == COLOURS.index("red") + 1).sum() == 2


def test_an_empty_cell_is_the_ground_and_a_full_one_is_not() -> None:
    tables = CellTables(16)
    torch.nn.init.normal_(tables.ground)
    labels = torch.zeros(1, 2, NUM_SLOTS + 2, dtype=torch.long)
    labels[0, 1, 0] = 5
    tokens = tables(labels)
    assert torch.equal(tokens[0, 0], tables.ground)
    assert not torch.equal(tokens[0, 1], tables.ground)


def test_the_head_learns_what_tables_say() -> None:
    torch.manual_seed(0)
    tables, head = CellTables(64), CellHead(64)
    labels = torch.zeros(4, 16, NUM_SLOTS + 2, dtype=torch.long)
    labels[..., 0] = torch.randint(1, 20, (4, 16))
    tokens = tables(labels).detach()
    optimiser = torch.optim.Adam(head.parameters(), lr=0.03)
    for _ in range(60):
        loss, scores = head(tokens, labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert scores["characters"] > 0.9


def patch_places(rows: int, columns: int, side: int) -> torch.Tensor:
    """The code of every patch of one slice, worked out apart from ``place_codes``."""
    u = (torch.arange(columns) + 0.5) / columns * side
    v = (torch.arange(rows) + 0.5) / rows * side
    return place_code(u.repeat(rows), v.repeat_interleave(columns), side)[None]


def test_what_patches_say_is_gathered_into_their_own_cell() -> None:
    """Every patch of a cell says the letter of the cell; 4x4 cells of 2x2 patches."""
    torch.manual_seed(0)
    head = GatherHead(32, heads=2)
    words = torch.randn(10, 32)
    places = patch_places(8, 8, 4).expand(6, -1, -1)
    labels = torch.zeros(6, 16, NUM_SLOTS + 2, dtype=torch.long)
    labels[..., 0] = torch.randint(1, 10, (6, 16))
    letters = labels[..., 0].unflatten(1, (4, 4)).repeat_interleave(2, 1).repeat_interleave(2, 2).flatten(1)
    optimiser = torch.optim.Adam(head.parameters(), lr=0.03)
    for _ in range(60):
        loss, scores = head(words[letters], places, torch.ones(6, 64, dtype=torch.bool), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert scores["characters"] > 0.95


def test_padding_is_never_gathered() -> None:
    torch.manual_seed(0)
    head = GatherHead(16, heads=2)
    places = patch_places(8, 8, 4)
    padded = torch.cat([places, torch.zeros(1, 5, places.shape[-1])], 1)
    is_real = torch.arange(69)[None] < 64
    labels = torch.randint(0, 5, (1, 16, NUM_SLOTS + 2))
    patches = torch.randn(1, 64, 16)
    alone, _ = head(patches, places, is_real[:, :64], labels)
    beside_noise, _ = head(torch.cat([patches, 100 * torch.randn(1, 5, 16)], 1), padded, is_real, labels)
    assert float(alone.detach()) == pytest.approx(float(beside_noise.detach()), rel=1e-5)


def test_align_finds_the_matrix() -> None:
    torch.manual_seed(0)
    truth, before = torch.randn(12, 12), torch.randn(400, 12)
    matrix, fitted = align(before, before @ truth, ridge=1e-9)
    assert torch.allclose(matrix, truth, atol=1e-4)
    assert fitted > 0.9999
    _, nothing = align(before, torch.randn(400, 12))
    assert nothing < 0.2


def test_zoom_and_patch_labels_do_not_go_together() -> None:
    phase = nano.recipe().only("vision").phases[0]
    with pytest.raises(SettingError, match="zoomed_share needs another objective"):
        type(phase)(**{**vars(phase), "zoomed_share": 0.1})
