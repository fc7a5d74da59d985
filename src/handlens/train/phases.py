"""The curriculum as a table: what each phase trains, at which resolution, on what.

Boundary: plain data. Source: arXiv 2408.01800, sections 4.1 (three stages) and 4.2 (SFT).
"""

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from handlens.errors import SettingError, did_you_mean

Part = Literal["vision", "resampler", "language"]
Objective = Literal["text", "reading", "gather", "cells", "layout", "answers", "preferences"]
"""``text``: answers about text that stands where visual tokens will; ``reading``: name what each patch shows;
``gather``: name what each cell shows from the sum of its patches; ``cells``: from its visual token; ``layout``: answers
about cells told by tables instead of eyes; ``answers``: answers about pictures; ``preferences``: of two answers about a
picture the better one (``align``). The heads and tables of the middle four
are thrown away (``cells.py``)."""
MOST = 10**9
"""Nothing that is counted in a run is more; a number with a slip of the finger is."""
LIMITS: dict[str, tuple[float, float]] = {
    "steps": (1, MOST),
    "rate": (0, math.inf),
    "slices_per_step": (1, MOST),
    "pictures_per_step": (1, MOST),
    "cells_weight": (0, math.inf),
    "zoomed_share": (0, 1),
    "turns_per_picture": (1, MOST),
    "ramp_pictures": (0, MOST),
    "warmup_steps": (0, MOST),
    "decay_share": (0, 1),
    "weight_decay": (0, math.inf),
    "beta2": (0, 0.9999),
    "streams": (1, MOST),
    "local_steps": (1, MOST),
    "samples": (0, MOST),
    "typical_tokens": (0, MOST),
}
"""Lowest and highest value of every number of a phase."""
WHOLE_LIMITS: dict[str, tuple[float, float]] = {
    "seed": (0, 2**63 - 1),
    "vocab_size": (1, MOST),
    "vocabulary_records": (1, MOST),
    "checkpoint_seconds": (0, math.inf),
    "report_steps": (1, MOST),
}
"""The same of a recipe."""


