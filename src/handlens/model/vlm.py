"""The joined model: slices become visual tokens that take their places among the words.

Boundary: arrays prepared by ``core`` in, logits out; registered with the Auto classes of transformers.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    DynamicCache,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import CausalLMOutputWithPast

from handlens.config import HandlensConfig
from handlens.families import Family, family_named
from handlens.model.language import build_language
from handlens.model.resampler import Resampler
from handlens.model.timm import Grids, TimmTower
from handlens.model.vision import VisionTower

TOWERS = {"siglip": VisionTower, "timm": TimmTower}


class MiniCPMVConfig(PreTrainedConfig):
    """The official ``config.json`` as transformers sees it."""

    model_type = "minicpmv"
    __no_type_check__ = True  # transformers takes any key; jaxtyping would check against the declared ones

    rope_scaling: Any = None
    """A plain field, as in the file; transformers would rewrite it."""

    def typed(self) -> HandlensConfig:
        """Return our checked form of these fields."""
        return HandlensConfig.from_official(self.to_dict())


@dataclass(frozen=True)
class SliceBatch:
    """Slices of several pictures, padded to one length, in the order of their visual places."""

    patches: Float[Tensor, "slices patches pixels"]
    position_ids: Int[Tensor, "slices patches"]
    key_positions: Float[Tensor, "slices patches dim"]
    is_real: Bool[Tensor, "slices patches"] | None
    """False at padding; None when every slice has the same number of patches."""
    grids: Grids = ()
    """Rows and columns of patches of every slice; 1.0, 2.0 and 4.6 need them."""
    groups: tuple[int, ...] | None = None
    """How many consecutive slices share one block of visual tokens (frames, 4.5); None: each has its own."""
    merge: int = 0
    """Side of the squares of patches that become one visual token (4.6)."""

    def to(self, like: Tensor) -> "SliceBatch":
        """Return the batch on the device of ``like``, numbers in its type."""
        return replace(
            self,
            patches=self.patches.to(like),
            position_ids=self.position_ids.to(like.device),
            key_positions=self.key_positions.to(like),
            is_real=None if self.is_real is None else self.is_real.to(like.device),
        )


class HandlensModel(PreTrainedModel):
    """Vision tower, resampler and language model under the official names ``vpm``, ``resampler``, ``llm``."""

    config_class = MiniCPMVConfig
    main_input_name = "input_ids"
    ignored: tuple[str, ...] = ()
    """Beginnings of names of tensors that a file may hold and this class does not use."""
    _supports_sdpa = True

    def __init__(self, config: MiniCPMVConfig) -> None:
        super().__init__(config)
        shape = config.typed()
        self.family: Family = family_named(shape.family)
        self.official: dict[str, Any] = {}
        """Fields of the ``config.json`` it was loaded from, as they are in the file."""
        self.stored: dict[str, torch.dtype] = {}
        """Number types of the tensors in that file."""
        self.source: Path | None = None
        """The folder it was loaded from."""
        self.vpm = cast(VisionTower, TOWERS[self.family.tower](shape.vision))
        self.resampler = Resampler(shape.resampler)
        self.llm = build_language(shape.language)
        if shape.language.tied:
            self._tied_weights_keys = {"llm.lm_head.weight": "llm.model.embed_tokens.weight"}
        self.post_init()

    def _init_weights(self, module: torch.nn.Module) -> None:
        if isinstance(module, VisionTower | TimmTower | Resampler):
            module.initialise()

    def look(self, slices: SliceBatch) -> Float[Tensor, "slices patches vision_dim"]:
        """Return the vision tower's vectors of every patch, after its last norm."""
        if self.family.tower == "timm":
            return self.vpm(slices.patches, slices.grids, slices.is_real)
        return self.vpm(slices.patches, slices.position_ids, None if self.family.attends_padding else slices.is_real)

    def see(self, slices: SliceBatch) -> Float[Tensor, "slices queries dim"]:
        """Return the visual tokens of every slice, or of every group of frames."""
        return self.compress(slices, self.look(slices))

    def compress(
        self, slices: SliceBatch, seen: Float[Tensor, "slices patches vision_dim"]
    ) -> Float[Tensor, "groups queries dim"]:
        """Return the visual tokens of what the vision tower has seen."""
        keys, is_real = slices.key_positions, slices.is_real
        if self.family.stored_keys:
            keys = torch.stack([self.resampler.enlarged_table(*grid) for grid in slices.grids])
        if slices.groups is not None:
            seen, keys, is_real = join_frames(seen, keys, is_real, slices.groups)
        return self.resampler(seen, keys, is_real)

    def join(
        self,
        input_ids: Int[Tensor, "batch tokens"],
        is_visual: Bool[Tensor, "batch tokens"] | None,
        visual_tokens: Float[Tensor, "slices queries dim"] | None,
    ) -> Float[Tensor, "batch tokens dim"]:
        """Return word embeddings with visual tokens in their places."""
        embeddings = self.llm.get_input_embeddings()(input_ids)
        if is_visual is None or visual_tokens is None:
            return embeddings
        places = is_visual.unsqueeze(-1).expand_as(embeddings)
        return embeddings.masked_scatter(places, visual_tokens.flatten(0, 1).to(embeddings.dtype))

    def get_input_embeddings(self) -> torch.nn.Module:
        """Return the word embeddings; PEFT asks for them where they are the output weights, too."""
        return self.llm.get_input_embeddings()

    def new_cache(self) -> DynamicCache:
        """Return an empty cache for the language model."""
        return DynamicCache()

    def tie(self) -> None:
        """Let the output weights be the word embeddings, where the configuration says so."""
        if self.config.tie_word_embeddings:
            self.llm.lm_head.weight = self.llm.get_input_embeddings().weight

    def forward(
        self,
        input_ids: Int[Tensor, "batch tokens"],
        is_visual: Bool[Tensor, "batch tokens"] | None = None,
        slices: SliceBatch | None = None,
        labels: Int[Tensor, "batch tokens"] | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Return logits, and the mean loss over ``labels`` (-100 is ignored; the shift happens here)."""
        visual_tokens = None if slices is None else self.see(slices)
        embeddings = self.join(input_ids, is_visual, visual_tokens)
        hidden = self.llm.model(inputs_embeds=embeddings, **kwargs).last_hidden_state
        logits = self.llm.lm_head(hidden)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100)
        return CausalLMOutputWithPast(loss=loss, logits=logits)


def join_frames(
    seen: Float[Tensor, "slices patches vision_dim"],
    keys: Float[Tensor, "slices patches dim"],
    is_real: Bool[Tensor, "slices patches"] | None,
    groups: tuple[int, ...],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return patches, key positions and mask with the frames of each group laid end to end."""
    real = torch.ones(seen.shape[:2], dtype=torch.bool, device=seen.device) if is_real is None else is_real
    joined, places = [], []
    for part, where, mask in zip(seen.split(groups), keys.split(groups), real.split(groups), strict=True):
        joined.append(part[mask])
        places.append(where[mask])
    lengths = torch.tensor([len(part) for part in joined], device=seen.device)
    return (
        pad_sequence(joined, batch_first=True),
        pad_sequence(places, batch_first=True),
        torch.arange(int(lengths.max()), device=seen.device) < lengths[:, None],
    )


def build_model(config: HandlensConfig) -> HandlensModel:
    """Return a freshly initialised model."""
    return HandlensModel(MiniCPMVConfig(**config.to_official()))


AutoConfig.register("minicpmv", MiniCPMVConfig)
AutoModel.register(MiniCPMVConfig, HandlensModel)
AutoModelForImageTextToText.register(MiniCPMVConfig, HandlensModel)
