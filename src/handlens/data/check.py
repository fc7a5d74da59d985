"""The doctor of a data set: reads every sample as training would and names what is wrong with it.

Boundary: samples in, a report out; nothing is changed. ``FIXES`` lists every kind of problem.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from handlens.core.images import open_picture
from handlens.core.slicing import Size
from handlens.data.identify import contradicts, identify
from handlens.data.likeness import Neighbours, PictureHash, hash_picture
from handlens.data.render import Rendered, Target, check_roles, render
from handlens.data.samples import Damage, Fault, Found, Sample, said
from handlens.errors import DataError, HandlensError, NeedsExtra

MAX_TOKENS = 4096
"""Longest sample in tokens after slicing: the context of nano. The official fine-tuning script cuts at 2048."""
MAX_PX = 1_000_000
"""A box with a larger number is no box."""
FIXES = {
    "unreadable": "restore the file, or remove it",
    "misshapen": "write it as docs/data.md shows",
    "manifest": "write manifest and shards again: handlens data convert",
    "missing-image": "add the picture, or remove the sample",
    "corrupt-image": "copy the picture again, or remove the sample",
    "placeholder": "let every picture have one mark, in order, and no other mark in the text",
    "roles": "let user and assistant speak in turn, an answer last",
    "empty": "write the missing text, or remove the sample",
    "broken-text": "restore what was lost, or remove the sample",
    "wrong-alphabet": "repair it: handlens data clean",
    "too-long": "shorten it, or split the conversation; the model does not read further",
    "box": "give boxes as x0, y0, x1, y1 in px inside the picture, x0 < x1 and y0 < y1",
    "language": "correct the language tag",
    "duplicate": "keep one of them: handlens data clean",
    "duplicate-key": "give every sample a key of its own",
    "leak": "remove it from training: it is in the evaluation set",
}
"""Kind of problem -> what to do about it."""
GROUNDING = {f"<{end}{name}>" for name in ("ref", "box", "quad", "point") for end in ("", "/")}
"""Special tokens that an answer may hold on purpose."""
READABLE = {"box", "language", "wrong-alphabet"}
"""Kinds of problem with which a conversation is rendered all the same."""
MISPAIRED = ("\ufffd", "\x00")


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing to put right."""

    kind: str
    sample: str
    fix: str


@dataclass
class Report:
    """What was found, and the sums that a price is computed from."""

    samples: int = 0
    problems: list[Problem] = field(default_factory=list)
    languages: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    """Of all samples that can be rendered, visual tokens included."""
    targets: int = 0
    """Tokens from which is learned."""
    slices: int = 0
    patches: int = 0
    longest: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the number of samples and the problems."""
        rows = [{"kind": row.kind, "sample": row.sample, "fix": row.fix} for row in self.problems]
        return {"samples": self.samples, "problems": rows}


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A sample with its pictures opened; what was wrong with it came out on the way."""

    sample: Sample
    hashes: tuple[PictureHash, ...]
    sizes: tuple[Size, ...]
    rendered: Rendered | None
    faults: tuple[Fault, ...]


def check(
    found: Iterable[Found],
    target: Target,
    *,
    against: Iterable[Found] = (),
    limit: int = MAX_TOKENS,
    progress: Callable[[int], None] = lambda done: None,
) -> Report:
    """Return every problem of a data set.

    ``against`` is an evaluation set: a sample of it must not be among ``found``. ``limit`` is in tokens after
    slicing.
    """
    report = Report()
    secret = _evaluation_set(against)
    earlier, keys = Neighbours(), set[str]()
    for item in found:
        if isinstance(item, Damage):
            _add(report, item.where, item.fault)
            continue
        report.samples += 1
        progress(report.samples)
        seen = look(item, target, limit)
        for fault in (*seen.faults, *_repeats(seen, keys, earlier, secret)):
            _add(report, item.key, fault)
        _count(report, seen)
    if report.samples == 0 and not report.problems:
        _add(report, "all", Fault("empty", "there is no sample"))
    return report


