"""The mixtures hold the amounts of the paper, and everything that they name exists."""

import pytest

from handlens.data.mixtures import CORPORA, MAX_MULTILINGUAL, MIXTURES, fewest_text_only, mixture_named
from handlens.errors import DataError

KINDS = "lines receipts labels invoices forms letters tables charts formulas screens scenes cards maps mixed".split()


def test_amounts_add_up_to_those_of_the_paper() -> None:
    # Table 1: 410 + 110 + 39 + 11 M. Table 2: 560 + 1400 + 60 + 570 + 135 + 125 + 1700 + 780 K, 400 + 690 + 1900 K.
    totals = {name: mixture.samples for name, mixture in MIXTURES.items()}
    assert totals == {"pretraining": 570_000_000, "sft-1": 5_330_000, "sft-2": 2_990_000, "extras-2.5": 2_090_000}


@pytest.mark.parametrize("name", MIXTURES)
def test_shares_are_whole_and_names_exist(name: str) -> None:
    mixture = mixture_named(name)
    assert sum(mixture.shares().values()) == pytest.approx(1)
    assert sum(mixture.kinds().values()) == pytest.approx(1)
    assert set(mixture.kinds()) <= set(KINDS)
    for row in mixture.categories:
        assert set(row.corpora) <= set(CORPORA)
        assert not row.kinds or sum(row.kinds.values()) == pytest.approx(1)


def test_parts_are_fed_in_order() -> None:
    order = list(MIXTURES)
    assert [MIXTURES[name].after for name in order] == ["", "", "sft-1", "sft-2"]


def test_the_multilingual_share_needs_text() -> None:
    known = sum(MIXTURES[name].samples for name in ("sft-1", "sft-2", "extras-2.5"))
    assert 90_000 / known > MAX_MULTILINGUAL  # with the amounts that are given alone it would be 0.86 %
    assert 90_000 / (known + fewest_text_only()) <= MAX_MULTILINGUAL


def test_every_corpus_is_used_and_has_a_licence() -> None:
    used = {corpus for mixture in MIXTURES.values() for row in mixture.categories for corpus in row.corpora}
    assert used == set(CORPORA)
    assert all(corpus.licence for corpus in CORPORA.values())


def test_a_near_miss_is_guessed() -> None:
    with pytest.raises(DataError, match="did you mean 'sft-1'"):
        mixture_named("sft1")
