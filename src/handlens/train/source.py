"""Where the records of training come from: drawn at once, or read from shards on disk.

Boundary: a phase and an index in, one record out; a pure function of both, so that a run resumes by its index alone.
"""

import hashlib
import io
import json
import random
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from handlens.data.generate import generate
from handlens.data.generate.language import language
from handlens.data.records import Record
from handlens.data.shards import record_from_json
from handlens.errors import DataError
from handlens.train.phases import Phase

Draw = Callable[[Phase, random.Random, int, str], Any]
"""``draw(phase, own, index, split)``: record number ``index``; ``own`` is the random generator of that index."""


def pick_kind(mixture: dict[str, float], rng: random.Random) -> str:
    """Draw a kind of record by its share."""
    return rng.choices(list(mixture), weights=list(mixture.values()))[0]


def draw_generated(phase: Phase, own: random.Random, index: int, split: str) -> Record:
    """Draw a picture of the phase's mixture, as damaged as the phase is far."""
    level = own.random() * min(1.0, index / max(phase.ramp_pictures, 1))
    kind = pick_kind(phase.mixture, own)
    tongue = pick_language(phase.languages, kind, own)
    wanted = phase.turns_per_picture if phase.talks and phase.turns_per_picture > 4 else 0
    return generate(
        kind, own.getrandbits(31), index, split=split, level=level, languages=(tongue,), turns=wanted
    )  # fmt: skip


def pick_language(shares: dict[str, float], kind: str, rng: random.Random) -> str:
    """Draw a language by its share among those in which the kind can be drawn; one alone needs no draw.

    Raises:
        DataError: an unknown language, or none that the kind can be drawn in.
    """
    if len(shares) == 1:
        return next(iter(shares))
    kinds = {code: language(code).kinds for code in shares}
    fit = {code: share for code, share in shares.items() if not kinds[code] or kind in kinds[code]}
    if not fit:
        raise DataError(f"{kind} cannot be drawn in any of: {', '.join(shares)}; add en")
    return rng.choices(list(fit), weights=list(fit.values()))[0]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where one record lies."""

    shard: Path
    key: str
    text: tuple[int, int]
    """First byte and length of its JSON."""
    picture: tuple[int, int]


class Shards:
    """Records of a folder of shards in an order that is shuffled anew every time round.

    Every record is compared with its hash in ``manifest.parquet`` where the folder has one.
    """

    def __init__(self, folder: Path | str, seed: int = 0) -> None:
        self.folder, self.seed = Path(folder), seed
        files = sorted(self.folder.glob("*.tar"))
        if not files:
            raise DataError(f"no shards (NNNNNN.tar) in {folder}; write some: handlens generate mixed --out {folder}")
        self.places = [place for file in files for place in find_places(file)]
        self.hashes = read_hashes(self.folder / "manifest.parquet")
        missing = self.hashes.keys() - {place.key for place in self.places}
        if missing:
            raise DataError(
                f"{folder}: {len(missing)} records of manifest.parquet are in no shard ({min(missing)} ...); "
                "a shard is cut or gone; copy it again or generate it again"
            )
        self._order: tuple[int, list[int]] = (-1, [])

    def __len__(self) -> int:
        return len(self.places)

    def __call__(self, phase: Phase, own: random.Random, index: int, split: str) -> Record:
        """Return record number ``index`` of the endless shuffled stream."""
        round_, number = divmod(index, len(self.places))
        if self._order[0] != round_:
            order = list(range(len(self.places)))
            random.Random(f"{self.seed}/shards/{round_}").shuffle(order)
            self._order = (round_, order)
        return self.read(self.places[self._order[1][number]])

    def read(self, place: Place) -> Record:
        """Return one record.

        Raises:
            DataError: the shard is damaged there.
        """
        try:
            with place.shard.open("rb") as file:
                text, picture = (_span(file, *span) for span in (place.text, place.picture))
            known = self.hashes.get(place.key)
            if known is not None and hashlib.sha256(picture + text).hexdigest() != known:
                raise ValueError("its bytes are not those of the manifest")
            return record_from_json(json.loads(text), Image.open(io.BytesIO(picture)).convert("RGB"))
        except (OSError, ValueError, KeyError, TypeError, EOFError, SyntaxError) as cause:
            raise DataError(
                f"{place.shard}: record {place.key} is damaged ({_short(cause)}); "
                "copy the shard again or generate it again, then run the same command"
            ) from None


def _span(file: Any, start: int, length: int) -> bytes:
    file.seek(start)
    data: bytes = file.read(length)
    if len(data) != length:
        raise ValueError(f"{length - len(data)} bytes are missing")
    return data


def _short(cause: Exception) -> str:
    return (getattr(cause, "strerror", None) or str(cause) or type(cause).__name__).splitlines()[0]


def find_places(shard: Path) -> list[Place]:
    """Return where the records of a shard lie; only headers are read.

    Raises:
        DataError: the shard is not a tar file, is cut, or holds something else than pairs of JSON and picture.
    """
    places, before, end = [], None, 0
    try:
        with tarfile.open(shard) as tar:
            for entry in tar:
                key, _, ending = entry.name.rpartition(".")
                span = (entry.offset_data, entry.size)
                end = entry.offset_data + -(-entry.size // 512) * 512
                if ending == "json":
                    before = (key, span)
                elif before is None or before[0] != key:
                    raise ValueError(f"{entry.name} has no JSON before it")
                else:
                    places.append(Place(shard=shard, key=key, text=before[1], picture=span))
                    before = None
        # A damaged header looks like the end of the file: what follows the last record must be empty.
        with shard.open("rb") as file:
            file.seek(end)
            rest = file.read(20 * 512)
            if len(rest) < 1024 or rest.strip(b"\0"):
                raise ValueError(f"it is cut or overwritten after {len(places)} records")
    except (tarfile.TarError, OSError, ValueError) as cause:
        raise DataError(f"{shard} is damaged ({_short(cause)}); copy it again or generate it again") from None
    return places


def read_hashes(manifest: Path) -> dict[str, str]:
    """Return key -> sha256 of the records of a manifest; empty where there is none or pyarrow is missing."""
    if not manifest.is_file():
        return {}
    try:
        import pyarrow.parquet
    except ImportError:
        return {}
    try:
        table = pyarrow.parquet.read_table(manifest, columns=["key", "sha256"]).to_pydict()
    except (OSError, ValueError) as cause:
        raise DataError(f"{manifest} is damaged ({_short(cause)}); generate it again, or remove it") from None
    return dict(zip(table["key"], table["sha256"], strict=True))
