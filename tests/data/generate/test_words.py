"""Text is varied, printable and split by words."""

from collections import Counter
from random import Random

import pytest

from handlens.data.generate.fonts import CHARACTERS
from handlens.data.generate.words import TEMPLATE, is_heldout, phrase, pool, price, pseudo_word, token

POOLS = ("shop", "food", "product", "place", "person", "office", "warning", "all")


@pytest.mark.parametrize("name", POOLS)
def test_pools_are_split_without_overlap(name: str) -> None:
    train, heldout = set(pool(name, "train")), set(pool(name, "heldout"))
    assert train.isdisjoint(heldout)
    assert len(train) >= 50
    assert len(heldout) >= 5
    assert set(pool(name, "validation")) == train


def test_about_a_seventh_of_the_words_is_held_out() -> None:
    words = {word for word in pool("all", "train") + pool("all", "heldout") if len(word) > 3 and word not in TEMPLATE}
    share = sum(map(is_heldout, words)) / len(words)
    assert 0.11 < share < 0.19


def test_holding_out_ignores_case_and_spares_layouts() -> None:
    word = pool("food", "heldout")[0]
    assert is_heldout(word.upper())
    assert not any(map(is_heldout, TEMPLATE))


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_made_up_words_keep_to_their_split(split: str) -> None:
    rng = Random(1)
    words = [pseudo_word(rng, split, 9) for _ in range(200)]
    assert all(is_heldout(word) == (split == "heldout") for word in words)
    assert all(3 < len(word) <= 9 for word in words)
    assert len(set(words)) > 190


def test_every_character_is_printed_often_enough_to_learn() -> None:
    rng = Random(2)
    seen = Counter(char for _ in range(12_000) for char in phrase(rng, "train"))
    assert set(seen) == set(CHARACTERS)
    assert min(seen.values()) > 20  # of about 180,000


def test_shares_of_words_and_numbers() -> None:
    rng = Random(3)
    pieces = [token(rng, "train") for _ in range(4_000)]
    digits = sum(len(p) for p in pieces if any(c.isdigit() for c in p)) / sum(map(len, pieces))
    assert 0.24 < digits < 0.40


def test_price_has_two_decimals() -> None:
    rng = Random(4)
    assert all(0.05 <= float(p) <= 20.06 and p[-3] == "." for p in (price(rng, 20.0) for _ in range(300)))
