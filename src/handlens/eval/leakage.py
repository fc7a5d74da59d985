"""Is a question of Handlens-Bench in the training data? Equal pictures, nearly equal ones, questions with answers.

Boundary: shards of training records in, counts and examples out. Reads every record once.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from handlens.data.records import Record
from handlens.errors import DataError
from handlens.eval.bench import read_suite, suite_hash

SIDE = 16
NEAREST = 6
"""Of 256 bits: pictures that differ in so few are looked at by a person."""
SHORTEST = 12
"""Characters of an answer below which an equal question and answer is no surprise: 'What is the total?', '9.99'."""
EXAMPLES = 10


def check_shards(folder: Path) -> dict[str, Any]:
    """Return what the suite shares with the records of a folder of shards.

    Raises:
        DataError: the folder holds no record.
        NeedsExtra: the shards cannot be read without an extra.
    """
    from handlens.data.shards import read_shards

    return compare_records(read_shards(folder), str(folder))


def compare_records(records: Iterable[Record], name: str) -> dict[str, Any]:
    """Return how many items the records hold: as the same picture, a near one, the same question and answer."""
    suite = list(read_suite())
    exact = {_pixels(picture.image): row["id"] for row, picture in suite}
    codes = np.array([code_of(picture.image) for _, picture in suite])
    talks = {(row["question"], row["truth"][0]): row["id"] for row, _ in suite if len(row["truth"][0]) >= SHORTEST}
    same: set[str] = set()
    near: set[str] = set()
    said: set[str] = set()
    count = 0
    for record in records:
        count += 1
        if (key := _pixels(record.picture)) in exact:
            same.add(exact[key])
        gaps = (codes != code_of(record.picture)).sum(axis=1)
        near.update(suite[place][0]["id"] for place in np.flatnonzero(gaps <= NEAREST))
        said.update(talks[pair] for turn in record.turns if (pair := (turn.question, turn.answer)) in talks)
    if not count:
        raise DataError(f"{name} holds no training record; needed is a folder that `handlens generate` wrote")
    return {
        "suite": suite_hash(),
        "items": len(suite),
        "records": count,
        "same_picture": len(same),
        "near_picture": len(near),
        "same_question_and_answer": len(said),
        "examples": sorted(same | near | said)[:EXAMPLES],
    }


def code_of(image: Image.Image) -> np.ndarray:
    """Return 256 bits: whether each of 16x16 grey cells is brighter than its right neighbour."""
    small = np.asarray(image.convert("L").resize((SIDE + 1, SIDE), Image.Resampling.BOX), np.int16)
    return (small[:, 1:] > small[:, :-1] + 1).reshape(-1)


def _pixels(image: Image.Image) -> str:
    return hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()
