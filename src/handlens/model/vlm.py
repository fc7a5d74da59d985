"""The joined model: slices become visual tokens that take their places among the words.

Boundary: arrays prepared by ``core`` in, logits out; registered with the Auto classes of transformers.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from handlens.config import HandlensConfig
from handlens.model.language import build_language
from handlens.model.resampler import Resampler
from handlens.model.vision import VisionTower


class MiniCPMVConfig(PreTrainedConfig):
    """The official ``config.json`` as transformers sees it."""

    model_type = "minicpmv"
    __no_type_check__ = True  # transformers takes any key; jaxtyping would check against the declared ones

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


class HandlensModel(PreTrainedModel):
    """Vision tower, resampler and language model under the official names ``vpm``, ``resampler``, ``llm``."""

    config_class = MiniCPMVConfig
    main_input_name = "input_ids"
    _supports_sdpa = True

    def __init__(self, config: MiniCPMVConfig) -> None:
        super().__init__(config)
        shape = config.typed()
        self.vpm = VisionTower(shape.vision)
        self.resampler = Resampler(shape.resampler)
        self.llm = build_language(shape.language)
        if shape.language.tied:
            self._tied_weights_keys = {"llm.lm_head.weight": "llm.model.embed_tokens.weight"}
        self.post_init()

    def _init_weights(self, module: torch.nn.Module) -> None:
        if isinstance(module, VisionTower | Resampler):
            module.initialise()

    def see(self, slices: SliceBatch) -> Float[Tensor, "slices queries dim"]:
        """Return the visual tokens of every slice."""
        seen = self.vpm(slices.patches, slices.position_ids, slices.is_real)
        return self.resampler(seen, slices.key_positions, slices.is_real)

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


def build_model(config: HandlensConfig) -> HandlensModel:
    """Return a freshly initialised model."""
    return HandlensModel(MiniCPMVConfig(**config.to_official()))


AutoConfig.register("minicpmv", MiniCPMVConfig)
AutoModel.register(MiniCPMVConfig, HandlensModel)
AutoModelForImageTextToText.register(MiniCPMVConfig, HandlensModel)
