"""A bundle, and stock llama.cpp with its two files, as sides of a comparison. No torch.

Boundary: pictures and prompts are prepared by ``core``; the halves are those of ``engine``.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from handlens.config import HandlensConfig
from handlens.core.patches import normalise, position_ids, to_strip
from handlens.core.prompt import Prompt, encode_prompt, expand, markups
from handlens.core.slicing import SlicePlan, cut, plan_slices
from handlens.core.tokenizer import AnyTokenizer
from handlens.engine.bundle import Bundle
from handlens.engine.language import LlamaCppLanguage
from handlens.engine.room import Room
from handlens.export.llama_cpp import GgufFolder
from handlens.families import Family, family_named
from handlens.verify.case import LAST_ROWS, NUM_GREEDY, STAGES, Case, Trace
from handlens.verify.margin import margins_of
from handlens.verify.side import Precision, find_tokenizer, toy_fields


class DeviceSide(ABC):
    """What both have in common: preparation by ``core``, language by llama.cpp."""

    name: str
    tokenizer: AnyTokenizer
    precision: Precision

    @property
    @abstractmethod
    def config(self) -> HandlensConfig:
        """Shape and family."""

    @property
    @abstractmethod
    def language(self) -> Path:
        """The language file."""

    @property
    def family(self) -> Family:
        """Rules of the released version."""
        return family_named(self.config.family)

    @abstractmethod
    def see(self, case: Case, plans: list[SlicePlan], trace: Trace) -> list[np.ndarray]:
        """Return the visual tokens of every slice and note what can be seen on the way."""

    def trace(self, case: Case) -> Trace:
        """Take a case through all stages that a device shows."""
        if why := self.cannot_see(case):
            return Trace(notes=dict.fromkeys(STAGES, why))
        plans = [self.plan(*picture.image.size, case.max_slices) for picture in case.pictures]
        pieces = markups(plans, self.family, self.config.resampler.num_queries, use_image_id=case.use_image_id)
        prompt = encode_prompt(*expand(self.family.template.begin + case.prompt, pieces), self.family, self.tokenizer)
        trace = Trace(expanded=expand(case.prompt, pieces)[0], ids=prompt.ids, is_visual=prompt.is_visual)
        visual = self.see(case, plans, trace) if plans else []
        trace.visual = visual or None
        count = sum(map(len, visual))
        if count != prompt.num_visual:
            trace.notes["logits"] = f"{count} visual tokens for {prompt.num_visual} places"
            return trace
        self._say(prompt, np.concatenate(visual) if visual else np.zeros((0, 1), dtype=np.float32), trace)
        return trace

    def cannot_see(self, case: Case) -> str:
        """Return why a case is beyond this engine; empty where it is not."""
        is_plain = case.times is None and case.mode is None
        return "" if is_plain else "frame groups and modes need the torch model"

    def plan(self, width_px: int, height_px: int, max_slices: int | None) -> SlicePlan:
        """Return how the released code divides a picture."""
        slicing = self.config.slicing
        return plan_slices(
            width_px,
            height_px,
            side_px=slicing.side_px,
            max_slices=slicing.max_slices if max_slices is None else max_slices,
            patch_px=slicing.patch_px,
        )

    def _say(self, prompt: Prompt, visual: np.ndarray, trace: Trace) -> None:
        """Add the logits of the last places and the likeliest continuation."""
        spoken = len(prompt.ids) - (int(np.flatnonzero(prompt.is_visual)[-1]) + 1 if prompt.num_visual else 0)
        num_after = max(0, min(LAST_ROWS, spoken, len(prompt.ids)) - 1)
        begin = len(prompt.ids) - num_after
        half = LlamaCppLanguage(self.language, Room(prompt=len(prompt.ids), answer=NUM_GREEDY + LAST_ROWS))
        try:
            rows = [half.prefill(Prompt(ids=prompt.ids[:begin], is_visual=prompt.is_visual[:begin]), visual)]
            rows += [half.step([int(token)], [0])[0] for token in prompt.ids[begin:]]
            trace.logits = np.stack(rows)
            steps = rows[-1:]
            trace.greedy = [int(steps[0].argmax())]
            while len(trace.greedy) < NUM_GREEDY:
                steps.append(half.step(trace.greedy[-1:], [0])[0])
                trace.greedy.append(int(steps[-1].argmax()))
            trace.margins = margins_of(np.stack(steps))
        finally:
            half.close()

    def close(self) -> None:  # noqa: B027 - so it is for both
        """Nothing is held between cases."""


@dataclass
class BundleSide(DeviceSide):
    """ONNX Runtime sees, llama.cpp reads."""

    name: str
    bundle: Bundle
    tokenizer: AnyTokenizer
    precision: Precision

    @classmethod
    def open(cls, folder: Path, tokenizer: AnyTokenizer | None) -> "BundleSide":
        """Open a bundle and compare all its hashes.

        Raises:
            ModelError: the bundle is not whole.
        """
        bundle = Bundle.open(folder)
        bundle.check()
        vision = "ONNX int8" if "int8" in bundle.vision else "ONNX fp32"
        return cls(
            name=str(folder),
            bundle=bundle,
            tokenizer=find_tokenizer(folder, tokenizer),
            precision=Precision(vision=vision, language=bundle.info.quantisation),
        )

    @property
    def config(self) -> HandlensConfig:
        """Shape and family."""
        return self.bundle.config

    @property
    def language(self) -> Path:
        """The language file."""
        return self.bundle.folder / self.bundle.language

    def see(self, case: Case, plans: list[SlicePlan], trace: Trace) -> list[np.ndarray]:
        """Return the visual tokens of every slice; grids, pixels and positions are those of ``core``."""
        from handlens.engine.vision import OnnxVision

        pixels = [
            normalise(part)
            for picture, plan in zip(case.pictures, plans, strict=True)
            for part in cut(picture.image, plan)
        ]
        vision = self.config.vision
        trace.grids = [grid for plan in plans for grid in plan.patches]
        trace.num_slices = len(pixels)
        trace.pixels = [to_strip(part, vision.patch_px) for part in pixels]
        trace.positions = np.concatenate(
            [position_ids(*grid, table_side=vision.table_side, rule=self.family.position_rule) for grid in trace.grids]
        )
        half = OnnxVision(self.bundle.folder / self.bundle.vision, self.config)
        try:
            return [half.encode(part) for part in pixels]
        finally:
            half.close()


@dataclass
class GgufSide(DeviceSide):
    """Stock llama.cpp does everything but the prompt."""

    name: str
    files: GgufFolder
    tokenizer: AnyTokenizer
    precision: Precision

    @classmethod
    def open(cls, folder: Path, tokenizer: AnyTokenizer | None) -> "GgufSide":
        """Read both headers and see that they belong together.

        Raises:
            ModelError: a file is missing, cut, or belongs to another model.
        """
        from handlens.engine.gguf_header import read_header

        files = GgufFolder.open(folder)
        header = read_header(files.mmproj)
        kind = "F32" if header.values.get("general.file_type") == 0 else "F16"
        return cls(
            name=str(folder),
            files=files,
            tokenizer=_tokenizer_of(files, tokenizer),
            precision=Precision(vision=f"llama.cpp {kind}", language=quant_of(files.language)),
        )

    @property
    def config(self) -> HandlensConfig:
        """Shape and family."""
        return self.files.config

    @property
    def language(self) -> Path:
        """The language file."""
        return self.files.language

    def cannot_see(self, case: Case) -> str:
        """Return why a case is beyond this engine: llama.cpp cannot be told how many slices to cut."""
        if case.pictures and case.max_slices not in (None, self.config.slicing.max_slices):
            return f"llama.cpp cuts at most {self.config.slicing.max_slices} slices, not {case.max_slices}"
        return super().cannot_see(case)

    def see(self, case: Case, plans: list[SlicePlan], trace: Trace) -> list[np.ndarray]:
        """Return the visual tokens of every slice as llama.cpp cuts them."""
        from handlens.engine.mtmd import MtmdVision

        half = MtmdVision(self.files.mmproj, self.files.language)
        try:
            seen = [half.encode(picture.image) for picture in case.pictures]
        finally:
            half.close()
        trace.num_slices = sum(map(len, seen))
        return [part for parts in seen for part in parts]


def _tokenizer_of(files: GgufFolder, given: AnyTokenizer | None) -> AnyTokenizer:
    """Return the tokenizer that was given, one that lies beside the files, or the vocabulary of the language file."""
    if given is not None or files.tokenizer or toy_fields(files.folder):
        return find_tokenizer(files.folder, given)
    from handlens.export.gguf_tokenizer import read_tokenizer

    return read_tokenizer(files.language)


def quant_of(language: Path) -> str:
    """Return the quantisation that the header of a language file names.

    Raises:
        ModelError: the file is damaged.
    """
    from handlens.engine.gguf_header import read_header

    header = read_header(language)
    names = {0: "F32", 1: "F16", 32: "BF16", 2: "Q4_0", 7: "Q8_0", 15: "Q4_K_M", 17: "Q5_K_M", 18: "Q6_K"}
    number = int(header.values.get("general.file_type", -1))
    kinds = {fact.kind for fact in header.tensors.values()}
    return names.get(number, "F32" if kinds == {0} else f"file type {number}")
