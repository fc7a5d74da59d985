"""The shipped model: the device says what torch says, and it has learned something."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from handlens.core.chat import ask
from handlens.core.images import Picture
from handlens.core.sampling import Sampling
from handlens.data.generate import generate
from handlens.engine.answerer import Lens, open_bundle
from handlens.export.bundle import export_bundle
from handlens.export.verify import compare
from handlens.model.halves import open_torch

NANO = Path(__file__).parents[2] / "src" / "handlens" / "nano"
QUESTIONS = {
    "lines": "What does it say?",
    "scenes": "What does the picture show?",
    "receipts": "What is the total?",
    "labels": "Transcribe the label.",
    "tables": "Convert the table to markdown.",
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Two spinning threads beside a busy neighbour are many times slower than one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """nano with unquantised weights."""
    return export_bundle(NANO, tmp_path_factory.mktemp("plain") / "nano", quant="F32")


NUM_PICTURES = {"lines": 20, "scenes": 14, "labels": 8, "receipts": 5, "tables": 3}
"""Fifty; a receipt has more slices than a line. ``benchmarks/agreement.py`` compares sixty, and quantised files too."""


@pytest.fixture(scope="module")
def torch_nano() -> Lens:
    return open_torch(NANO)


@pytest.mark.parametrize("kind", QUESTIONS)
def test_unquantised_answers_equal_those_of_torch(kind: str, plain: Path, torch_nano: Lens) -> None:
    bundle = open_bundle(plain, keep=True)
    records = [generate(kind, 3, index, split="heldout", level=0.5) for index in range(NUM_PICTURES[kind])]
    pictures = [Picture(record.picture, record.key) for record in records]
    found = compare(torch_nano, bundle, pictures, question=QUESTIONS[kind], max_tokens=16)
    bundle.close()
    assert found.differences == (), str(found)
    assert found.num_tokens > 10
    assert found.visual_gap < 1e-3


def test_it_names_shapes_far_above_chance() -> None:
    bundle = open_bundle(NANO, keep=True)
    hits = count = 0
    for index in range(40):
        record = generate("scenes", 4, index, split="heldout", level=0.5)
        turns = [turn for turn in record.turns if turn.task == "scenes.shape"]
        if not turns:
            continue
        seen = bundle.see([Picture(record.picture, record.key)])
        for turn in turns:
            answer = "".join(token.text for token in bundle.answer(ask(turn.question), seen, Sampling(max_tokens=8)))
            hits, count = hits + (answer == turn.answer), count + 1
    bundle.close()
    assert count >= 10
    assert hits / count > 0.5  # eight shapes: chance is one in eight
