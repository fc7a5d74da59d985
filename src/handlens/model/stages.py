"""The contract stage by stage: what a torch model computes from picture to answer, each step on its own.

Boundary: pictures and numpy arrays at the outside, torch inside. Parity tests and ``handlens verify`` call this.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Int64
from PIL import Image

from handlens.config import HandlensConfig
from handlens.core.chat import Chat
from handlens.core.prompt import Encoder, Prompt, encode_prompt, expand, markups, read_answer, render_turns
from handlens.core.slicing import SlicePlan
from handlens.core.tokenizer import Tokenizer
from handlens.errors import SettingError
from handlens.families import Family, family_named
from handlens.model.checkpoint import load_model
from handlens.model.processor import (
    Pixels,
    Times,
    batch_slices,
    official_layout,
    patch_grids,
    picture_pixels,
    plan_picture,
    table_rows,
)
from handlens.model.vlm import HandlensModel

Vectors = Float32[np.ndarray, "_ _"]


@dataclass(frozen=True)
class Stages:
    """A model with its family's rules, opened for looking inside."""

    model: HandlensModel
    tokenizer: Encoder
    config: HandlensConfig
    family: Family

    @classmethod
    def open(
        cls, folder: Path | str, *, tokenizer: Encoder | None = None, dtype: torch.dtype = torch.float32
    ) -> "Stages":
        """Load a model folder.

        Raises:
            ModelError: the folder is not whole.
        """
        tokenizer = tokenizer or Tokenizer.from_folder(Path(folder))
        return cls.of(load_model(folder, dtype=dtype), tokenizer)

    @classmethod
    def of(cls, model: HandlensModel, tokenizer: Encoder) -> "Stages":
        """Look inside a loaded model."""
        return cls(model, tokenizer, model.config.typed(), model.family)

    def in_mode(self, mode: str) -> "Stages":
        """Return the same weights in another mode: ``16x`` or ``4x`` of 4.6.

        Raises:
            SettingError: the family has no such mode.
        """
        modes = {"16x": "4.6", "4x": "4.6-4x"}
        if self.family.tower != "native" or mode not in modes:
            known = ", ".join(modes) if self.family.tower == "native" else "none"
            raise SettingError(f"family {self.family.name} has no mode '{mode}'; known: {known}")
        return replace(self, family=family_named(modes[mode]))

    # ---- pictures ----------------------------------------------------------------------------------------------------

    def plan(self, width_px: int, height_px: int, max_slices: int | None = None) -> SlicePlan:
        """Return the slice grid; ``.patches`` has rows and columns of patches of every slice."""
        return plan_picture(width_px, height_px, self.config, self.family, max_slices)

    def pixels(self, image: Image.Image, plan: SlicePlan) -> list[Pixels]:
        """Return the normalised pixels of overview and slices."""
        return picture_pixels(image, plan, self.family)

    def layout(self, pixels: Sequence[Pixels]) -> list[np.ndarray]:
        """Return the arrays that the released processor makes, whose bytes a reference has hashes of."""
        return official_layout(pixels, self.config, self.family)

    def position_ids(self, pixels: Sequence[Pixels]) -> list[Int64[np.ndarray, "_"]] | None:
        """Return the rows of the position table per slice; None where the table itself is resized (1.0, 2.0)."""
        if self.family.position_rule == "resized":
            return None
        return table_rows(patch_grids(pixels, self.config.vision.patch_px), self.config, self.family)

    def vision_tokens(self, pixels: Sequence[Pixels], times: Times | None = None) -> list[Vectors]:
        """Return the vision tower's vectors of the real patches of every slice."""
        return self.encode(pixels, times)[0]

    def visual_tokens(self, pixels: Sequence[Pixels], times: Times | None = None) -> list[Vectors]:
        """Return the visual tokens of every slice, or of every group of frames that ``times`` names."""
        return self.encode(pixels, times)[1]

    @torch.inference_mode()
    def encode(self, pixels: Sequence[Pixels], times: Times | None = None) -> tuple[list[Vectors], list[Vectors]]:
        """Return vision tokens and visual tokens; give all slices of a prompt at once, 2.5 depends on it."""
        batch = batch_slices(pixels, self.config, self.family, times).to(self._like)
        seen = self.model.look(batch)
        tokens = self.model.compress(batch, seen).float().cpu()
        seen = seen.float().cpu()
        if not self.family.merge:
            counts = [rows * columns for rows, columns in batch.grids]
            return [part[:count].numpy() for part, count in zip(seen, counts, strict=True)], [t.numpy() for t in tokens]
        # The merger inside the tower of 4.6 leaves one vector of four patches.
        counts = [rows * columns // (4 if self.family.merge == 4 else 1) for rows, columns in batch.grids]
        merged = [self.family.num_visual(*grid) for grid in batch.grids]
        return [part.numpy() for part in seen[0].split(counts)], [part.numpy() for part in tokens[0].split(merged)]

    # ---- prompt ------------------------------------------------------------------------------------------------------

    def expand(
        self,
        text: str,
        plans: Sequence[SlicePlan],
        *,
        groups: Sequence[int] | None = None,
        use_image_id: bool | None = None,
    ) -> str:
        """Return a prompt with its picture marks written out.

        Raises:
            SettingError: the text has more or fewer marks than there are pictures.
        """
        return expand(text, self._markups(plans, groups, use_image_id))[0]

    def prompt_of(
        self,
        text: str,
        plans: Sequence[SlicePlan],
        *,
        groups: Sequence[int] | None = None,
        use_image_id: bool | None = None,
    ) -> Prompt:
        """Return ids and mask of a prompt with picture marks; the token that begins every prompt is put before it."""
        begin = self.family.template.begin
        expanded, places = expand(begin + text, self._markups(plans, groups, use_image_id))
        return encode_prompt(expanded, places, self.family, self.tokenizer)

    def prompt(
        self,
        chat: Chat,
        plans: Sequence[SlicePlan],
        *,
        groups: Sequence[int] | None = None,
        use_image_id: bool | None = None,
        thinking: bool = False,
    ) -> Prompt:
        """Return ids and mask of a conversation by the family's template."""
        text, places = render_turns(chat, self._markups(plans, groups, use_image_id), self.family, thinking=thinking)
        return encode_prompt(text, places, self.family, self.tokenizer)

    def _markups(
        self, plans: Sequence[SlicePlan], groups: Sequence[int] | None, use_image_id: bool | None
    ) -> list[str | None]:
        queries = self.config.resampler.num_queries
        return markups(plans, self.family, queries, groups=groups, use_image_id=use_image_id)

    # ---- language ----------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def embeddings(self, prompt: Prompt, visual_tokens: Sequence[Vectors]) -> Vectors:
        """Return what the language model reads: word embeddings with visual tokens in their places."""
        return self._joined(prompt, visual_tokens)[0].float().cpu().numpy()

    @torch.inference_mode()
    def logits(self, prompt: Prompt, visual_tokens: Sequence[Vectors]) -> Float32[np.ndarray, "tokens vocab"]:
        """Return the logits of every place of the prompt."""
        return self.model.llm(inputs_embeds=self._joined(prompt, visual_tokens)).logits[0].float().cpu().numpy()

    @torch.inference_mode()
    def greedy(self, prompt: Prompt, visual_tokens: Sequence[Vectors], num_tokens: int) -> list[int]:
        """Return the likeliest continuation; stops do not end it."""
        cache, ids = self.model.new_cache(), []
        inputs = {"inputs_embeds": self._joined(prompt, visual_tokens)}
        for _ in range(num_tokens):
            out = self.model.llm(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
            ids.append(int(out.logits[0, -1].argmax()))
            inputs = {"input_ids": torch.tensor([ids[-1:]], device=self._like.device)}
        return ids

    def text(self, ids: Sequence[int]) -> str:
        """Return the answer that generated ids make."""
        return read_answer(ids, self.family, self.tokenizer)

    @property
    def stop_ids(self) -> set[int]:
        """Ids that end an answer."""
        return self.tokenizer.known_ids(self.family.template.stops)

    @property
    def _like(self) -> torch.Tensor:
        return self.model.llm.get_input_embeddings().weight

    def _joined(self, prompt: Prompt, visual_tokens: Sequence[Vectors]) -> torch.Tensor:
        device = self._like.device
        ids = torch.from_numpy(prompt.ids)[None].to(device)
        if not visual_tokens:
            return self.model.join(ids, None, None)
        visual = torch.from_numpy(np.concatenate(visual_tokens))[None].to(device)
        if visual.shape[1] != prompt.num_visual:
            raise SettingError(
                f"the prompt has {prompt.num_visual} visual places but {visual.shape[1]} visual tokens were given"
            )
        return self.model.join(ids, torch.from_numpy(prompt.is_visual)[None].to(device), visual)
