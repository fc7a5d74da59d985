"""An endless stream of training samples that goes on exactly where it stopped: blended, shuffled and packed.

Boundary: shard folders and shares in, rows of samples out. Everything is a pure function of (sources, seed, position),
so a checkpoint is a few numbers, and neither a kill nor another number of workers changes what comes next.
"""

import hashlib
import json
import random
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from handlens.data.formats.shards import members_to_sample, shard_files
from handlens.data.pack import Budget, Length, pack
from handlens.data.samples import Sample
from handlens.data.spread import Apply
from handlens.errors import DataError, SettingError


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Where one sample lies: shard, and (name, offset, bytes) of each of its files."""

    shard: str
    files: tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, kw_only=True)
class Source:
    """One folder of shards and how often it is drawn."""

    name: str
    folder: Path
    share: float
    entries: tuple[Entry, ...]


@dataclass(frozen=True, kw_only=True)
class Position:
    """Everything that the next row depends on beside sources and seed; plain JSON as ``asdict``."""

    drawn: int = 0
    """Samples taken from the blend."""
    rows: int = 0
    waiting: tuple[tuple[int, int], ...] = ()
    """(source, number in its own order) of the samples that wait for a row."""
    taken: tuple[int, ...] = ()
    """Samples taken from each source."""
    digest: str = ""
    """Of sources, seed and budget: a position belongs to one stream."""

    def to_json(self) -> str:
        """Return the position as one line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Position":
        """Read a line of ``to_json``.

        Raises:
            DataError: it is something else.
        """
        try:
            row = json.loads(text)
            waiting = tuple((int(a), int(b)) for a, b in row["waiting"])
            return cls(
                drawn=int(row["drawn"]), rows=int(row["rows"]), waiting=waiting,
                taken=tuple(map(int, row["taken"])), digest=str(row["digest"]),
            )  # fmt: skip
        except (ValueError, KeyError, TypeError) as cause:
            raise DataError(f"this is no position of a stream ({cause}); begin again without it") from None


@dataclass(frozen=True, kw_only=True)
class Row:
    """Samples that share one training row, and where the stream stands after it."""

    samples: tuple[Sample, ...]
    after: Position


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Blended sources without end: each source in a new order every epoch, rows packed from a window."""

    sources: tuple[Source, ...]
    measure: Callable[[Sample], Length | None]
    """Room that a sample takes; None leaves it out. It has to be a function of the sample alone."""
    seed: int = 1
    budget: Budget = field(default_factory=Budget)
    window: int = 128
    """Samples from which rows are packed."""

    def __post_init__(self) -> None:
        if not self.sources:
            raise SettingError("a stream needs at least one source")
        for source in self.sources:
            if source.share <= 0 or not source.entries:
                raise SettingError(
                    f"source {source.name} has share {source.share:g} and {len(source.entries)} samples; "
                    "both have to be above 0"
                )

    @property
    def digest(self) -> str:
        """Name of the stream: equal for equal sources, seed, budget and window."""
        facts = [self.seed, self.window, asdict(self.budget)]
        facts += [[source.name, source.share, [asdict(entry) for entry in source.entries]] for source in self.sources]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    def rows(self, start: Position | None = None, *, spread: Apply = map) -> Iterator[Row]:
        """Yield rows from a position on; ``spread`` reads and measures samples on any number of workers.

        Raises:
            DataError: the position belongs to another stream, or a shard cannot be read.
        """
        position = start or Position(taken=(0,) * len(self.sources), digest=self.digest)
        if position.digest != self.digest:
            raise DataError(
                f"the position belongs to stream {position.digest}, this one is {self.digest}; "
                "give the same sources, shares, seed and budget, or begin again"
            )
        read = partial(_read_and_measure, self)
        waiting = list(spread(read, position.waiting))
        taken, drawn, made = list(position.taken), position.drawn, position.rows
        idle = 0
        while True:
            picks = self._picks(drawn, taken, self.window - len(waiting))
            drawn += len(picks)
            fresh = [held for held in spread(read, picks) if held.length is not None]
            idle = 0 if fresh or waiting else idle + 1
            if idle > 3:
                raise DataError("no sample fits a row; make the budget larger or see: handlens data check")
            waiting += fresh
            if not waiting:
                continue
            packing = pack([held.length for held in waiting if held.length is not None], self.budget)
            # the fullest row leaves; what remains is packed again together with new samples
            best = max(packing.rows, key=lambda row: sum(_tokens(waiting[place]) for place in row))
            samples = tuple(waiting[place].sample for place in sorted(best))
            waiting = [held for place, held in enumerate(waiting) if place not in best]
            made += 1
            yield Row(
                samples=samples,
                after=Position(
                    drawn=drawn, rows=made, waiting=tuple(held.pick for held in waiting), taken=tuple(taken),
                    digest=self.digest,
                ),
            )  # fmt: skip

    def _picks(self, drawn: int, taken: list[int], count: int) -> list[tuple[int, int]]:
        """Return the next ``count`` draws of the blend; ``taken`` moves along."""
        shares = [source.share for source in self.sources]
        picks = []
        for number in range(drawn, drawn + count):
            (chosen,) = random.Random(f"{self.seed}/blend/{number}").choices(range(len(shares)), shares)
            picks.append((chosen, taken[chosen]))
            taken[chosen] += 1
        return picks

    def entry(self, source: int, number: int) -> Entry:
        """Return what stands at a place of a source's own endless order: every epoch is one permutation."""
        entries = self.sources[source].entries
        epoch, place = divmod(number, len(entries))
        return entries[_permuted(place, len(entries), f"{self.seed}/{self.sources[source].name}/{epoch}")]


