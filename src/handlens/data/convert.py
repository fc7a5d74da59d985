"""From one format to another, with every sample that could not go along named.

Boundary: samples in, samples out; pictures travel as the bytes they are.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from handlens.data.formats import Format
from handlens.data.samples import Damage, Found, Sample
from handlens.errors import DataError

NAMED = 20
"""Keys that a tally names for each reason."""


@dataclass
class Tally:
    """What became of every sample that was read."""

    read: int = 0
    written: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    """Reason -> how many. ``read == written + sum(dropped)`` holds at the end."""
    named: dict[str, list[str]] = field(default_factory=dict)
    """Reason -> the first few keys."""

    def drop(self, reason: str, key: str) -> None:
        """Count one sample that is left out."""
        self.dropped[reason] += 1
        names = self.named.setdefault(reason, [])
        if len(names) < NAMED:
            names.append(key)

    def to_json(self) -> dict[str, Any]:
        """Return the counts as plain JSON."""
        return {"read": self.read, "written": self.written, "dropped": dict(self.dropped), "named": self.named}


def convert(found: Iterable[Found], to: Format, out: Path, tally: Tally | None = None) -> Tally:
    """Write every sample that the format can hold; count the others by reason.

    Raises:
        DataError: the folder is not empty.
    """
    tally = tally or Tally()
    empty_folder(out)
    tally.written = to.write(_writable(found, to, tally), out)
    return tally


def empty_folder(out: Path) -> Path:
    """Make a folder.

    Raises:
        DataError: something lies in it.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} is not an empty folder; choose another --out or empty it")
    out.mkdir(parents=True, exist_ok=True)
    return out


def _writable(found: Iterable[Found], to: Format, tally: Tally) -> Iterator[Sample]:
    fewest, most = to.num_images
    for item in found:
        tally.read += 1
        if isinstance(item, Damage):
            tally.drop(item.fault.kind, item.where)
        elif item.faults:
            tally.drop(item.faults[0].kind, item.key)
        elif not fewest <= len(item.images) <= most:
            tally.drop(f"has {len(item.images)} pictures, {to.name} holds {fewest} to {most}", item.key)
        elif any(not _is_there(image) for image in item.images):
            tally.drop("missing-image", item.key)
        else:
            yield item


def _is_there(image: Any) -> bool:
    try:
        return bool(image.read())
    except DataError:
        return False
