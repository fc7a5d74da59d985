"""The MiniCPM language model of 1.0 and 2.0: a Llama whose embeddings, branches and logits are scaled.

Boundary: weight names and shapes are those of a Llama; the three scales come from the configuration.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from handlens.config import LanguageConfig


class ScaledEmbedding(nn.Embedding):
    """Word embeddings times ``scale_emb``; visual tokens are put beside them unscaled."""

    scale = 1.0

    def forward(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens dim"]:
        """Return scaled embeddings."""
        return super().forward(ids) * self.scale


class ScaledHead(nn.Linear):
    """Logits of hidden states divided by ``width / dim_model_base``."""

    divisor = 1.0

    def forward(self, hidden: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows vocab"]:
        """Return logits."""
        return F.linear(hidden / self.divisor, self.weight)


class ScaledLayer(LlamaDecoderLayer):
    """A Llama layer whose two branches are multiplied by ``scale_depth / sqrt(layers)``."""

    scale = 1.0

    def forward(
        self, hidden_states: Float[Tensor, "batch tokens dim"], **kwargs: Any
    ) -> Float[Tensor, "batch tokens dim"]:
        """One transformer layer."""
        mixed, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **kwargs)
        hidden_states = hidden_states + mixed * self.scale
        return hidden_states + self.mlp(self.post_attention_layernorm(hidden_states)) * self.scale


class MiniCPMForCausalLM(LlamaForCausalLM):
    """MiniCPM-2.4B's architecture (arXiv 2404.06395, section 4; scales of the tensor program kind)."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.model.embed_tokens = ScaledEmbedding(config.vocab_size, config.hidden_size)
        self.model.layers = nn.ModuleList(ScaledLayer(config, number) for number in range(config.num_hidden_layers))
        self.lm_head = ScaledHead(config.hidden_size, config.vocab_size, bias=False)
        with torch.no_grad():
            self.post_init()

    def set_scales(self, config: LanguageConfig) -> None:
        """Take the three scales from the configuration."""
        self.model.embed_tokens.scale = config.scale_emb
        self.lm_head.divisor = config.logit_divisor
        for layer in self.model.layers:
            layer.scale = config.residual_scale
