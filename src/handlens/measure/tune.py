"""Search the settings that suit this machine: each trial in a process of its own, hopeless ones cut short.

Boundary: runs trials and chooses; writes nothing. The halves run one after the other, so they are searched apart:
a whole configuration costs the sum of its seconds and the larger of its peaks. That turns a product of choices into
a sum. Inside the language half one setting is changed at a time, from the best so far, until nothing improves.
"""

import importlib.util
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from handlens.engine.bundle import Bundle
from handlens.engine.setup import PREFILLS, Setup
from handlens.measure.goal import Goal
from handlens.measure.trial import Job, Trial, run_trial

QUALITY = ("Q4_0", "Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0", "F16", "BF16", "F32")
"""Language weights from coarse to exact: a stand-in for quality where nobody measured it."""
ANSWER_TOKENS = 64
"""Length of the answer that counts in the time of a whole answer."""
PATIENCE = 4.0
"""A trial may take this many times the best one of its half, and a little more."""
GRACE_SECONDS = 20.0
CLOSE, NUM_RIVALS = 1.1, 2
"""So much slower than the best in one run, a configuration can still be the best; so many get a second look."""
VISION_FIELDS = ("provider", "vision", "vision_threads")


@dataclass(frozen=True, kw_only=True)
class Option:
    """A whole configuration with what it was measured to need."""

    setup: Setup
    first_word_seconds: float
    tokens_per_second: float
    peak_bytes: int
    quality: tuple[int, int]
    """Ranks of language and vision weights; more is better."""

    @property
    def answer_seconds(self) -> float:
        """Of a whole answer."""
        return self.first_word_seconds + ANSWER_TOKENS / self.tokens_per_second

    def keeps(self, goal: Goal) -> bool:
        """True when every limit of the goal holds."""
        return (
            self.first_word_seconds <= goal.first_word_seconds
            and self.peak_bytes <= goal.peak_bytes
            and self.tokens_per_second >= goal.tokens_per_second
        )

    def excess(self, goal: Goal) -> float:
        """Return by which factor the worst limit is missed; 1 or less is kept."""
        speed = goal.tokens_per_second / self.tokens_per_second
        return max(self.first_word_seconds / goal.first_word_seconds, self.peak_bytes / goal.peak_bytes, speed)

    def order(self, goal: Goal) -> tuple[Any, ...]:
        """Return what is compared: least is best."""
        quality = tuple(-rank for rank in self.quality)
        speed = self.answer_seconds
        missed = 0.0 if self.keeps(goal) else self.excess(goal)
        return (missed, quality, speed) if goal.prefers_quality else (missed, speed, quality)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "setup": self.setup.to_json(changed_only=True),
            "first_word_seconds": round(self.first_word_seconds, 4),
            "tokens_per_second": round(self.tokens_per_second, 3),
            "answer_seconds": round(self.answer_seconds, 4),
            "peak_bytes": self.peak_bytes,
            "quality": list(self.quality),
        }


