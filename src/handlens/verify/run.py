"""Run the contract: a model against a recorded reference or against another model.

Boundary: joins sides, references and the contract; the command line prints the report.
"""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from handlens.core.images import Picture
from handlens.core.tokenizer import AnyTokenizer
from handlens.errors import DataError, ModelError
from handlens.verify.case import STAGES, Case, Trace, standard_cases
from handlens.verify.contract import Noise, Outcome, compare_case, first_difference
from handlens.verify.expected import Expected
from handlens.verify.reference import Reference, unpacked, write_reference
from handlens.verify.side import Precision, Side, find_kind, find_tokenizer, open_side, toy_fields

RECORDED = Precision(vision="float32", language="float32")
"""References are made in float32, unless they say otherwise."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was compared and what came out."""

    model: str
    against: str
    outcomes: tuple[Outcome, ...]
    recorded: str = ""
    """Folder of the reference that was written."""

    @property
    def first(self) -> Outcome | None:
        """The earliest stage that differs."""
        return first_difference(list(self.outcomes))

    @property
    def agrees(self) -> bool:
        """True when no stage of any case differs and at least one was compared."""
        return self.first is None and (any(outcome.agrees for outcome in self.outcomes) or not self.against)

    def to_json(self) -> dict[str, Any]:
        """Return one document for programs."""
        first = self.first
        return {
            "model": self.model,
            "against": self.against,
            "agrees": self.agrees,
            "first_difference": None if first is None else {"case": first.case, **first.to_json()},
            "stages": {stage: self._worst(stage) for stage in STAGES},
            "cases": [
                {"name": name, "stages": [outcome.to_json() for outcome in self.outcomes if outcome.case == name]}
                for name in dict.fromkeys(outcome.case for outcome in self.outcomes)
            ],
            "recorded": self.recorded or None,
        }

    def _worst(self, stage: str) -> str:
        """Return ``agrees``, ``differs`` or ``not compared`` over all cases."""
        found = {outcome.agrees for outcome in self.outcomes if outcome.stage == stage}
        return "differs" if False in found else "agrees" if True in found else "not compared"

    def lines(self) -> list[str]:
        """Return the report for people, one line per stage and the verdict last."""
        if not self.against:
            return []
        lines = [f"{self.model} against {self.against}"]
        for stage in STAGES:
            here = [outcome for outcome in self.outcomes if outcome.stage == stage]
            compared = [outcome for outcome in here if outcome.agrees is not None]
            state = self._worst(stage)
            if compared:
                worst = max(compared, key=lambda outcome: outcome.gap)
                state += f" ({len(compared)} {'case' if len(compared) == 1 else 'cases'})"
                state += f", gap {worst.gap:.2g} of {worst.tolerance:.2g} allowed" if worst.tolerance else ""
            lines.append(f"  {stage:<16} {state}")
        first = self.first
        if first is None:
            return [*lines, "all agree" if self.agrees else "nothing could be compared"]
        return [*lines, f"first difference: {first}", f"likely cause: {first.cause}"]


def verify_reference(model: Path, reference: Path, *, record: Path | None = None, kind: str | None = None) -> Report:
    """Compare a model with a recorded reference; files of both may be packed (``NAME.xz``).

    Raises:
        ModelError: the model cannot be opened.
        DataError: the reference is damaged.
    """
    with unpacked(reference) as folder, unpacked(model) as own:
        report = _verify_reference(own, folder, record, kind)
        said = report.model.replace(str(own), str(model))
        return replace(report, model=said, against=f"the reference {reference}")


def _verify_reference(model: Path, reference: Path, record: Path | None, kind: str | None) -> Report:
    opened = Reference.open(reference)
    tokenizer = opened.tokenizer
    side = open_side(model, tokenizer, kind=kind)
    noise = _noise(side.precision, _precision_of(opened))
    cases = opened.cases()
    outcomes, traces = [], []
    for case in cases:
        trace = side.trace(case)
        traces.append((case, trace))
        kinds = f"{_engines(side.precision)} and a recording"
        outcomes += compare_case(case.name, opened.expected(case.name), trace, noise, side.family, kinds)
    written = _write(record, side, traces, opened.fields.get("toy_tokenizer"))
    side.close()
    return Report(model=_said(side), against=f"the reference {reference}", outcomes=tuple(outcomes), recorded=written)


