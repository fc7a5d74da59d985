"""A run: the phases of a recipe in order, each resumable, each leaving a whole model folder.

Boundary: what ``handlens train`` calls. Calling it again with the same folder goes on where it stopped.
"""

import contextlib
import fcntl
import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from handlens.config import HandlensConfig
from handlens.core.tokenizer import Tokenizer
from handlens.data.generate import LICENCE, SOURCE, generate
from handlens.engine.bundle import sha256_of
from handlens.errors import ModelError, SettingError, TrainingError
from handlens.model.checkpoint import load_config, load_weights, save_model
from handlens.model.vlm import HandlensModel, build_model
from handlens.train.cells import EYES
from handlens.train.choose import apply_settings, resolve
from handlens.train.distributed import ALONE, Mode, World, join_world, whole
from handlens.train.energy import Meter
from handlens.train.feed import picture_text
from handlens.train.ledger import phase_ledger, write_ledger, write_whole
from handlens.train.loop import Report, head_file, train_phase
from handlens.train.pause import GRACE_SECONDS, OutOfTime, Pause, pause_on_signals
from handlens.train.phases import Phase, Recipe
from handlens.train.prepare import prepare
from handlens.train.source import Draw, Shards, draw_generated, pick_kind, pick_language
from handlens.train.state import read_progress
from handlens.train.vocabulary import save_vocabulary, train_vocabulary

VOCABULARY = "tokenizer.json"
WEIGHTS = "model.safetensors"
"""Names of files; the weights of a phase are there when it is finished."""
ASKED = "phase.json"
"""What a phase was begun with."""
UNASKED = ("substitutes", "samples", "typical_px", "typical_tokens")
"""Fields of a phase that change nothing in its run."""
SHOWN = 3
"""Differences that are named at most."""


