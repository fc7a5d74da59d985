"""Handlens-Bench: held-out, drawn pictures whose truth is known by construction; no grader is needed.

Boundary: the frozen suite is a file of this package and is only read here, so it runs on the base install and on any
model. ``freeze`` draws it; ``parts`` says what is in it.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image

from handlens.core.images import Picture
from handlens.errors import DataError
from handlens.eval.task import Item

FILE = Path(__file__).parent / "suite-1.zip"
SHA256 = "1e6a3c7000cef24967e318674b33d34c27a390505acedc08966998a7b40e1927"
"""Of ``FILE``: what makes the suite frozen."""
ITEMS = "items.jsonl"


@cache
def suite_hash() -> str:
    """Return the sha256 of the suite's file.

    Raises:
        DataError: it is missing or is not the frozen one.
    """
    if not FILE.is_file():
        raise DataError(f"this installation lacks Handlens-Bench ({FILE}); install handlens again")
    found = hashlib.sha256(FILE.read_bytes()).hexdigest()
    if found != SHA256:
        raise DataError(f"{FILE} is not the frozen suite (sha256 {found[:12]}, needed is {SHA256[:12]}); install again")
    return found


def read_suite(file: Path = FILE) -> Iterator[tuple[dict[str, Any], Picture]]:
    """Yield every row of a suite with its picture."""
    with zipfile.ZipFile(file) as whole:
        for line in whole.read(ITEMS).decode("utf-8").splitlines():
            row = json.loads(line)
            with Image.open(io.BytesIO(whole.read(row["picture"]))) as image:
                yield row, Picture(image.convert("RGB"), row["id"])


def suite_items(data: Path | None) -> Iterator[Item]:
    """Yield the items; ``data`` has no effect, because the suite ships with the package."""
    suite_hash()
    for row, picture in read_suite():
        yield Item(
            id=row["id"],
            question=row["question"],
            truth=tuple(row["truth"]),
            pictures=(picture,),
            category=row["part"],
            facts={"rule": row["rule"], "group": row["group"], "language": row["language"]},
        )
