"""Rounds of alignment: sample, divide, conquer, pair, learn; then the same again with what was learned.

Boundary: a model folder in, an aligned one out, every station's work on disk. Stop it anywhere: the same call goes on.
Source: RLAIF-V (arXiv 2405.17220), section 3.3; MiniCPM-V (arXiv 2408.01800), section 4.3.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast, get_args

import torch

from handlens.align.asks import Ask, drawn_asks, read_asks
from handlens.align.claims import VERSION as RULES_VERSION
from handlens.align.conquer import TRUTH, conquer
from handlens.align.divide import VERSION, divide_all, open_say
from handlens.align.dpo import Dpo
from handlens.align.journal import Journal
from handlens.align.page import page
from handlens.align.pairs import HowToPair, Pair, make_pairs, pair_from_json, pair_to_json
from handlens.align.preferences import Preferences, reference_logprobs
from handlens.align.sample import RULES, HowToSample, open_policy, sample, weights_of
from handlens.core.tokenizer import Tokenizer
from handlens.engine.bundle import sha256_of
from handlens.errors import DataError, ModelError, SettingError, TrainingError
from handlens.model import packing
from handlens.model.checkpoint import load_config, load_weights, save_model
from handlens.model.vlm import HandlensModel, build_model
from handlens.train.distributed import World, join_world
from handlens.train.energy import Meter
from handlens.train.ledger import phase_ledger, write_ledger, write_whole
from handlens.train.loop import train_phase
from handlens.train.lora import Lora, add_lora, merge, save_adapter
from handlens.train.pause import OutOfTime, Pause, pause_on_signals
from handlens.train.phases import Part, Phase
from handlens.train.run import VOCABULARY, WEIGHTS, Paused, make_folder, only_one
from handlens.train.state import read_progress

PHASE = "align"
STATIONS = ("sample", "divide", "conquer", "pairs", "learn")
Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """What is asked for."""

    model: Path
    """Folder of the policy with which the first round begins: config.json, model.safetensors, tokenizer.json."""
    out: Path
    rounds: int = 4
    pictures: int = 300
    """Questions of each round; every round has new ones."""
    data: Path | None = None
    """A data set to ask about; None: generated scenes."""
    level: float = 0.5
    """Damage of generated pictures, 0 to 1."""
    sampling: HowToSample = field(default_factory=HowToSample)
    answers_from: str = ""
    """Another model (name, folder or endpoint) whose answers are compared, off-policy; '' is the policy itself."""
    divider: str = "rules"
    judge: str = TRUTH
    """``truth``, ``policy`` (the model that the round begins with), or a model: name, folder or endpoint."""
    yes_no: bool = False
    """Ask the judge about every claim with yes or no, also where open questions fit (``examine.py``)."""
    pairing: HowToPair = field(default_factory=HowToPair)
    dpo: Dpo = field(default_factory=Dpo)
    lora: Lora | None = None
    trains: tuple[str, ...] = ("vision", "resampler", "language")
    """Parts that learn. Where the language model learns alone, every picture is looked at once."""
    epochs: float = 2.0
    rate: float = 5e-6
    """Peak. A few steps at 1e-4 make nano forget how to look: ``chosen`` in the log then falls by many nats."""
    pairs_per_step: int = 8
    seed: int = 1
    until: str = "learn"
    engine: str = "local"
    jobs: int = 1
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.until not in STATIONS:
            raise SettingError(f"there is no station '{self.until}'; known: {', '.join(STATIONS)}")
        for name in ("rounds", "pictures", "pairs_per_step", "epochs", "rate"):
            if getattr(self, name) <= 0:
                raise SettingError(f"{name} is {getattr(self, name):g}; it must be above 0")
        for part in self.trains:
            if part not in get_args(Part):
                raise SettingError(f"there is no part '{part}'; known: {', '.join(get_args(Part))}")
        if not self.trains:
            raise SettingError(f"no part learns; name at least one: {', '.join(get_args(Part))}")
        if self.data is not None and self.judge == TRUTH:
            raise SettingError("the truth is known of generated pictures only; judge --data with a model: --judge nano")


def align(ask: Alignment, report: Report = lambda row: None) -> dict[str, Any]:
    """Run all rounds and return what they reached.

    Raises:
        ModelError: the policy, judge or divider cannot be opened, or died.
        TrainingError: the run cannot go on.
        Paused: a signal asked to stop; the same call goes on.
    """
    check_policy(ask.model)
    check_others(ask)
    make_folder(ask.out)
    told: list[dict[str, Any]] = []
    policy = ask.model
    with pause_on_signals() as pause, join_world("ddp") as world, only_one(ask.out, world):
        write_whole(ask.out / "align.json", json.dumps(asdict(ask), indent=2, default=str) + "\n")
        for number in range(1, ask.rounds + 1):
            one = Round(ask, number, policy, pause, world, report)
            try:
                told.append(one.run())
            except NoPair as error:
                if number == 1:
                    raise
                told.append({"round": number, "ended": str(error)})  # what was learned so far stays
                break
            if ask.until != "learn":
                break
            policy = one.folder / PHASE
        if ask.until == "learn":
            shutil.copytree(policy, ask.out / "aligned", dirs_exist_ok=True, ignore=shutil.ignore_patterns("state"))
    return {"folder": str(ask.out / "aligned" if ask.until == "learn" else ask.out / "round-1"), "rounds": told}


def check_policy(folder: Path) -> None:
    """Refuse a folder that cannot be trained.

    Raises:
        ModelError: a file is missing.
    """
    for name in ("config.json", WEIGHTS, VOCABULARY):
        if not (folder / name).is_file():
            raise ModelError(f"no {name} in {folder}; alignment begins with config.json, {WEIGHTS} and {VOCABULARY}")


def check_others(ask: Alignment) -> None:
    """Open the models that are asked later, so that a wrong name costs no hours.

    Raises:
        ModelError: one of them cannot be opened.
    """
    for name in (ask.answers_from, ask.judge):
        if name not in ("", RULES, TRUTH, "policy"):
            open_policy(name)
    if ask.divider not in ("rules", "whole"):
        open_say(ask.divider)


class NoPair(TrainingError):
    """The answers of a round do not differ enough to learn from."""


class Round:
    """One round in its folder."""

    def __init__(
        self, ask: Alignment, number: int, policy: Path, pause: Pause, world: World, report: Report
    ) -> None:  # fmt: skip
        self.ask, self.number, self.policy = ask, number, policy
        self.pause, self.world, self.report = pause, world, report
        self.folder = ask.out / f"round-{number}"
        self.weights = weights_of(policy)

    def run(self) -> dict[str, Any]:
        """Do every station that is not done."""
        ask = self.ask
        asks = {one.id: one for one in self.questions()}
        counts: dict[str, Any] = {"round": self.number}
        answers = self.journal("answers.jsonl", asdict(ask.sampling) | {"policy": self.weights_of(ask.answers_from)})
        how = replace(ask.sampling, seed=ask.sampling.seed + ask.seed * 1000 + self.number)
        counts["sample"] = sample(
            asks.values(), ask.answers_from or str(self.policy), how, answers, engine=ask.engine, jobs=ask.jobs,
            news=self.news("sample"),
        )  # fmt: skip
        if ask.until == "sample":
            return self.done(counts)
        claims = self.journal("claims.jsonl", {"divider": ask.divider, "prompts": VERSION, "rules": RULES_VERSION})
        counts["divide"] = divide_all(
            answers.rows.values(), ask.divider, claims, engine=ask.engine, jobs=ask.jobs, news=self.news("divide")
        )  # fmt: skip
        if ask.until == "divide":
            return self.done(counts)
        judge = str(self.policy) if ask.judge == "policy" else ask.judge
        verdicts = self.journal(
            "verdicts.jsonl", {"judge": ask.judge, "weights": self.weights_of(judge), "yes or no": ask.yes_no},
        )  # fmt: skip
        counts["conquer"] = conquer(
            claims.rows.values(), asks, judge, verdicts, yes_no=ask.yes_no, engine=ask.engine, jobs=ask.jobs,
            news=self.news("conquer"),
        )  # fmt: skip
        if ask.until == "conquer":
            return self.done(counts)
        pairs, counts["pairs"] = self.pair(asks, claims.rows, verdicts.rows)
        if ask.until == "pairs":
            return self.done(counts)
        open_policy.cache_clear()
        return self.done(counts | {"learn": self.learn(asks, pairs)})

    def questions(self) -> Sequence[Ask]:
        """Return the questions of this round; no two rounds have one together while there are enough."""
        ask = self.ask
        start = (self.number - 1) * ask.pictures
        if ask.data is None:
            return list(drawn_asks(ask.pictures, seed=10_000 + ask.seed, start=start, level=ask.level))
        every = read_asks(ask.data)
        return [every[(start + place) % len(every)] for place in range(min(ask.pictures, len(every)))]

    def pair(
        self, asks: Mapping[str, Ask], claims: Mapping[str, Any], verdicts: Mapping[str, Any]
    ) -> tuple[list[Pair], dict[str, Any]]:  # fmt: skip
        """Return the pairs and their statistics, and write both with a page that shows them.

        Raises:
            NoPair: there is none.
        """
        how = replace(self.ask.pairing, seed=self.ask.pairing.seed + self.ask.seed)
        made = make_pairs(claims.values(), verdicts, how)
        rows = "".join(json.dumps(pair_to_json(pair), ensure_ascii=False) + "\n" for pair in made.pairs)
        write_whole(self.folder / "pairs.jsonl", rows)
        write_whole(self.folder / "statistics.json", json.dumps(made.statistics, indent=2) + "\n")
        shown = page(made.pairs, asks, verdicts, claims, made.statistics, title=f"Pairs of round {self.number}")
        write_whole(self.folder / "pairs.html", shown)
        if not made.pairs:
            facts = made.statistics
            raise NoPair(
                f"round {self.number} gives no pair: {facts['scored']} of {facts['answers']} answers were scored "
                f"({facts['answers left out'] or 'none left out'}) and none differ by {how.difference:g}; "
                "ask for more pictures or a higher temperature"
            )
        return list(made.pairs), made.statistics

    def learn(self, asks: Mapping[str, Ask], pairs: Sequence[Pair]) -> dict[str, Any]:
        """Learn from the pairs and leave a whole model folder.

        Raises:
            Paused: a signal asked to stop; the checkpoint is written.
        """
        return learn(
            pairs, asks, self.policy, self.folder, self.ask, pause=self.pause, world=self.world, report=self.report,
            seed=self.ask.seed * 100 + self.number,
        )  # fmt: skip

    def journal(self, name: str, settings: Mapping[str, Any]) -> Journal:
        """Open the journal of a station."""
        return Journal(self.folder / name, {"round": self.number, "seed": self.ask.seed} | dict(settings))

    def weights_of(self, model: str) -> str:
        """Return a hash of the weights that a journal belongs to."""
        return self.weights if model in ("", str(self.policy)) else weights_of(model) or model

    def news(self, station: str) -> Callable[[int, int], None]:
        """Return what tells how far a station is, and stops where a signal asked to."""

        def tell(done: int, of: int) -> None:
            self.report({"round": self.number, "station": station, "step": done, "of": of})
            if self.pause():
                raise Paused(
                    f"stopped by {self.pause.name} in round {self.number}, station {station}; what was done is in "
                    f"{self.folder}; the same command goes on",
                    self.pause.asked,
                )

        return tell

    def done(self, counts: dict[str, Any]) -> dict[str, Any]:
        """Write down what the stations counted."""
        write_whole(self.folder / "round.json", json.dumps(counts, indent=2) + "\n")
        return counts


def learn(
    pairs: Sequence[Pair], asks: Mapping[str, Ask], policy: Path, folder: Path, ask: Alignment, *, pause: Pause,
    world: World, report: Report, seed: int,
) -> dict[str, Any]:  # fmt: skip
    """Train the policy on pairs in ``folder/align`` and return the scores of the last steps.

    Raises:
        Paused: a signal asked to stop; the checkpoint is written.
    """
    where, config = folder / PHASE, load_config(policy)
    tokenizer = Tokenizer.from_file(policy / VOCABULARY)
    steps = max(round(ask.epochs * len(pairs) / ask.pairs_per_step), 1)
    rows: list[dict[str, Any]] = []
    phase = Phase(
        name=PHASE, trains=("language",) if ask.lora else cast("tuple[Part, ...]", ask.trains), objective="preferences",
        sides_px=(config.slicing.side_px,), slicing=True, mixture={"pairs": 1.0}, steps=steps, rate=ask.rate,
        slices_per_step=10**6, pictures_per_step=ask.pairs_per_step, warmup_steps=max(steps // 20, 1), decay_share=1.0,
        schedule="cosine", optimiser="adamw", weight_decay=0.01, beta2=0.999, precision="float32",
        adapter=ask.lora is not None,
    )  # fmt: skip
    if not (where / WEIGHTS).exists():
        torch.manual_seed(seed)
        model = build_model(config)
        load_weights(model, policy / WEIGHTS)
        preferences = Preferences(pairs, asks, config, tokenizer, ask.dpo, seed)
        if phase.trains == ("language",):
            preferences.look_once(model.eval())
        if ask.dpo.reference == "stored":
            preferences.reference = stored_reference(model, preferences, policy, folder)
        wrapped = add_lora(model, ask.lora) if ask.lora else None

        def tell(row: dict[str, Any]) -> None:
            rows.append(row)
            report(row | {"station": "learn"})

        try:
            done = train_phase(
                model, config, phase, tokenizer, where, seed=seed, report=tell, stop=pause, draw=preferences,
                world=world, seconds_between_checkpoints=ask.checkpoint_seconds, window=max(steps // 20, 1),
            )  # fmt: skip
        except OutOfTime:
            done = False
        if not done:
            raise Paused(
                f"stopped by {pause.name} while learning; its checkpoint is in {where}; the same command goes on",
                pause.asked,
            )
        if wrapped is not None:
            save_adapter(wrapped, where / "adapter")
            model = merge(wrapped)
        leave(model, phase, policy, folder, world)
    progress = read_progress(sorted((where / "state").glob("step-*"))[-1])
    from handlens.train.loop import LOG, read_rows

    logged = [row for row in read_rows(where / LOG) if "preference" in row]
    names = ("loss", "preference", "right", "margin", "chosen", "rejected")
    return {
        "folder": str(where),
        "pairs": len(pairs),
        "steps": progress.step,
        "seconds": progress.seconds,
        "first": {name: logged[0].get(name) for name in names} if logged else {},
        "last": {name: logged[-1].get(name) for name in names} if logged else {},
    }


def leave(model: HandlensModel, phase: Phase, policy: Path, folder: Path, world: World) -> None:
    """Write what a finished phase leaves: ledger, card, and last its weights."""
    progress = read_progress(sorted((folder / PHASE / "state").glob("step-*"))[-1])
    sources = [{"source": "pairs.jsonl", "sha256": sha256_of(folder / "pairs.jsonl")}]
    ledger = phase_ledger(phase, progress, Meter(world.device), world, sources)
    ledger |= {"base": str(policy), "base_sha256": sha256_of(policy / WEIGHTS)}
    write_ledger(folder, [PHASE], ledger, f"alignment of {policy.name}")
    plain = build_model(load_config(policy))
    plain.load_state_dict({name: weight.detach().cpu() for name, weight in model.state_dict().items()})
    save_model(plain, folder / PHASE, policy / VOCABULARY)


def stored_reference(
    model: HandlensModel, preferences: Preferences, policy: Path, folder: Path
) -> dict[str, tuple[list[float], list[float]]]:
    """Return the reference's log-probabilities of every token, computed once and kept in ``references.jsonl``."""
    journal = Journal(folder / "references.jsonl", {"weights": sha256_of(policy / WEIGHTS)})
    pairs = preferences.pairs
    model.eval()
    model.llm.set_attn_implementation(packing.NAME)
    try:
        for pair in pairs:
            known = journal.rows.get(pair.id)
            if known is None or known["texts"] != [pair.chosen, pair.rejected]:
                chosen, rejected = reference_logprobs(model, preferences, pair)
                texts = [pair.chosen, pair.rejected]
                journal.add({"id": pair.id, "texts": texts, "chosen": chosen, "rejected": rejected})
    finally:
        model.llm.set_attn_implementation("sdpa")
    return {pair.id: (journal.rows[pair.id]["chosen"], journal.rows[pair.id]["rejected"]) for pair in pairs}


