"""Models that transformers has a class for (4.6), behind the interface of our own.

Boundary: the native class computes and names the weights; slices come in and visual tokens go out as everywhere.
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import DynamicCache, MiniCPMV4_6Config, MiniCPMV4_6ForConditionalGeneration, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from handlens.config import HandlensConfig
from handlens.families import Family, family_named
from handlens.model.vlm import HandlensModel, SliceBatch


class NativeConfig(MiniCPMV4_6Config):
    """The official ``config.json`` of 4.6."""

    __no_type_check__ = True  # transformers takes any key; jaxtyping would check against the declared ones

    def typed(self) -> HandlensConfig:
        """Return our checked form of these fields."""
        return HandlensConfig.from_official(self.to_dict())


class NativeLanguage:
    """The language half of a native model, called as a causal language model of transformers is."""

    def __init__(self, model: PreTrainedModel, lm_head: nn.Linear) -> None:
        self.model, self.lm_head = model, lm_head

    def __call__(self, *, logits_to_keep: int = 0, **inputs: Any) -> CausalLMOutputWithPast:
        """Return logits of the last ``logits_to_keep`` places, of all where it is 0."""
        hidden = self.model(**inputs).last_hidden_state
        return CausalLMOutputWithPast(logits=self.lm_head(hidden[:, -logits_to_keep:]))

    def get_input_embeddings(self) -> nn.Module:
        """Return the word embeddings."""
        return self.model.get_input_embeddings()


class NativeModel(HandlensModel):
    """MiniCPM-V 4.6: squares of patches are merged, so slices differ in their number of visual tokens.

    ``slices.merge`` chooses the mode: 4 merges twice (16x), 2 leaves out the merger inside the tower (4x).
    """

    config_class = NativeConfig
    ignored = ("mtp.", "model.mtp.")
    """Tensors of the block that predicts a second token; the native class does not use them."""

    def __init__(self, config: NativeConfig) -> None:
        PreTrainedModel.__init__(self, config)
        native = MiniCPMV4_6ForConditionalGeneration(config)
        self.model, self.lm_head = native.model, native.lm_head
        self.family: Family = family_named(config.typed().family)
        self.official: dict[str, Any] = {}
        self.stored: dict[str, torch.dtype] = {}
        self.source: Path | None = None

    @property
    def llm(self) -> NativeLanguage:
        """The language half."""
        return NativeLanguage(self.model.language_model, self.lm_head)

    def look(self, slices: SliceBatch) -> Float[Tensor, "1 patches vision_dim"]:
        """Return the tower's vectors of all slices end to end; in 16x one for four patches."""
        patches = slices.patches.flatten(0, 1) if slices.is_real is None else slices.patches[slices.is_real]
        side = self.config.vision_config.patch_size
        packed = patches.unflatten(1, (3, side, side)).permute(1, 2, 0, 3).flatten(2)
        seen = self.model.vision_tower(packed[None], target_sizes=_sizes(slices), use_vit_merger=slices.merge == 4)
        return seen.last_hidden_state

    def compress(
        self, slices: SliceBatch, seen: Float[Tensor, "1 patches vision_dim"]
    ) -> Float[Tensor, "1 visual dim"]:
        """Return the visual tokens of all slices end to end."""
        sizes = _sizes(slices)
        return torch.cat(self.model.merger(seen, sizes // 2 if slices.merge == 4 else sizes))[None]

    def new_cache(self) -> DynamicCache:
        """Return an empty cache; linear attention layers keep a state instead of keys and values."""
        return DynamicCache(config=self.config.text_config)


def _sizes(slices: SliceBatch) -> Tensor:
    """Return rows and columns of patches as the native class takes them."""
    return torch.tensor(slices.grids, dtype=torch.int32)
