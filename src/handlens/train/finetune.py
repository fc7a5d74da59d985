"""Fine-tuning: a user's pictures and conversations teach a model something new.

Boundary: a model folder and a data set in; a merged model folder, an adapter, curves, and on demand a bundle out.
It runs on the loop of every phase, so it stops, resumes and survives as they do.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import nn

from handlens.core.tokenizer import Tokenizer
from handlens.engine.bundle import sha256_of
from handlens.errors import DataError, ModelError, SettingError, TrainingError
from handlens.model.checkpoint import load_config, load_weights, save_model
from handlens.model.vlm import HandlensModel, build_model
from handlens.train.curves import draw_curves
from handlens.train.distributed import World, join_world
from handlens.train.energy import Meter
from handlens.train.feed import Batch, collate
from handlens.train.flops import load_of, step_flops
from handlens.train.learner import FIXED, PARTS
from handlens.train.ledger import phase_ledger, write_ledger, write_whole
from handlens.train.loop import LOG, HeldOut, Report, read_rows, train_phase
from handlens.train.lora import (
    Lora,
    add_lora,
    layers_with,
    merge,
    round_while_training,
    save_adapter,
    stop_rounding,
)
from handlens.train.pause import OutOfTime, Pause, pause_on_signals
from handlens.train.phases import MOST, Part, Phase, check_numbers
from handlens.train.plan import Cost, Machine, price
from handlens.train.run import VOCABULARY, WEIGHTS, Paused, make_folder, only_one, read_asked
from handlens.train.state import read_progress
from handlens.train.talks import Talks, fingerprint, read_talks, set_apart

PHASE = "finetune"
CURVES, RESULT, ASKED = "loss.png", "result.json", "finetune.json"
FREE = ("model", "data", "out", "patience", "checkpoint_seconds")
"""What may change when a fine-tuning goes on; weights and data are compared by what they hold."""


@dataclass(frozen=True, kw_only=True)
class FineTune:
    """What is asked for."""

    model: Path
    data: Path
    out: Path
    lora: Lora | None = None
    """None: the weights of ``trains`` learn themselves."""
    trains: tuple[Part, ...] = ("vision", "resampler", "language")
    int4: bool = False
    """Round the language model to 4 bits while it learns."""
    epochs: float = 3.0
    steps: int = 0
    """Overrules ``epochs``."""
    rate: float = 0.0
    """0: 1e-4 for all weights, 1e-3 for adapters."""
    pictures_per_step: int = 8
    streams: int = 1
    held_out: float = 0.1
    """Share of samples that is only looked at."""
    looks: int = 10
    """Times that it is looked at in a run."""
    patience: int = 3
    """Looks without a new best before the run ends; 0: never."""
    seed: int = 1
    checkpoint_seconds: float = 60.0


LIMITS: dict[str, tuple[float, float]] = {
    "epochs": (0.0, MOST), "steps": (0, MOST), "rate": (0.0, MOST), "pictures_per_step": (1, MOST),
    "streams": (1, MOST), "held_out": (0.0, 1.0), "looks": (1, MOST), "patience": (0, MOST),
    "seed": (0, 2**63 - 1), "checkpoint_seconds": (0.0, MOST),
}  # fmt: skip
"""Lowest and highest value of every number that is asked for."""


def check_ask(ask: FineTune) -> None:
    """Refuse what means nothing.

    Raises:
        SettingError: a number, or options that do not go together.
    """
    check_numbers("fine-tuning", ask, LIMITS)
    if not (ask.steps or ask.epochs):
        raise SettingError("epochs and steps are 0; one of them must be above 0")
    if ask.int4 and ask.lora:
        raise SettingError(
            "--int4 rounds weights that learn, and those below --lora do not; give one of the two, or merge first "
            "and go on from the merged folder with --int4"
        )
    if ask.int4 and "language" not in ask.trains:
        raise SettingError("--int4 rounds the language model while it learns, and --trains leaves it out; add language")


def learning_in(name: str, module: nn.Module) -> list[nn.Parameter]:
    """Return the weights of a module that learns whole; the table of places of a resampler is computed."""
    is_resampler = name.startswith(PARTS["resampler"])
    return [weight for own, weight in module.named_parameters() if not (is_resampler and own.endswith(FIXED))]


@dataclass(frozen=True)
class Batches:
    """Every sample once, in batches of a step, made anew every time they are gone through."""

    tuning: "Tuning"
    talks: Talks
    limit: int | None = None
    """Samples after which it ends."""

    def __iter__(self) -> Iterator[Batch]:
        size, some = self.tuning.ask.pictures_per_step, self.talks.talks[: self.limit]
        for start in range(0, len(some), size):
            samples = [self.talks.build(talk) for talk in some[start : start + size]]
            yield collate(samples, self.tuning.config, start + size)


class Tuning:
    """A fine-tuning whose data has been read."""

    def __init__(self, ask: FineTune) -> None:
        for name in (WEIGHTS, VOCABULARY):
            if not (ask.model / name).is_file():
                raise ModelError(f"no {name} in {ask.model}; fine-tuning needs config.json, {WEIGHTS} and {VOCABULARY}")
        check_ask(ask)
        self.ask = ask
        self.config = load_config(ask.model)
        self.tokenizer = Tokenizer.from_file(ask.model / VOCABULARY)
        self.layers, self.learning = self.additions()
        talks = read_talks(ask.data)
        self.fingerprint = fingerprint(talks)
        learned, kept = set_apart(talks, ask.held_out, ask.seed)
        self.talks = Talks(learned, self.config, self.tokenizer, ask.seed)
        self.kept = Talks(kept, self.config, self.tokenizer, ask.seed)
        self.phase = self.make_phase()

    def make_phase(self) -> Phase:
        """Return the one phase of a fine-tuning."""
        ask = self.ask
        per_step = ask.pictures_per_step * ask.streams
        steps = ask.steps or max(round(ask.epochs * len(self.talks) / per_step), 1)
        return Phase(
            name=PHASE, trains=self.trains(), objective="answers", sides_px=(self.config.slicing.side_px,),
            slicing=True, mixture={"user": 1.0}, steps=steps, rate=ask.rate or (1e-3 if ask.lora else 1e-4),
            slices_per_step=10**6, pictures_per_step=ask.pictures_per_step, warmup_steps=max(steps // 20, 1),
            optimiser="adamw", adapter=ask.lora is not None, streams=ask.streams,
            dropout_seeded=bool(ask.lora and ask.lora.dropout),
        )  # fmt: skip

    def additions(self) -> tuple[list[str], int | None]:
        """Return the layers that get additions, and how many weights learn then; nothing and None without LoRA."""
        lora = self.ask.lora
        if lora is None:
            return [], None
        with torch.device("meta"):
            model = build_model(self.config)
        modules = dict(model.named_modules())
        layers = layers_with(model, lora)
        added = sum(lora.rank * (modules[name].in_features + modules[name].out_features) for name in layers)
        whole = [weight for saved in lora.saved for weight in learning_in(saved, modules[saved])]
        return layers, added + sum(weight.numel() for weight in whole)

    def trains(self) -> tuple[Part, ...]:
        """Return the parts in which something learns."""
        if self.ask.lora is None:
            return self.ask.trains
        roots = {name.partition(".")[0] for name in (*self.layers, *self.ask.lora.saved)}
        return tuple(part for part, root in PARTS.items() if root in roots)

    def cost(self, machine: Machine) -> Cost:
        """Return what it will cost; the batch that is priced is the heaviest of a few that are drawn.

        Raises:
            DataError: samples that cannot be learned from.
        """
        self.check_samples()
        loads = [load_of(batch) for batch in Batches(self, self.talks, 4 * self.ask.pictures_per_step)]
        heaviest = max(loads, key=lambda load: step_flops(self.config, self.phase, load))
        cost = price(self.phase, self.config, heaviest, machine, learning=self.learning, mode="ddp")
        # A look computes forwards alone: a third of what a step computes.
        looked_steps = self.ask.looks * len(self.kept) / (self.ask.pictures_per_step * self.ask.streams) / 3
        longer = 1 + looked_steps / self.phase.steps
        return replace(cost, flops=cost.flops * longer, hours=cost.hours * longer)

    def check_samples(self, report: Report = lambda row: None, stop: Callable[[], bool] = lambda: False) -> bool:
        """Open every picture and read every text as learning would; False when ``stop`` asked to end it.

        Raises:
            DataError: samples that cannot be learned from.
        """
        limit, count = self.config.language.max_positions, len(self.talks) + len(self.kept)
        faults = []
        for number, fault in enumerate(chain(self.talks.faults(limit), self.kept.faults(limit)), 1):
            if stop():
                return False
            faults += [fault] if fault else []
            report({"phase": "samples", "step": number, "of": count})
        if faults:
            more = f"; {len(faults) - 3} more" if len(faults) > 3 else ""
            raise DataError(
                f"{self.ask.data}: {len(faults)} of {count} samples cannot be learned from: {'; '.join(faults[:3])}"
                f"{more}; see all with: handlens data check {self.ask.data} --model {self.ask.model} "
                f"--family {self.config.family} --limit {limit}"
            )
        return True

    def begin(self, world: World, pause: Pause, report: Report) -> None:
        """Write what is asked, or compare it with what was, where something is left of it; look at the samples first.

        Raises:
            SettingError: another fine-tuning lies in the folder, or several processes cannot share its batches.
            DataError: samples that cannot be learned from.
            Paused: a signal asked to stop.
        """
        if self.ask.streams % world.size:
            raise SettingError(
                f"fine-tuning has {self.ask.streams} stream of batches and cannot be shared by {world.size} processes; "
                "start it without torchrun"
            )
        file, folder = self.ask.out / ASKED, self.ask.out / PHASE
        asked = {name: value for name, value in asdict(self.ask).items() if name not in FREE}
        facts = {"samples_sha256": self.fingerprint, "model_sha256": sha256_of(self.ask.model / WEIGHTS)}
        now = json.loads(json.dumps(asked | facts, default=str))
        if (folder / WEIGHTS).exists() or any((folder / "state").glob("step-*")):
            before = read_asked(file).get("same", {})
            for name in now:
                if name in before and before[name] != now[name]:
                    raise SettingError(
                        f"the fine-tuning in {self.ask.out} was begun with {name} {before[name]}, now it is "
                        f"{now[name]}; give another --out, or what it was begun with"
                    )
            return
        if not self.check_samples(report, pause):
            raise Paused(f"stopped by {pause.name} before the first step; nothing is lost", pause.asked)
        world.wait()
        if world.is_first:
            told = {"same": now, "ask": asdict(self.ask), "phase": asdict(self.phase)}
            write_whole(file, json.dumps(told, indent=2, default=str) + "\n")

    def run(self, report: Report = lambda row: None) -> dict[str, Any]:
        """Train, merge and write; the same call goes on where it stopped.

        Raises:
            DataError: samples that cannot be learned from.
            SettingError: another fine-tuning lies in the folder.
            TrainingError: the run cannot go on.
            Paused: a signal asked to stop.
        """
        ask, folder = self.ask, self.ask.out / PHASE
        with pause_on_signals() as pause, join_world("ddp") as world, only_one(ask.out, world):
            was_done = (folder / WEIGHTS).exists()
            try:
                self.begin(world, pause, report)
                make_folder(folder)
                if not was_done:
                    self._train(world, folder, pause, report)
            except OutOfTime:
                raise _paused(pause, folder) from None
            world.wait()
        return self.result() | {"was_done": was_done}

    def _train(self, world: World, folder: Path, pause: Pause, report: Report) -> None:
        ask = self.ask
        torch.manual_seed(ask.seed)
        model = build_model(self.config)
        load_weights(model, ask.model / WEIGHTS)
        if ask.int4:
            round_while_training(model)
        wrapped = add_lora(model, ask.lora) if ask.lora else None
        held_out = None
        if len(self.kept):
            every = max(self.phase.steps // ask.looks, 1)
            held_out = HeldOut(batches=Batches(self, self.kept), every=every, patience=ask.patience)
        done = train_phase(
            model, self.config, self.phase, self.tokenizer, folder, seed=ask.seed, report=report, stop=pause,
            seconds_between_checkpoints=ask.checkpoint_seconds, window=max(self.phase.steps // 50, 1), draw=self.talks,
            world=world, held_out=held_out,
        )  # fmt: skip
        if not done:
            raise _paused(pause, folder)
        if world.is_first:
            self._leave(model, wrapped, world, folder)

    def _leave(self, model: HandlensModel, wrapped: Any, world: World, folder: Path) -> None:
        """Write curves, ledger and card, the adapter, and last the merged weights."""
        rows = read_rows(folder / LOG)
        draw_curves(rows, folder / CURVES, f"fine-tuning of {self.ask.model.name} on {self.ask.data.name}")
        progress = read_progress(sorted((folder / "state").glob("step-*"))[-1])
        sources = [{"source": str(self.ask.data), "samples": len(self.talks), "held out": len(self.kept)}]
        if self.ask.data.is_file():
            sources[0]["sha256"] = sha256_of(self.ask.data)
        ledger = phase_ledger(self.phase, progress, Meter(world.device), world, sources)
        ledger |= {"base": str(self.ask.model), "base_sha256": sha256_of(self.ask.model / WEIGHTS)}
        write_ledger(self.ask.out, [PHASE], ledger, f"fine-tuning of {self.ask.model.name}")
        if wrapped is not None:
            save_adapter(wrapped, folder / "adapter")
            model = merge(wrapped)
        if self.ask.int4:
            stop_rounding(model)
        last: dict[str, Any] = next((row for row in reversed(rows) if "loss" in row), {})
        result = {
            "steps": progress.step,
            "loss": last.get("loss"),
            "held_out_loss": progress.best_loss,
            "best_step": progress.best_step,
            "stopped_early": progress.step < self.phase.steps,
            "seconds": progress.seconds,
        }
        write_whole(folder / RESULT, json.dumps(result, indent=2) + "\n")
        plain = build_model(self.config)
        plain.load_state_dict({name: weight.detach().cpu() for name, weight in model.state_dict().items()})
        save_model(plain, folder, self.ask.model / VOCABULARY)

    def result(self) -> dict[str, Any]:
        """Return what the finished run reached.

        Raises:
            TrainingError: the folder does not say.
        """
        folder = self.ask.out / PHASE
        try:
            told = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise TrainingError(
                f"{folder} is trained, and no {RESULT} says how it went (an older version has none); export it with: "
                f"handlens export {folder} --to NAME.bundle; or give another --out to train again"
            ) from None
        return {"folder": str(folder), **told, "curves": str(folder / CURVES), "rows": read_rows(folder / LOG)}


def _paused(pause: Pause, folder: Path) -> Paused:
    return Paused(f"stopped by {pause.name}; its checkpoint is in {folder}; the same command goes on", pause.asked)