def learn_from_file(ask: Alignment, file: Path, report: Report = lambda row: None) -> dict[str, Any]:
    """Learn from given pairs, such as corrections by people (RLHF-V), and return what was reached.

    Every line is ``{"image", "question", "chosen", "rejected"}``; ``image`` is a path beside the file.

    Raises:
        DataError: a line is no such object, or a picture is missing.
    """
    check_policy(ask.model)
    pairs, asks = read_corrections(file)
    with pause_on_signals() as pause, join_world("ddp") as world, only_one(ask.out, world):
        make_folder(ask.out)
        write_whole(ask.out / "align.json", json.dumps(asdict(ask), indent=2, default=str) + "\n")
        lines = "".join(json.dumps(pair_to_json(pair), ensure_ascii=False) + "\n" for pair in pairs)
        write_whole(ask.out / "pairs.jsonl", lines)
        told = learn(pairs, asks, ask.model, ask.out, ask, pause=pause, world=world, report=report, seed=ask.seed)
    return {"folder": str(ask.out / PHASE), "rounds": [{"round": 1, "learn": told}]}


def read_corrections(file: Path) -> tuple[list[Pair], dict[str, Ask]]:
    """Return the pairs of a file of corrections and their pictures.

    Raises:
        DataError: the file cannot be read, or a line has a field missing or two equal answers.
    """
    from handlens.align.asks import Stored

    try:
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as cause:
        raise DataError(f"cannot read {file}: {getattr(cause, 'strerror', None) or 'it is no text'}") from None
    pairs, asks = [], {}
    for number, line in enumerate(lines):
        try:
            row = json.loads(line)
            image, question, chosen, rejected = (row[name] for name in ("image", "question", "chosen", "rejected"))
        except (ValueError, KeyError, TypeError):
            raise DataError(
                f"{file}, line {number + 1}: needed is an object with image, question, chosen and rejected"
            ) from None
        if not all(isinstance(text, str) and text.strip() for text in (image, question, chosen, rejected)):
            raise DataError(f"{file}, line {number + 1}: image, question, chosen and rejected must be words")
        if chosen.strip() == rejected.strip():
            raise DataError(f"{file}, line {number + 1}: both answers are the same; remove the line")
        name = f"{file.stem}-{number:06d}"
        asks[name] = Ask(id=name, question=question, picture=Stored(name=image, path=file.parent / image))
        pairs.append(
            Pair(id=f"{name}#0", question=question, chosen=chosen, rejected=rejected, chosen_score=0.0,
                 rejected_score=-1.0)
        )  # fmt: skip
    if not pairs:
        raise DataError(f"{file} is empty; write one pair a line")
    return pairs, asks


def read_pairs(file: Path) -> list[Pair]:
    """Return the pairs of a round."""
    return [pair_from_json(json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]