class Paused(TrainingError):
    """A signal asked the run to stop; its checkpoint is written."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number


def vocabulary_texts(recipe: Recipe, count: int | None = None) -> Iterator[str]:
    """Yield questions, answers and printed text of generated records."""
    first = recipe.phases[0]
    for index in range(recipe.vocabulary_records if count is None else count):
        rng = random.Random(f"{recipe.seed}/vocabulary/{index}")
        kind = pick_kind(first.mixture, rng)
        tongue = pick_language(first.languages, kind, rng)
        record = generate(kind, rng.getrandbits(31), index, languages=(tongue,))
        for turn in record.turns:
            yield turn.question
            if not turn.task.endswith(".read"):
                yield turn.answer
        yield picture_text(record)


def train(
    name: str,
    out: Path,
    settings: dict[str, str] | None = None,
    report: Report = lambda row: None,
    *,
    data: Path | None = None,
    base: Path | None = None,
    mode: Mode = "fsdp",
    grace_seconds: float = GRACE_SECONDS,
) -> Path:
    """Run a recipe in a folder and return the folder of the last phase.

    ``data`` is a folder of shards that takes the place of generated pictures; ``base`` a model folder whose weights
    the first phase begins with. SIGTERM and Ctrl-C save a checkpoint and stop; the same call goes on from it. A step
    that would outlast ``grace_seconds`` after SIGTERM is given up.

    Raises:
        SettingError: unknown recipe, phase or setting.
        ModelError: a file of ``base`` is missing.
        TrainingError: the run cannot go on, or was begun with other settings.
        Paused: a signal asked to stop.
    """
    recipe, module = resolve(name)
    recipe = apply_settings(recipe, settings or {})
    if recipe.needs and not (data and base):
        raise SettingError(
            f"recipe {recipe.name} needs what no package brings ({'; '.join(recipe.needs)}); give pretrained weights "
            "with --from and shards with --data, or see its phases and cost with --dry-run"
        )
    if base is not None:
        check_base(base, module.model(recipe.vocab_size).family)
    draw = draw_generated if data is None else Shards(data, recipe.seed)
    out = Path(out)
    with pause_on_signals(grace_seconds) as pause, join_world(mode) as world, only_one(out, world):
        for phase in recipe.phases:
            world.streams(phase)  # refuses now what would end a later phase
        given = given_of(recipe, data, base)
        refuse_changes(recipe, given, out)
        tokenizer = open_run(recipe, out, report, world, base)
        config = module.model(tokenizer.vocab_size) if base is None else load_config(base)
        order = [row.name for row in module.recipe().phases]
        run = Run(recipe, order, out, config, tokenizer, world, base, given)
        for phase in recipe.phases:
            try:
                run.do(phase, draw, report, pause, provenance(phase, data))
            except OutOfTime:
                raise run.paused(phase, pause) from None
    return out / recipe.phases[-1].name


@dataclass(frozen=True)
class Run:
    """A recipe in its folder, phase after phase; each begins with the weights of the last finished one."""

    recipe: Recipe
    order: list[str]
    """Names of all phases of the whole recipe."""
    out: Path
    config: HandlensConfig
    tokenizer: Tokenizer
    world: World
    base: Path | None
    given: dict[str, Any]
    """What ``given_of`` says."""

    def do(
        self,
        phase: Phase,
        draw: Draw,
        report: Report,
        pause: Pause,
        sources: list[dict[str, Any]],
    ) -> None:
        """Train one phase, unless it is done; leave a whole model folder.

        Raises:
            Paused: a signal asked to stop.
            TrainingError: the weights of a finished phase are damaged.
        """
        folder = self.out / phase.name
        if (folder / WEIGHTS).exists():
            check_whole(folder / WEIGHTS, phase)
            return
        if self.world.is_first:
            write_asked(self.given, phase, self.out)
        model = self.start(phase)

        def begin() -> None:
            prepare(model, self.config, self.recipe, phase, self.eyes_before(phase), report)

        done = train_phase(
            model, self.config, phase, self.tokenizer, folder, seed=self.recipe.seed, report=report, stop=pause,
            seconds_between_checkpoints=self.recipe.checkpoint_seconds, window=self.recipe.report_steps, draw=draw,
            world=self.world, begin=begin, head=self.head_for(phase),
        )  # fmt: skip
        if not done:
            raise self.paused(phase, pause)
        self.leave(model, phase, sources)

    def paused(self, phase: Phase, pause: Pause) -> Paused:
        """Return what to raise when a phase was stopped."""
        return Paused(
            f"stopped by {pause.name} in phase {phase.name}; its checkpoint is in {self.out / phase.name}; "
            "the same command goes on",
            pause.asked,
        )

    def start(self, phase: Phase) -> HandlensModel:
        """Return the model with which a phase begins."""
        torch.manual_seed(self.recipe.seed)
        model = build_model(self.config)
        finished = [file for name in self.before(phase) if (file := self.out / name / WEIGHTS).exists()]
        if finished:
            load_weights(model, finished[-1])
        elif self.base is not None:
            load_weights(model, self.base / WEIGHTS)
        return model

    def head_for(self, phase: Phase) -> Path | None:
        """Return the throw-away head with which a phase goes on; None for a fresh one.

        Raises:
            TrainingError: the phase it comes from was not run in this folder.
        """
        if not phase.head_of:
            return None
        file = head_file(self.out / phase.head_of, phase.objective)
        if not file.exists():
            raise TrainingError(
                f"phase {phase.name} goes on with the head of phase {phase.head_of}, and {file} is missing; "
                "run that phase in the same folder first"
            )
        return file

    def eyes_before(self, phase: Phase) -> Path | None:
        """Return the tables of the last phase before this one that told cells; None where there was none."""
        left = [file for name in self.before(phase) if (file := self.out / name / EYES).exists()]
        return left[-1] if left else None

    def before(self, phase: Phase) -> list[str]:
        """Return the names of the phases that come before this one in the whole recipe."""
        return self.order[: self.order.index(phase.name)]

    def leave(self, model: HandlensModel, phase: Phase, sources: list[dict[str, Any]]) -> None:
        """Write what a finished phase leaves: its ledger and card, and last its weights."""
        gathered = {name: whole(weight.detach()).cpu() for name, weight in model.state_dict().items()}
        if self.world.is_first:
            progress = read_progress(sorted((self.out / phase.name / "state").glob("step-*"))[-1])
            meter = Meter(self.world.device)
            ledger = phase_ledger(phase, progress, meter, self.world, sources)
            try:
                write_ledger(self.out, self.order, ledger, self.recipe.name)
            except OSError as cause:
                raise TrainingError(
                    f"cannot write the ledger in {self.out}: {cause.strerror}; free some space and run the same "
                    "command again"
                ) from None
            plain = build_model(self.config)
            plain.load_state_dict(gathered)
            save_model(plain, self.out / phase.name, self.out / VOCABULARY)
        self.world.wait()


def check_base(base: Path, family: str) -> None:
    """See that the model with which a run begins is there, and is of the family that the recipe makes.

    Raises:
        ModelError: a file is missing, or it is of another family.
    """
    for name in ("config.json", WEIGHTS, VOCABULARY):
        if not (base / name).is_file():
            raise ModelError(
                f"no {name} in {base}; --from needs a model folder with config.json, {WEIGHTS} and {VOCABULARY}"
            )
    found = load_config(base).family
    if found != family:
        raise ModelError(
            f"{base} is of family {found}, and this recipe makes family {family}; give --from one of those"
        )


def check_whole(file: Path, phase: Phase) -> None:
    """See that the weights of a finished phase were not cut; only their header is read.

    Raises:
        TrainingError: they were.
    """
    try:
        with safe_open(str(file), framework="pt"):
            pass
    except (OSError, SafetensorError):
        raise TrainingError(f"{file} is damaged; delete it to train phase {phase.name} again") from None


def given_of(recipe: Recipe, data: Path | None, base: Path | None) -> dict[str, Any]:
    """Return what all phases of a run are begun with beside their settings: recipe, seed, vocabulary, data, weights."""
    told: dict[str, Any] = {"recipe": recipe.name, "seed": recipe.seed, "data_sha256": None, "base_sha256": None}
    if base is None:
        told |= {"vocab_size": recipe.vocab_size, "vocabulary_records": recipe.vocabulary_records}
    else:
        told["base_sha256"] = sha256_of(base / WEIGHTS)
    if data is not None:
        manifest = data / "manifest.parquet"
        shards = repr([(file.name, file.stat().st_size) for file in sorted(data.glob("*.tar"))])
        told["data_sha256"] = sha256_of(manifest) if manifest.is_file() else sha256(shards.encode()).hexdigest()
    return told


def asked_of(given: dict[str, Any], phase: Phase) -> dict[str, Any]:
    """Return what a phase is begun with, as JSON gives it back."""
    settings = {name: value for name, value in asdict(phase).items() if name not in UNASKED}
    asked: dict[str, Any] = json.loads(json.dumps(given | settings))
    return asked


def write_asked(given: dict[str, Any], phase: Phase, out: Path) -> None:
    """Write down what a phase is begun with.

    Raises:
        TrainingError: the folder cannot be written.
    """
    folder = out / phase.name
    make_folder(folder)
    try:
        write_whole(folder / ASKED, json.dumps(asked_of(given, phase), indent=2) + "\n")
    except OSError as cause:
        raise _unwritable(out, cause) from None


def refuse_changes(recipe: Recipe, given: dict[str, Any], out: Path) -> None:
    """Compare what the phases in a folder were begun with and what is asked now.

    A phase without a checkpoint begins anew whatever it was; one without the file is of an older version.

    Raises:
        TrainingError: they differ.
    """
    for phase in recipe.phases:
        folder = out / phase.name
        is_finished = (folder / WEIGHTS).exists()
        if not (is_finished or any((folder / "state").glob("step-*"))):
            continue
        before, now = read_asked(folder / ASKED), asked_of(given, phase)
        changed = [name for name in now if name in before and before[name] != now[name]]
        if not changed:
            continue
        # What fits in a line is told first.
        shown = sorted(changed, key=lambda name: isinstance(now[name], dict))[:SHOWN]
        old, new = (
            ", ".join(f"{name} {shorten(str(row[name]), 60, placeholder=' ...')}" for name in shown)
            for row in (before, now)
        )
        way_on = "" if is_finished else f"; to go on with the new ones delete {folder / ASKED}"
        raise TrainingError(
            f"phase {phase.name} in {out} was begun with {old}; now {new} is asked; give another --out or the same "
            f"settings{way_on}"
        )


def read_asked(file: Path) -> dict[str, Any]:
    """Return what a phase was begun with; nothing where no file says it.

    Raises:
        TrainingError: the file is damaged.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        raise TrainingError(f"{file} cannot be read; delete it to go on with the settings of this command")
    return found