def check_numbers(owner: str, row: object, limits: dict[str, tuple[float, float]]) -> None:
    """Compare the fields of a row with their limits.

    Raises:
        SettingError: a number is not finite, too low or too high.
    """
    for name, (lowest, highest) in limits.items():
        value = getattr(row, name)
        if isinstance(value, float) and not math.isfinite(value):
            raise SettingError(f"{owner}: {name} is {value}; a finite number is needed")
        if value < lowest:
            raise SettingError(f"{owner}: {name} is {value}; at least {lowest} is needed")
        if value > highest:
            raise SettingError(f"{owner}: {name} is {value}; at most {highest} is needed")


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One row of the curriculum."""

    name: str
    trains: tuple[Part, ...]
    """Everything else is frozen."""
    objective: Objective
    sides_px: tuple[int, ...]
    """Slice side, drawn per batch; one value except where the resolution varies."""
    slicing: bool
    """False: the picture is one slice whatever its size."""
    mixture: dict[str, float]
    """Share of each kind of record."""
    languages: dict[str, float] = field(default_factory=lambda: {"en": 1.0})
    """Share of each language in generated records; one that a kind cannot be drawn in is left out there."""
    steps: int
    rate: float
    """Peak learning rate."""
    slices_per_step: int
    """A batch is filled until it holds this many slices."""
    pictures_per_step: int
    cells_weight: float = 0.0
    """Weight of naming what the cells hold beside the loss of the answers (objective ``answers`` only)."""
    head_of: str = ""
    """Phase whose throw-away head this one goes on with; a fresh head first spoils what tower and resampler know."""
    answer_weight: Literal["words", "root"] = "words"
    """What a long answer counts beside a short one: as many times as it has words, or the root of that."""
    zoomed_share: float = 0.0
    """Share of pictures that come two to five times as large in area, as a better camera would take them."""
    turns_per_picture: int = 4
    """At most so many questions are asked about a picture; where it is more than 4, more are drawn too. What a picture
    costs is its visual tokens: questions beside them are cheap."""
    ramp_pictures: int = 0
    """Records after which pictures are as damaged as they get; they begin clean."""
    warmup_steps: int = 50
    decay_share: float = 0.3
    """Last share of the steps in which the rate falls linearly to a tenth."""
    captions_only: bool = False
    """Use only the tasks that read or describe the whole picture."""
    weight_decay: float = 0.05
    beta2: float = 0.98
    """Memory of AdamW for the size of slopes."""
    optimiser: Literal["muon", "adamw"] = "muon"
    """What moves the matrices inside layers; tables and vectors always have AdamW."""
    schedule: Literal["linear", "cosine"] = "linear"
    """How the rate falls: constant, then linear over ``decay_share``; or half a cosine over all steps."""
    streams: int = 1
    """Batches that make one step together, from streams of records that never meet. Processes share them out, so
    the same step has the same records on one process and on several."""
    local_steps: int = 1
    """More than 1: a step is so many steps that every stream takes alone, all from the same weights; then weights and
    what the optimisers remember are averaged (local SGD, Stich, arXiv 1805.09767). Processes meet less often."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the arithmetic; ``auto`` takes bfloat16 where the processor has units for it. Weights stay float32."""
    recompute: bool = False
    """Compute what layers hold again on the way back instead of keeping it: a third more work, far less memory."""
    attention: Literal["segments", "flash"] = "segments"
    """How packed rows attend: a loop over segments, or the variable-length kernel of a GPU."""
    adapter: bool = False
    """Only the weights that an adapter added learn; ``trains`` says in which parts they lie."""
    dropout_seeded: bool = False
    """Draw new random numbers at every step (a phase with dropout needs them; they depend on seed and step only)."""
    samples: int = 0
    """Records that the phase is known to have had where it was first run; 0 when that was not published."""
    typical_px: tuple[int, int] = (0, 0)
    """Width and height of a usual picture, for the price of a phase whose data is not at hand."""
    typical_tokens: int = 0
    """Tokens of text of a usual record, for the same."""
    substitutes: dict[str, str] = field(default_factory=dict)
    """Fields whose values were never published -> where the value that stands here comes from."""

    def __post_init__(self) -> None:
        check_numbers(f"phase {self.name}", self, LIMITS)
        if self.objective == "reading" and self.zoomed_share:
            raise SettingError(
                f"phase {self.name}: zoomed_share needs another objective; patches are labelled unzoomed"
            )
        if not self.languages:
            raise SettingError(f"phase {self.name}: languages is empty; name at least one, such as en")
        if not self.mixture:
            raise SettingError(f"phase {self.name}: the mixture is empty; name at least one kind of record")

    @property
    def sees(self) -> bool:
        """True where the vision tower runs."""
        return self.objective in ("reading", "gather", "cells", "answers", "preferences")

    @property
    def compresses(self) -> bool:
        """True where the resampler runs."""
        return self.objective in ("cells", "answers", "preferences")

    @property
    def talks(self) -> bool:
        """True where the language model runs."""
        return self.objective in ("text", "layout", "answers", "preferences")

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step: linear warm-up, then constant and linear, or a cosine, to a tenth."""
        if step < self.warmup_steps:
            return self.rate * (step + 1) / self.warmup_steps
        if self.schedule == "cosine":
            way = (step - self.warmup_steps) / max(self.steps - self.warmup_steps, 1)
            return self.rate * (0.1 + 0.45 * (1 + math.cos(math.pi * min(way, 1.0))))
        start = self.steps * (1 - self.decay_share)
        if step < start:
            return self.rate
        return self.rate * (1 - 0.9 * (step - start) / max(self.steps - start, 1))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A model and the phases that make it, in order."""

    name: str
    phases: tuple[Phase, ...]
    seed: int = 1
    vocab_size: int = 1024
    vocabulary_records: int = 4000
    """Generated records on whose text the vocabulary is trained."""
    checkpoint_seconds: float = 120.0
    """A step checkpoint is written after at most this time and one step."""
    report_steps: int = 25
    """Steps from one line of the log to the next."""
    about: str = ""
    """One sentence for the list of recipes."""
    needs: tuple[str, ...] = ()
    """What a user must bring: pretrained parts and pools of data. Empty: the recipe makes all it needs."""
    machine: str = ""
    """Key of ``plan.MACHINES`` for which costs are told; empty: this machine."""

    def __post_init__(self) -> None:
        check_numbers(f"recipe {self.name}", self, WHOLE_LIMITS)

    def only(self, phase: str) -> "Recipe":
        """Return the recipe reduced to one phase.

        Raises:
            SettingError: there is no such phase.
        """
        names = [row.name for row in self.phases]
        if phase not in names:
            raise SettingError(f"recipe {self.name} has no phase '{phase}'{did_you_mean(phase, names)}")
        return replace(self, phases=tuple(row for row in self.phases if row.name == phase))
