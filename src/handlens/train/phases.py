"""The curriculum as a table: what each phase trains, at which resolution, on what.

Boundary: plain data. Source: arXiv 2408.01800, sections 4.1 (three stages) and 4.2 (SFT).
"""

from dataclasses import dataclass, replace
from typing import Literal

from handlens.errors import SettingError, did_you_mean

Part = Literal["vision", "resampler", "language"]
Objective = Literal["text", "reading", "cells", "layout", "answers"]
"""``text``: answers about text that stands where visual tokens will; ``reading``: name what each patch shows;
``cells``: name what each visual token's cell shows; ``layout``: answers about cells told by tables instead of eyes;
``answers``: answers about pictures. The heads and tables of the middle three are thrown away (``cells.py``)."""


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
    steps: int
    rate: float
    """Peak learning rate."""
    slices_per_step: int
    """A batch is filled until it holds this many slices."""
    pictures_per_step: int
    cells_weight: float = 0.0
    """Weight of naming what the cells hold beside the loss of the answers (objective ``answers`` only)."""
    zoomed_share: float = 0.0
    """Share of pictures that come two to five times as large in area, as a better camera would take them."""
    ramp_pictures: int = 0
    """Records after which pictures are as damaged as they get; they begin clean."""
    warmup_steps: int = 50
    decay_share: float = 0.3
    """Last share of the steps in which the rate falls linearly to a tenth."""
    captions_only: bool = False
    """Use only the tasks that read or describe the whole picture."""
    weight_decay: float = 0.05

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise SettingError(f"phase {self.name}: steps is {self.steps}; at least 1 is needed")
        if self.objective == "reading" and self.zoomed_share:
            raise SettingError(
                f"phase {self.name}: zoomed_share needs another objective; patches are labelled unzoomed"
            )
        if not self.mixture:
            raise SettingError(f"phase {self.name}: the mixture is empty; name at least one kind of record")

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step: linear warm-up, constant, linear decay to a tenth."""
        if step < self.warmup_steps:
            return self.rate * (step + 1) / self.warmup_steps
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

    def only(self, phase: str) -> "Recipe":
        """Return the recipe reduced to one phase.

        Raises:
            SettingError: there is no such phase.
        """
        names = [row.name for row in self.phases]
        if phase not in names:
            raise SettingError(f"recipe {self.name} has no phase '{phase}'{did_you_mean(phase, names)}")
        return replace(self, phases=tuple(row for row in self.phases if row.name == phase))