def provenance(phase: Phase, data: Path | None) -> list[dict[str, Any]]:
    """Return where the records of a phase come from."""
    if data is not None:
        manifest = data / "manifest.parquet"
        found = {"sha256": sha256_of(manifest)} if manifest.is_file() else {}
        return [{"source": f"shards in {data}", "licence": "as their manifest says"} | found]
    spoken = {"languages": phase.languages} if phase.languages != {"en": 1.0} else {}
    return [{"source": SOURCE, "licence": LICENCE, "split": "train", "mixture": phase.mixture} | spoken]


def open_run(recipe: Recipe, out: Path, report: Report, world: World = ALONE, base: Path | None = None) -> Tokenizer:
    """Make the folder of a run, write what it was asked, and return its vocabulary, trained when it is new.

    Raises:
        TrainingError: the folder cannot be written.
    """
    if world.is_first:
        make_folder(out)
        try:
            write_whole(out / "recipe.json", json.dumps(asdict(recipe), indent=2) + "\n")
            if base is not None and not (out / VOCABULARY).exists():
                write_whole(out / VOCABULARY, (base / VOCABULARY).read_text(encoding="utf-8"))
        except OSError as cause:
            raise _unwritable(out, cause) from None
        if not (out / VOCABULARY).exists():
            report({"phase": "vocabulary", "step": 0, "of": 1})
            save_vocabulary(train_vocabulary(vocabulary_texts(recipe), recipe.vocab_size), out / VOCABULARY)
    world.wait()
    return Tokenizer.from_file(out / VOCABULARY)


def make_folder(out: Path) -> None:
    """Make the folder of a run.

    Raises:
        TrainingError: it cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise _unwritable(out, cause) from None


def _unwritable(out: Path, cause: OSError) -> TrainingError:
    return TrainingError(
        f"cannot write the run folder {out}: {cause.strerror}; give --out a folder that can be written"
    )


@contextlib.contextmanager
def only_one(out: Path, world: World) -> Iterator[None]:
    """Keep a second run out of the folder; the lock goes with the process, however it ends.

    Raises:
        TrainingError: another process trains there.
    """
    if not world.is_first:
        yield
        return
    make_folder(out)
    # A record lock is not inherited by the process that makes batches, which outlives a kill by seconds.
    with (out / ".lock").open("w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainingError(
                f"another process trains in {out}; wait for it, stop it, or give another --out"
            ) from None
        yield
