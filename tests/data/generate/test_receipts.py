"""Every answer about a receipt is on the paper, and the sums add up."""

import re
from random import Random

import pytest

from handlens.data.generate import generate
from handlens.data.generate.language import language
from handlens.data.generate.receipt_talk import FIELDS, NOT_PRESENT, Receipt, talk
from handlens.data.generate.receipts import LAYOUTS
from handlens.data.records import Record


@pytest.fixture(scope="module")
def receipts() -> list[Record]:
    return [generate("receipts", 31, i, split=split) for split in ("train", "heldout") for i in range(60)]


def cents(text: str) -> int:
    sign = -1 if text.startswith("-") else 1
    return sign * int(re.sub(r"\D", "", text))


def test_total_is_the_sum_of_what_is_printed(receipts: list[Record]) -> None:
    for record in receipts:
        facts = record.facts
        extra = [facts["fields"][name] for name in ("tax", "tip", "discount") if name in facts["fields"]]
        items = [amount for _, amount in facts["items"]]
        assert sum(map(cents, items + extra)) == cents(facts["total"])
        if "subtotal" in facts["fields"]:
            assert sum(map(cents, items)) == cents(facts["fields"]["subtotal"])
        if "cash" in facts["fields"]:
            assert cents(facts["fields"]["cash"]) - cents(facts["fields"]["change"]) == cents(facts["total"])


def test_answers_are_printed_exactly(receipts: list[Record]) -> None:
    for record in receipts:
        texts = [line.text for line in record.lines]
        for turn in record.turns:
            if turn.task in ("receipts.total", "receipts.shop", "receipts.date", "receipts.item", "receipts.field"):
                assert turn.answer in texts, (record.key, turn)
            if turn.task == "receipts.read":
                assert turn.answer.split() == " ".join(texts).split()


def test_items_answer_their_own_price(receipts: list[Record]) -> None:
    asked = 0
    for record in receipts:
        prices = dict(record.facts["items"])
        for turn in record.turns:
            if turn.task == "receipts.item":
                (name,) = [n for n in prices if re.search(rf"\b{n}\b", turn.question)]
                assert turn.answer == prices[name]
                asked += 1
            if turn.task == "receipts.count":
                assert turn.answer == str(len(prices))
    assert asked > 50


def test_what_is_missing_is_missing_and_the_same_is_asked_when_it_is_there(receipts: list[Record]) -> None:
    asked: dict[str, set[str]] = {"there": set(), "missing": set()}
    for record in receipts:
        text = " ".join(line.text for line in record.lines).casefold()
        for turn in record.turns:
            if turn.task == "receipts.missing":
                assert turn.answer == NOT_PRESENT
                field = [name for name in FIELDS if f" {name}" in turn.question]
                if field:
                    assert field[-1] not in record.facts["fields"]
                    asked["missing"].add(field[-1])
                else:
                    name = re.findall(r"[A-Z][a-z]+|[À-ÿ]+", turn.question)[-1]
                    assert name.casefold() not in text
            elif turn.task == "receipts.field":
                assert turn.answer != NOT_PRESENT
                asked["there"] |= {name for name in FIELDS if f" {name}" in turn.question}
    assert len(asked["there"] & asked["missing"]) >= 6


@pytest.mark.parametrize("code", ["en", "de"])
def test_a_receipt_that_lacks_no_field_is_asked_about_too(code: str) -> None:
    """Few receipts have every optional field; drawing the questions of one ended a run of training."""
    receipt = Receipt(
        shop="Shop", address="1 Road", date="1 Jan 2026", time="8:36", items=(("Rice", "1.00"),), counts=(1,),
        total="1.00", fields=dict.fromkeys(FIELDS, "7"),
    )  # fmt: skip
    for seed in range(40):
        for turn in talk(Random(seed), receipt, ["Shop"], "train", language(code), is_counted=True):
            if turn.task == "receipts.missing":
                assert "Rice" not in turn.question
                assert not any(name in turn.question for name in FIELDS)


def test_one_layout_is_kept_for_the_heldout_split(receipts: list[Record]) -> None:
    seen = {split: {r.facts["layout"] for r in receipts if r.split == split} for split in ("train", "heldout")}
    assert seen["heldout"] == {layout.name for layout in LAYOUTS if layout.is_heldout}
    assert seen["train"] == {layout.name for layout in LAYOUTS if not layout.is_heldout}


def test_paper_keeps_its_size(receipts: list[Record]) -> None:
    for record in receipts:
        width, height = record.picture.size
        assert 224 <= width <= 340
        assert 260 <= height <= 560
