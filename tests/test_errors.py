"""Errors reach the user whole."""

import pickle

from handlens.errors import NeedsExtra, did_you_mean


def test_a_missing_extra_travels_from_a_worker_process():
    error = pickle.loads(pickle.dumps(NeedsExtra("training", "train")))
    assert str(error) == "training needs the extra 'train': pip install 'handlens[train]'"
    assert error.extra == "train"


def test_a_near_miss_is_guessed_and_anything_else_gets_the_list():
    assert did_you_mean("recipts", ["receipts", "lines"]) == "; did you mean 'receipts'?"
    assert did_you_mean("xyz", ["receipts", "lines"]) == "; known: lines, receipts"