@dataclass(frozen=True, kw_only=True)
class _Held:
    pick: tuple[int, int]
    sample: Sample
    length: Length | None


def open_sources(folders: Mapping[str | Path, float]) -> tuple[Source, ...]:
    """Return folders of shards with their shares.

    Raises:
        DataError: a folder without shards, or a damaged one.
    """
    return tuple(
        Source(name=str(folder), folder=Path(folder), share=share, entries=index_shards(Path(folder)))
        for folder, share in folders.items()
    )


def index_shards(folder: Path) -> tuple[Entry, ...]:
    """Return where every sample of a folder lies, from one pass over the headers; no content is read.

    Raises:
        DataError: no shard, or a damaged one.
    """
    files = shard_files(folder)
    if not files:
        raise DataError(f"no shards (*.tar) in {folder}; make some: handlens data convert {folder} --to shards")
    entries: list[Entry] = []
    for file in files:
        grouped: dict[str, list[tuple[str, int, int]]] = {}
        try:
            with tarfile.open(file) as tar:
                for member in tar:
                    head, _, name = member.name.rpartition("/")
                    stem, _, ending = name.partition(".")
                    grouped.setdefault(f"{head}/{stem}", []).append((ending.lower(), member.offset_data, member.size))
        except (tarfile.TarError, OSError, EOFError) as cause:
            raise DataError(f"{file} is damaged ({cause}); see: handlens data check {folder}") from None
        entries += [Entry(shard=file.name, files=tuple(parts)) for parts in grouped.values()]
    return tuple(entries)


def _read_and_measure(stream: Stream, pick: Sequence[int]) -> _Held:
    source, number = pick
    entry = stream.entry(source, number)
    path = stream.sources[source].folder / entry.shard
    try:
        with path.open("rb") as file:
            members = []
            for ending, offset, size in entry.files:
                file.seek(offset)
                members.append((ending, file.read(size)))
    except OSError as cause:
        raise DataError(f"cannot read {path}: {cause.strerror or cause}") from None
    sample = members_to_sample(members, entry.shard)
    length = None if sample.faults else stream.measure(sample)
    fits = length is not None and stream.budget.holds(length)
    return _Held(pick=(source, number), sample=sample, length=length if fits else None)


def _tokens(held: _Held) -> int:
    return held.length.tokens if held.length is not None else 0


def _permuted(place: int, size: int, seed: str) -> int:
    """Return where a place goes in a permutation that needs no memory: four Feistel rounds, walked until inside.

    Source: Black and Rogaway, Ciphers with arbitrary finite domains, CT-RSA 2002 (cycle walking).
    """
    half = max((size - 1).bit_length() + 1, 2) // 2
    mask = (1 << half) - 1
    while True:
        left, right = place >> half, place & mask
        for turn in range(4):
            digest = hashlib.blake2b(f"{seed}/{turn}/{right}".encode(), digest_size=8).digest()
            left, right = right, left ^ int.from_bytes(digest, "big") & mask
        place = left << half | right
        if place < size:
            return place


def measured_by(target: Any) -> Callable[[Sample], Length | None]:
    """Return the measure of a ``render.Target``; broken samples are left out."""
    return partial(_length, target)


def _length(target: Any, sample: Sample) -> Length | None:
    from handlens.data.render import render
    from handlens.errors import HandlensError

    try:
        sizes = [image.open().image.size for image in sample.images]
        rendered = render(sample.chat, sizes, target)
    except HandlensError:
        return None
    return Length(key=sample.key, tokens=len(rendered.ids), slices=rendered.num_slices)
