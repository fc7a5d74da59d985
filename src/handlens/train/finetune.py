"""Fine-tuning: a user's pictures and conversations teach a model something new.

Boundary: a model folder and a data set in; a merged model folder, an adapter, curves, and on demand a bundle out.
It runs on the loop of every phase, so it stops, resumes and survives as they do.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from handlens.core.tokenizer import Tokenizer
from handlens.engine.bundle import sha256_of
from handlens.errors import ModelError, SettingError
from handlens.model.checkpoint import load_config, load_weights, save_model
from handlens.model.vlm import HandlensModel, build_model
from handlens.train.curves import draw_curves
from handlens.train.distributed import World, join_world
from handlens.train.energy import Meter
from handlens.train.feed import Batch, collate
from handlens.train.flops import load_of, step_flops
from handlens.train.ledger import phase_ledger, write_ledger, write_whole
from handlens.train.loop import LOG, HeldOut, Report, read_rows, train_phase
from handlens.train.lora import Lora, add_lora, merge, round_while_training, save_adapter, stop_rounding
from handlens.train.pause import OutOfTime, Pause, pause_on_signals
from handlens.train.phases import Part, Phase
from handlens.train.plan import Cost, Machine, price
from handlens.train.run import VOCABULARY, WEIGHTS, Paused, make_folder, only_one
from handlens.train.state import read_progress
from handlens.train.talks import Talks, read_talks, set_apart

PHASE = "finetune"
CURVES = "loss.png"


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


class Tuning:
    """A fine-tuning whose data has been read."""

    def __init__(self, ask: FineTune) -> None:
        for name in (WEIGHTS, VOCABULARY):
            if not (ask.model / name).is_file():
                raise ModelError(f"no {name} in {ask.model}; fine-tuning needs config.json, {WEIGHTS} and {VOCABULARY}")
        if ask.epochs <= 0 or ask.pictures_per_step < 1 or ask.looks < 1:
            raise SettingError("epochs, pictures per step and looks must be above 0")
        if ask.int4 and ask.lora:
            raise SettingError(
                "--int4 rounds weights that learn, and those below --lora do not; give one of the two, or merge first "
                "and go on from the merged folder with --int4"
            )
        self.ask = ask
        self.config = load_config(ask.model)
        self.tokenizer = Tokenizer.from_file(ask.model / VOCABULARY)
        learned, kept = set_apart(read_talks(ask.data), ask.held_out, ask.seed)
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

    def trains(self) -> tuple[Part, ...]:
        """Return the parts in which something learns."""
        if self.ask.lora is None:
            return self.ask.trains
        names = " ".join((self.ask.lora.targets.replace("\\", ""), *self.ask.lora.saved))
        parts: dict[Part, str] = {"vision": "vpm", "resampler": "resampler", "language": "llm"}
        return tuple(part for part, name in parts.items() if name in names) or ("language",)

    def cost(self, machine: Machine) -> Cost:
        """Return what it will cost; the batch that is priced is the heaviest of a few that are drawn."""
        batches = self.batches(self.talks, 4 * self.ask.pictures_per_step)
        loads = [load_of(batch) for batch in batches]
        heaviest = max(loads, key=lambda load: step_flops(self.config, self.phase, load))
        return price(self.phase, self.config, heaviest, machine)

    def batches(self, talks: Talks, limit: int = 10**9) -> list[Batch]:
        """Return every sample once, in batches of a step."""
        found: list[Batch] = []
        size = self.ask.pictures_per_step
        some = talks.talks[:limit]
        for start in range(0, len(some), size):
            samples = [talks.build(talk) for talk in some[start : start + size]]
            found.append(collate(samples, self.config, start + size))
        return found

    def run(self, report: Report = lambda row: None) -> dict[str, Any]:
        """Train, merge and write; the same call goes on where it stopped.

        Raises:
            TrainingError: the run cannot go on.
            Paused: a signal asked to stop.
        """
        ask, folder = self.ask, self.ask.out / PHASE
        with pause_on_signals() as pause, join_world("ddp") as world, only_one(ask.out, world):
            make_folder(folder)
            if not (folder / WEIGHTS).exists():
                asked = {"ask": asdict(ask), "phase": asdict(self.phase)}
                write_whole(ask.out / "finetune.json", json.dumps(asked, indent=2, default=str) + "\n")
                try:
                    self._train(world, folder, pause, report)
                except OutOfTime:
                    raise _paused(pause, folder) from None
            world.wait()
        return self.result()

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
            held_out = HeldOut(batches=self.batches(self.kept), every=every, patience=ask.patience)
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
        plain = build_model(self.config)
        plain.load_state_dict({name: weight.detach().cpu() for name, weight in model.state_dict().items()})
        save_model(plain, folder, self.ask.model / VOCABULARY)

    def result(self) -> dict[str, Any]:
        """Return what the finished run reached."""
        folder = self.ask.out / PHASE
        rows = read_rows(folder / LOG)
        progress = read_progress(sorted((folder / "state").glob("step-*"))[-1])
        last: dict[str, Any] = next((row for row in reversed(rows) if "loss" in row), {})
        return {
            "folder": str(folder),
            "steps": progress.step,
            "loss": last.get("loss"),
            "held_out_loss": progress.best_loss,
            "best_step": progress.best_step,
            "stopped_early": progress.step < self.phase.steps,
            "seconds": progress.seconds,
            "curves": str(folder / CURVES),
            "rows": rows,
        }


def _paused(pause: Pause, folder: Path) -> Paused:
    return Paused(f"stopped by {pause.name}; its checkpoint is in {folder}; the same command goes on", pause.asked)