def look(sample: Sample, target: Target, limit: int = MAX_TOKENS, *, hashed: bool = True) -> Seen:
    """Return a sample with everything that can be found by looking at it alone; ``hashed`` adds hashes of pictures."""
    faults = list(sample.faults)
    hashes, sizes = [], []
    for image in sample.images:
        try:
            data = image.read()
        except DataError as error:
            faults.append(Fault("missing-image", str(error)))
            continue
        try:
            picture = _open(data, image.name)
            if hashed:
                hashes.append(hash_picture(picture))
            sizes.append(picture.size)
        except HandlensError as error:
            faults.append(Fault("corrupt-image", str(error)))
    faults += [*_text_faults(sample, target), *_box_faults(sample.truth, sizes[0] if sizes else None)]
    rendered = None
    if sample.chat and all(fault.kind in READABLE for fault in faults):
        try:
            rendered = render(sample.chat, sizes, target)
        except HandlensError as error:
            faults.append(Fault("placeholder", str(error)))
    if rendered is not None and len(rendered.ids) > limit:
        detail = f"{len(rendered.ids)} tokens, {int(rendered.is_visual.sum())} of them visual; the limit is {limit}"
        faults.append(Fault("too-long", detail))
    return Seen(
        sample=sample, hashes=tuple(hashes), sizes=tuple(sizes), rendered=rendered, faults=tuple(dict.fromkeys(faults))
    )


def sample_at(found: Iterable[Found], number: int) -> Sample:
    """Return sample ``number``, counted from 0.

    Raises:
        DataError: there are fewer.
    """
    samples = (item for item in found if isinstance(item, Sample))
    sample = next(islice(samples, number, None), None)
    if sample is None:
        raise DataError(f"there is no sample {number}; samples are counted from 0")
    return sample


def language_of(sample: Sample) -> str:
    """Return the tag of a sample, or the language of its answers where it has none."""
    if sample.language:
        return sample.language
    try:
        return identify(" ".join(sample.answers)).tag
    except NeedsExtra:
        return "und"


def _open(data: bytes, name: str) -> Any:
    return open_picture(data, name=name).image


def _text_faults(sample: Sample, target: Target) -> Iterator[Fault]:
    if not sample.chat:
        if not sample.faults and (sample.truth or not sample.images):
            yield Fault("empty", "there is no conversation")
        return
    try:
        check_roles(sample.chat)
    except DataError as error:
        yield Fault("roles", str(error))
    specials = {token.content for token in target.tokenizer.fast.get_added_tokens_decoder().values() if token.special}
    specials -= GROUNDING
    for number, turn in enumerate(sample.chat):
        text = said(turn)
        if not text.strip() and (turn.role == "assistant" or not turn.content):
            yield Fault("empty", f"turn {number} ({turn.role}) says nothing")
        marks = sorted(mark for mark in specials if mark in text)
        if marks:
            yield Fault("placeholder", f"turn {number} holds the text {marks[0]}, which is a mark of the prompt")
        if any(char in text for char in MISPAIRED) or any("\ud800" <= char <= "\udfff" for char in text):
            yield Fault("broken-text", f"turn {number} holds characters that were lost in a conversion")
        elif is_mojibake(text):
            yield Fault("wrong-alphabet", f"turn {number} was decoded with the wrong alphabet: {text[:40]!r}")
    printed = [line["text"] for line in _rows(sample.truth, "lines") if isinstance(line.get("text"), str)]
    if sample.language and contradicts(sample.language, " ".join([sample.text, *printed])):
        yield Fault("language", f"the tag is {sample.language!r:.20} but no letter is of its script")


def is_mojibake(text: str) -> bool:
    """True when UTF-8 was read as another alphabet; False where ftfy is not installed."""
    if text.isascii():
        return False
    try:
        from ftfy.badness import is_bad
    except ImportError:
        return False
    return bool(is_bad(text))