@dataclass(frozen=True, kw_only=True)
class Space:
    """What can be chosen on this machine with this bundle."""

    providers: tuple[str, ...]
    visions: tuple[str, ...]
    languages: tuple[str, ...]
    threads: tuple[int, ...]
    """0 stands for the free cores, as in ``Setup``."""
    free_cores: int = 0
    """What 0 means here."""
    micro_batches: tuple[int, ...] = (256, 512, 128)
    prefills: tuple[str, ...] = ("llama.cpp",)
    attention: tuple[tuple[bool, str], ...] = ((False, "auto"), (True, "auto"), (True, "q8_0"))
    layouts: tuple[tuple[bool | None, bool], ...] = ((None, True), (True, False), (False, False))
    """Mapping and repacking: copied and repacked, mapped, copied."""

    def vision_setups(self) -> Iterator[Setup]:
        """Yield every way to run the vision half, most threads first."""
        for provider, vision, threads in product(self.providers, self.visions, self.threads):
            yield Setup(provider=provider, vision=vision, vision_threads=threads)

    def axes(self) -> dict[str, list[dict[str, Any]]]:
        """Return the choices of the language half, one list per axis, in the order they are searched."""
        return {
            "weights": [{"language": name} for name in self.languages],
            "layout": [{"mmap": mmap, "repack": repack} for mmap, repack in self.layouts],
            "threads": [{"prefill_threads": count, "decode_threads": count} for count in self.threads],
            "prefill": [{"prefill": name} for name in self.prefills],
            "attention": [{"flash": flash, "kv": kv} for flash, kv in self.attention],
            "batch": [{"micro_batch": count} for count in self.micro_batches],
            "decode_threads": [{"decode_threads": count} for count in self.threads],
        }

    def language_setups(self) -> Iterator[Setup]:
        """Yield every way to run the language half."""
        seen = set()
        for choice in product(*self.axes().values()):
            setup = Setup(**{name: value for part in choice for name, value in part.items()})
            if setup not in seen:
                seen.add(setup)
                yield setup