def verify_models(
    model: Path,
    against: Path,
    *,
    pictures: Sequence[Picture] = (),
    record: Path | None = None,
    kinds: tuple[str | None, str | None] = (None, None),
    name: str = "",
) -> Report:
    """Compare a model with another on a text, on one slice, on nine slices, and on the pictures given.

    ``kinds`` chooses the engine where a folder allows two; ``name`` is said instead of the path of the model.

    Raises:
        ModelError: one of them cannot be opened, or they are different models.
    """
    tokenizer = _shared_tokenizer(model, against)
    candidate = open_side(model, tokenizer, kind=kinds[0])
    other = open_side(against, tokenizer, kind=kinds[1])
    if candidate.family.name != other.family.name:
        raise ModelError(
            f"{model} is of family {candidate.family.name}, {against} of {other.family.name}; "
            "compare models of one family"
        )
    noise = _noise(candidate.precision, other.precision)
    outcomes, traces = [], []
    for case in standard_cases(candidate.family, candidate.config.slicing.side_px, pictures):
        trace = candidate.trace(case)
        traces.append((case, trace))
        expected = Expected.of(other.trace(case))
        engines = f"{_engines(candidate.precision)} and {_engines(other.precision)}"
        outcomes += compare_case(case.name, expected, trace, noise, candidate.family, engines)
    written = _write(record, candidate, traces, toy_fields(model) or toy_fields(against))
    candidate.close()
    other.close()
    return Report(model=name or _said(candidate), against=_said(other), outcomes=tuple(outcomes), recorded=written)


def record_model(model: Path, record: Path, *, pictures: Sequence[Picture] = ()) -> Report:
    """Write a reference of a model and compare nothing.

    Raises:
        ModelError: the model cannot be opened.
        DataError: the folder holds something else.
    """
    side = open_side(model)
    cases = standard_cases(side.family, side.config.slicing.side_px, pictures)
    written = _write(record, side, [(case, side.trace(case)) for case in cases], toy_fields(model))
    side.close()
    return Report(model=_said(side), against="", outcomes=(), recorded=written)


@contextlib.contextmanager
def exported_for_llama_cpp(model: Path) -> Iterator[Path]:
    """Give a temporary folder with the two F32 files of llama.cpp, made of a torch folder.

    Raises:
        ModelError: llama.cpp has no vision part for this family.
    """
    from handlens.export.llama_cpp import export_gguf

    marks = (toy_fields(model) or {}).get("special_ids")
    with tempfile.TemporaryDirectory(prefix="handlens-verify-") as folder:
        yield export_gguf(model, Path(folder) / "pair", quant="F32", marks=marks)


def find_opponent(model: Path) -> str:
    """Return what a model is compared with when nothing is said: ``reference``, ``torch`` or ``llama.cpp``.

    Raises:
        DataError: there is nothing.
    """
    if (model / "expected.json").is_file():
        return "reference"
    kind = find_kind(model)
    if kind == "bundle" and (model / "model.safetensors").is_file():
        return "torch"
    if kind == "torch":
        return "llama.cpp"
    raise DataError(f"nothing to compare {model} with; give --reference DIR or --against MODEL")


def _shared_tokenizer(*folders: Path) -> AnyTokenizer | None:
    """Return the tokenizer of one folder where another has none; None where each brings its own."""
    if all((folder / "tokenizer.json").is_file() for folder in folders):
        return None
    for folder in folders:
        if (folder / "tokenizer.json").is_file() or toy_fields(folder):
            return find_tokenizer(folder, None)
    return None


def _noise(one: Precision, other: Precision) -> Noise:
    return Noise(visual=max(one.visual_noise, other.visual_noise), logit=max(one.logit_noise, other.logit_noise))


def _precision_of(reference: Reference) -> Precision:
    """Return how exactly a reference was computed: as its ``computed_in`` says, else float32."""
    words = str(reference.fields.get("computed_in", "")).split(" + ")
    return Precision(vision=words[0], language=words[1]) if len(words) == 2 else RECORDED


def _engines(precision: Precision) -> str:
    return precision.vision.split()[0] if " " in precision.vision else "torch"


def _said(side: Side) -> str:
    return f"{side.name} ({side.precision.vision} + {side.precision.language})"


def _write(
    record: Path | None, side: Side, traces: list[tuple[Case, Trace]], toy: Mapping[str, Any] | None = None
) -> str:
    if record is None:
        return ""
    folder = write_reference(
        record,
        traces,
        family=side.family.name,
        computed_in=f"{side.precision.vision} + {side.precision.language}",
        placeholder=side.family.placeholder,
        toy_tokenizer=toy,
    )
    return str(folder)