def _box_faults(truth: dict[str, Any], size: Size | None) -> Iterator[Fault]:
    for name in ("objects", "lines", "things"):
        value = truth.get(name)
        if value is not None and not isinstance(value, list):
            yield Fault("misshapen", f"{name} is {type(value).__name__}, not a list")
        for number, row in enumerate(_rows(truth, name)):
            wrong = _box_fault(row.get("box"), size)
            if wrong:
                yield Fault("box", f"box {number} of {name} {wrong}")
                break


def _rows(truth: dict[str, Any], name: str) -> list[dict[str, Any]]:
    value = truth.get(name)
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def _box_fault(box: Any, size: Size | None) -> str:
    numbers = isinstance(box, list) and len(box) == 4 and all(type(value) in (int, float) for value in box)
    if not numbers or not all(abs(value) < MAX_PX for value in box):  # also false where it is not a number
        return f"is {box!r:.40}"
    x0, y0, x1, y1 = box
    if x1 < x0 or y1 < y0:
        return f"ends before it begins: {box}"
    if size is not None and (x1 < 0 or y1 < 0 or x0 > size[0] or y0 > size[1]):
        return f"lies outside of the picture of {size[0]}x{size[1]} px: {box}"
    return ""


@dataclass(frozen=True, kw_only=True)
class _EvaluationSet:
    neighbours: Neighbours
    pictures: dict[str, str]


def _evaluation_set(found: Iterable[Found]) -> _EvaluationSet:
    neighbours, pictures = Neighbours(), dict[str, str]()
    for item in found:
        if isinstance(item, Sample):
            hashes = _hashes(item)
            if len(hashes) == len(item.images):
                neighbours.add(item.key, hashes, item.text)
            pictures |= {picture.exact: item.key for picture in hashes}
    return _EvaluationSet(neighbours=neighbours, pictures=pictures)


def _hashes(sample: Sample) -> tuple[PictureHash, ...]:
    hashes = []
    for image in sample.images:
        try:
            hashes.append(hash_picture(_open(image.read(), image.name)))
        except HandlensError:  # its own doctor reports it
            continue
    return tuple(hashes)


def _repeats(seen: Seen, keys: set[str], earlier: Neighbours, secret: _EvaluationSet) -> Iterator[Fault]:
    sample = seen.sample
    if sample.key in keys:
        yield Fault("duplicate-key", f"an earlier sample is called {sample.key} too")
    keys.add(sample.key)
    if len(seen.hashes) < len(sample.images) or not (seen.hashes or sample.text):
        return
    again = earlier.find(seen.hashes, sample.text)
    if again is None:
        earlier.add(sample.key, seen.hashes, sample.text)
    else:
        yield Fault("duplicate", f"{'the same as' if again[1] else 'nearly the same as'} {again[0]}")
    known = next((secret.pictures[pic.exact] for pic in seen.hashes if pic.exact in secret.pictures), None)
    leaked = (known, True) if known else secret.neighbours.find(seen.hashes, sample.text)
    if leaked is not None:
        yield Fault("leak", f"{'the same as' if leaked[1] else 'nearly the same as'} {leaked[0]} of the evaluation set")


def _count(report: Report, seen: Seen) -> None:
    report.languages[language_of(seen.sample)] += 1
    report.licences[seen.sample.licence or "not given"] += 1
    if seen.rendered is not None:
        report.tokens += len(seen.rendered.ids)
        report.targets += int(seen.rendered.is_target.sum())
        report.slices += seen.rendered.num_slices
        report.patches += seen.rendered.num_patches
        report.longest = max(report.longest, len(seen.rendered.ids))


def _add(report: Report, where: str, fault: Fault) -> None:
    report.problems.append(Problem(kind=fault.kind, sample=where, fix=f"{fault.detail}; {FIXES[fault.kind]}"))