def space_of(folder: Path) -> Space:
    """Return what is installed: providers, files of the bundle, cores."""
    from handlens.engine.cores import count_free_cores, physical_cores
    from handlens.engine.vision import available_providers

    bundle = Bundle.open(folder)
    names = sorted(bundle.manifest["files"])
    cores = physical_cores()
    free = count_free_cores()
    counts = sorted({cores, free, max(1, cores // 2), 1}, reverse=True)

    def files(start: str, end: str, own: str) -> tuple[str, ...]:
        """The bundle's own file is "", as in ``Setup``, and comes first."""
        others = [name for name in names if name.startswith(start) and name.endswith(end) and name != own]
        return ("", *others)

    return Space(
        providers=tuple(available_providers()),
        visions=files("vision", ".onnx", bundle.vision),
        languages=files("language", ".gguf", bundle.language),
        threads=tuple(0 if count == free else count for count in counts),
        free_cores=free,
        prefills=PREFILLS if importlib.util.find_spec("openvino") else PREFILLS[:1],
    )


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search found."""

    goal: Goal
    best: Option
    default: Option
    options: tuple[Option, ...]
    failed: tuple[Trial, ...]
    num_trials: int
    seconds: float

    @property
    def front(self) -> list[Option]:
        """The options that no other beats in everything, fastest first word first."""
        return sorted(pareto(self.options), key=lambda option: option.first_word_seconds)

    @property
    def finalists(self) -> list[Option]:
        """The best, what one run cannot tell from it, and the defaults where they would do; whole runs decide."""
        best = self.best
        close = [
            option
            for option in sorted(self.options, key=lambda option: option.order(self.goal))
            if option.setup != best.setup
            and option.keeps(self.goal) == best.keeps(self.goal)
            and (option.quality == best.quality or not self.goal.prefers_quality)
            and option.answer_seconds <= CLOSE * best.answer_seconds
        ]
        rivals = [best, *close[:NUM_RIVALS]]
        return rivals if self.default in rivals else [*rivals, self.default]

    def may_win(self, option: Option) -> bool:
        """True for a finalist that keeps the goal as the best does, with no less quality where that is wanted."""
        return (option.keeps(self.goal) or not self.best.keeps(self.goal)) and (
            option.quality >= self.best.quality or not self.goal.prefers_quality
        )


Runner = Callable[[Job], Trial]


class Tuner:
    """Runs trials of both halves and joins them.

    Args:
        folder: the bundle.
        space: what can be chosen.
        size: width and height of the picture that is asked about.
        width: of a visual token.
        run: runs one job; replaced in tests by a table.
        say: is told of every trial.
    """

    def __init__(
        self,
        folder: Path,
        space: Space,
        size: tuple[int, int],
        width: int,
        *,
        run: Runner = run_trial,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.folder, self.space, self.size, self.width = folder, space, size, width
        self.run, self.say = run, say
        bundle = Bundle.open(folder)
        self.own_vision, self.own_language = bundle.vision, bundle.language
        self.visions: dict[Setup, Trial] = {}
        self.languages: dict[Setup, Trial] = {}
        self.failed: list[Trial] = []
        self.num_trials = 0

    def search(self, goal: Goal, *, limit_seconds: float = 600.0, exhaustive: bool = False) -> Found:
        """Return the best configuration for a goal.

        Raises:
            ModelError: not even the defaults run.
        """
        from handlens.measure.trial import require

        begin = time.monotonic()
        for _ in range(2):  # the first run reads the files from the disk
            self.visions.clear()
            self.languages.clear()
            require(self.try_vision(Setup()))
            require(self.try_language(Setup()))
        for setup in self.space.vision_setups():
            if self._is_hopeless(setup):
                continue
            self.try_vision(setup)
        if exhaustive:
            for setup in self.space.language_setups():
                self.try_language(setup)
        else:
            self._descend(goal, begin + limit_seconds)
        options = self.options()
        best = min(options, key=lambda option: option.order(goal))
        return Found(
            goal=goal, best=best, default=self.join(self.visions[Setup()], self.languages[Setup()]),
            options=tuple(options), failed=tuple(self.failed), num_trials=self.num_trials,
            seconds=time.monotonic() - begin,
        )  # fmt: skip

    def try_vision(self, setup: Setup) -> Trial:
        """Encode a few slices with one configuration, once."""
        if setup not in self.visions:
            job = Job(bundle=self.folder, setup=setup, images=(self.size,), parts=("vision",), max_encoded=3)
            self._record(self.visions, setup, job, lambda trial: f"{trial.seconds_per_slice:.3f} s a slice")
        return self.visions.get(setup) or self.failed[-1]

    def try_language(self, setup: Setup) -> Trial:
        """Read a prompt and say a few tokens with one configuration, once."""
        if setup not in self.languages:
            job = Job(bundle=self.folder, setup=setup, images=(self.size,), parts=("language",), width=self.width)
            self._record(
                self.languages, setup, job,
                lambda trial: f"prompt {trial.prefill_seconds:.2f} s, {trial.tokens_per_second:.1f} tokens/s",
            )  # fmt: skip
        return self.languages.get(setup) or self.failed[-1]

    def options(self) -> list[Option]:
        """Return every vision with every language configuration that ran."""
        return [self.join(*pair) for pair in product(self.visions.values(), self.languages.values())]

    def join(self, vision: Trial, language: Trial) -> Option:
        """Return both halves one after the other."""
        seen = {name: getattr(vision.setup, name) for name in VISION_FIELDS}
        setup = replace(language.setup, **seen)
        return Option(
            setup=setup,
            first_word_seconds=vision.first_word_seconds + language.first_word_seconds,
            tokens_per_second=language.tokens_per_second,
            peak_bytes=max(vision.peak_bytes, language.peak_bytes),
            quality=(self._rank(setup), self._vision_rank(setup)),
        )

    def _descend(self, goal: Goal, deadline: float) -> None:
        """Change one setting at a time, from the best so far, until a whole round improves nothing."""
        best = Setup()
        for _ in range(3):
            before = best
            for choices in self.space.axes().values():
                for choice in choices:
                    if time.monotonic() < deadline:
                        self.try_language(replace(best, **choice))
                best = self._best_language(goal)
            if best == before:
                return

    def _best_language(self, goal: Goal) -> Setup:
        """Return the language configuration of the best whole one."""
        options = [(self.join(vision, trial), setup) for vision in self.visions.values()
                   for setup, trial in self.languages.items()]  # fmt: skip
        return min(options, key=lambda pair: pair[0].order(goal))[1]

    def _record(self, known: dict[Setup, Trial], setup: Setup, job: Job, tell: Callable[[Trial], str]) -> None:
        times = [trial.first_word_seconds for trial in known.values()]
        limit = PATIENCE * min(times) + GRACE_SECONDS if times else 600.0
        trial = self.run(replace(job, limit_seconds=limit))
        self.num_trials += 1
        if trial.figures is None:
            self.failed.append(trial)
        else:
            known[setup] = trial
        self.say(f"{job.parts[0]}, {setup.describe()}: {trial.trouble if trial.figures is None else tell(trial)}")

    def _is_hopeless(self, setup: Setup) -> bool:
        """True when fewer threads cannot help: more of them with the same file were not slower than still more."""
        rivals = sorted(
            (
                (self._count(other), trial.seconds_per_slice)
                for other, trial in self.visions.items()
                if (other.provider, other.vision) == (setup.provider, setup.vision) and self._count(other)
            ),
            reverse=True,
        )
        return len(rivals) >= 2 and rivals[0][1] < rivals[1][1] and self._count(setup) < rivals[1][0]

    def _count(self, setup: Setup) -> int:
        return setup.vision_threads or self.space.free_cores

    def _rank(self, setup: Setup) -> int:
        quant = (setup.language or self.own_language).removeprefix("language-").removesuffix(".gguf")
        penalty = 0 if setup.kv != "q8_0" else -1
        return 2 * (QUALITY.index(quant) if quant in QUALITY else 0) + penalty

    def _vision_rank(self, setup: Setup) -> int:
        name = setup.vision or self.own_vision
        return 0 if "int8" in name else 2 if name == "vision.onnx" else 1


def decide(
    found: Found, job_of: Callable[[Setup], Job], *, run: Runner = run_trial, rounds: int = 3
) -> tuple[Found, dict[str, Any]]:
    """Run the finalists whole, in turns; return what was found with the best of them, and its gain.

    The defaults stay where no median beats their fastest run.

    Args:
        found: by a search.
        job_of: the job of a whole run, vision and language, of a configuration.
        run: runs it.
        rounds: of each finalist.

    Returns:
        What was found, and ``speedup`` (default over best, medians of ``answer_seconds``); None where a run failed.
    """
    finalists = found.finalists
    times: dict[Setup, list[float]] = {option.setup: [] for option in finalists}
    for _ in range(rounds):
        for option in finalists:
            trial = run(job_of(option.setup))
            if trial.figures is not None:
                times[option.setup].append(trial.first_word_seconds + ANSWER_TOKENS / trial.tokens_per_second)
    medians = {setup: statistics.median(values) for setup, values in times.items() if len(values) == rounds}
    able = [option for option in finalists if found.may_win(option) and option.setup in medians]
    default = found.default
    if default.setup not in medians or not able:
        return found, {"speedup": None}
    best = min(able, key=lambda option: medians[option.setup])
    is_like = best.quality <= default.quality and default in able
    best = default if is_like and medians[best.setup] >= min(times[default.setup]) else best
    seconds = {"best": medians[best.setup], "default": medians[default.setup]}
    speedup = round(seconds["default"] / seconds["best"], 3)
    return replace(found, best=best), {"speedup": speedup, "answer_seconds": seconds}


def pareto(options: Sequence[Option]) -> list[Option]:
    """Return the options that no other is at least as good as in everything and better in something.

    Three digits count: the fourth of a measured time or peak is noise.
    """

    def costs(option: Option) -> tuple[float, ...]:
        ranks = tuple(float(-rank) for rank in option.quality)
        figures = (option.first_word_seconds, -option.tokens_per_second, option.peak_bytes)
        return (*(float(f"{figure:.3g}") for figure in figures), *ranks)

    rows = [(costs(option), option) for option in options]
    return [
        option
        for mine, option in rows
        if not any(all(a <= b for a, b in zip(other, mine, strict=True)) and other != mine for other, _ in rows)
    ]
