"""The language model: stock classes of transformers, built from our configuration.

Boundary: ``minicpm.py`` has the one kind that transformers lacks.
"""

from typing import Any

from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from handlens.config import LanguageConfig
from handlens.model.minicpm import MiniCPMForCausalLM

KINDS: dict[str, tuple[type, type, dict[str, Any]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM, {"attention_bias": False, "mlp_bias": False}),
    "minicpm": (LlamaConfig, MiniCPMForCausalLM, {"attention_bias": False, "mlp_bias": False}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {"use_sliding_window": False}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"attention_bias": False, "use_sliding_window": False}),
}
"""Classes and fixed settings of every kind of language model that we build."""


def build_language(config: LanguageConfig) -> PreTrainedModel:
    """Return a freshly initialised decoder of the given kind and shape."""
    settings, model, fixed = KINDS[config.kind]
    language = model(
        settings(
            vocab_size=config.vocab_size,
            hidden_size=config.width,
            intermediate_size=config.mlp_width,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            max_position_embeddings=config.max_positions,
            rms_norm_eps=config.norm_eps,
            rope_parameters=_rope(config),
            tie_word_embeddings=config.tied,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=None,
            attn_implementation="sdpa",
            **fixed,
        )
    )
    if config.kind == "minicpm":
        language.set_scales(config)
    return language


def _rope(config: LanguageConfig) -> dict[str, Any]:
    if (rope := config.long_rope) is None:
        return {"rope_type": "default", "rope_theta": config.rope_theta}
    return {
        "rope_type": "longrope",
        "rope_theta": config.rope_theta,
        "short_factor": list(rope.short),
        "long_factor": list(rope.long),
        "original_max_position_embeddings": rope.original_positions,
        "factor": rope.factor or config.max_positions / rope.original_positions,
    }
