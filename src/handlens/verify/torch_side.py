"""The torch model as one side of a comparison."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from handlens.config import HandlensConfig
from handlens.core.prompt import Prompt
from handlens.core.tokenizer import AnyTokenizer
from handlens.families import Family
from handlens.model.stages import Stages
from handlens.verify.case import NUM_GREEDY, Case, Trace
from handlens.verify.margin import margins_of
from handlens.verify.side import Precision, find_tokenizer


@dataclass
class TorchSide:
    """Every stage can be seen."""

    name: str
    stages: Stages
    tokenizer: AnyTokenizer
    precision: Precision

    @classmethod
    def open(cls, folder: Path, tokenizer: AnyTokenizer | None) -> "TorchSide":
        """Load a model folder in float32.

        Raises:
            ModelError: the folder is not whole.
        """
        found = find_tokenizer(folder, tokenizer)
        precision = Precision(vision="float32", language="float32")
        return cls(str(folder), Stages.open(folder, tokenizer=found), found, precision)

    @property
    def config(self) -> HandlensConfig:
        """Shape and family."""
        return self.stages.config

    @property
    def family(self) -> Family:
        """Rules of the released version."""
        return self.stages.family

    def trace(self, case: Case) -> Trace:
        """Take a case through all stages."""
        stages = self.stages if case.mode is None else self.stages.in_mode(case.mode)
        plans = [stages.plan(*picture.image.size, case.max_slices) for picture in case.pictures]
        pixels = [
            part
            for picture, plan in zip(case.pictures, plans, strict=True)
            for part in stages.pixels(picture.image, plan)
        ]
        prompt = stages.prompt_of(case.prompt, plans, groups=case.groups, use_image_id=case.use_image_id)
        trace = Trace(
            grids=[grid for plan in plans for grid in plan.patches],
            num_slices=len(pixels),
            expanded=stages.expand(case.prompt, plans, groups=case.groups, use_image_id=case.use_image_id),
            ids=prompt.ids,
            is_visual=prompt.is_visual,
        )
        visual: list[np.ndarray] = []
        if pixels:
            trace.pixels = stages.layout(pixels)
            rows = stages.position_ids(pixels)
            trace.positions = None if rows is None else np.concatenate(rows)
            trace.vision = list(stages.vision_tokens(pixels, case.times))
            trace.visual = visual = list(stages.visual_tokens(pixels, case.times))
        trace.embeddings = stages.embeddings(prompt, visual)
        trace.logits = stages.logits(prompt, visual)
        trace.greedy = stages.greedy(prompt, visual, NUM_GREEDY)
        continued = Prompt(
            ids=np.concatenate([prompt.ids, np.asarray(trace.greedy[:-1], dtype=np.int64)]),
            is_visual=np.concatenate([prompt.is_visual, np.zeros(NUM_GREEDY - 1, dtype=bool)]),
        )
        trace.margins = margins_of(stages.logits(continued, visual)[len(prompt.ids) - 1 :])
        return trace

    def close(self) -> None:
        """Nothing to release: the model goes with this object."""
