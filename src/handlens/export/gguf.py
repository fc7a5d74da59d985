"""Write the language half as a GGUF file that stock llama.cpp runs.

Boundary: numpy weights under the names of transformers, one ``tokenizer.json``; no torch, no vision.
"""

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

import gguf
import numpy as np
from jaxtyping import Float32

from handlens.config import LanguageConfig
from handlens.errors import ModelError
from handlens.export.importance import Importance
from handlens.export.mixes import MIXES, Stack, check_quant, choose_kind, is_largest_llama
from handlens.export.stream import Planned, Progress, Rows, write_planned
from handlens.export.vocabulary import Vocabulary, add_vocabulary, read_vocabulary, unnamed_vocabulary

QUANTS = {name: mix.number for name, mix in MIXES.items()}
"""Names a user can ask for, with the number of ``enum llama_ftype``."""
ARCHITECTURES = ("llama", "minicpm", "qwen2", "qwen3")
"""Kinds of language model that are written; llama.cpp uses the same names."""
INTERLEAVED = ("llama", "minicpm")
"""Graphs that rotate neighbouring channels; transformers rotates halves."""
MOST_UNNAMED_SHARE = 0.05
"""Released checkpoints have a few embedding rows without a token; more than this share is another tokeniser."""

_IN_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_NORMS_OF_HEADS = {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}


def write_gguf(
    weights: Mapping[str, Rows],
    config: LanguageConfig,
    tokenizer_file: Path | None,
    out: Path,
    *,
    quant: str = "Q8_0",
    name: str = "handlens",
    marks: Mapping[str, int] | None = None,
    importance: Importance | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write ``out`` whole or not at all.

    Args:
        weights: ``model.embed_tokens.weight``, ``model.layers.0...``, ``lm_head.weight`` (ignored if tied); each is
            asked for once, when it is written.
        config: shape of the language model.
        tokenizer_file: ``tokenizer.json`` of the model. None writes a file that takes ids and no text.
        out: the file to write.
        quant: one of ``QUANTS``.
        name: shown by llama.cpp.
        marks: ids of ``<image>`` and the like where there is no tokeniser.
        importance: how much an error of each input of a matrix counts; None weighs all alike.
        progress: told how far it is.

    Raises:
        SettingError: unknown ``quant``.
        ModelError: the tokeniser cannot be written or belongs to another model, or llama.cpp gets no such kind here.
    """
    check_quant(quant)
    check_kind(config)
    vocabulary = fit_vocabulary(tokenizer_file, config.vocab_size, marks)

    def add_keys(writer: gguf.GGUFWriter) -> None:
        add_shape(writer, config, QUANTS[quant], name)
        add_vocabulary(writer, vocabulary)
        if importance:
            importance.add_keys(writer)

    return write_planned(out, config.kind, add_keys, plan_tensors(weights, config, quant, importance), progress)


def check_kind(config: LanguageConfig) -> None:
    """Raise ``ModelError`` unless the kind of language model is one of ``ARCHITECTURES``."""
    if config.kind not in ARCHITECTURES:
        raise ModelError(
            f"a language model of kind {config.kind} is not exported here; GGUF is written for: "
            f"{', '.join(ARCHITECTURES)}; use llama.cpp's own converter for this one"
        )


def fit_vocabulary(tokenizer_file: Path | None, rows: int, marks: Mapping[str, int] | None = None) -> Vocabulary:
    """Return a vocabulary with one entry per embedding row.

    Raises:
        ModelError: the tokeniser belongs to another model.
    """
    if tokenizer_file is None:
        return unnamed_vocabulary(rows, marks)
    vocabulary = read_vocabulary(tokenizer_file)
    unnamed = rows - len(vocabulary.tokens)
    if not 0 <= unnamed <= rows * MOST_UNNAMED_SHARE:
        raise ModelError(
            f"{tokenizer_file} has {len(vocabulary.tokens)} ids but the model has {rows} rows; "
            "take the tokenizer.json that was trained with it"
        )
    return vocabulary.grown(rows)


def add_shape(writer: gguf.GGUFWriter, config: LanguageConfig, file_type: int, name: str) -> None:
    """Write every key of the shape; hazards of single families are named where they are met."""
    writer.add_name(name)
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(config.max_positions)
    writer.add_embedding_length(config.width)
    writer.add_block_count(config.num_layers)
    writer.add_feed_forward_length(config.mlp_width)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    if config.kind in ("llama", "qwen3"):
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    if config.kind == "llama":
        writer.add_vocab_size(config.vocab_size)
        writer.add_rope_dimension_count(config.head_dim)
    if config.kind == "minicpm":
        # Always written: the loader's own logit scale is the inverse of what its graph divides by.
        writer.add_embedding_scale(config.scale_emb)
        writer.add_residual_scale(config.residual_scale)
        writer.add_logit_scale(config.logit_divisor)
    if config.long_rope:
        # Type and factors belong together: with the type alone the graph rotates as if there were no factors.
        writer.add_rope_scaling_type(gguf.RopeScalingType.LONGROPE)
        writer.add_rope_scaling_orig_ctx_len(config.long_rope.original_positions)


def plan_tensors(
    weights: Mapping[str, Rows], config: LanguageConfig, quant: str, importance: Importance | None = None
) -> list[Planned]:
    """Return every tensor in the order of the computation; a value is asked for when it is written."""
    mix = MIXES[quant]
    stack = Stack(
        num_layers=config.num_layers,
        is_tied=config.tied,
        is_largest_llama=is_largest_llama(config.kind, config.num_layers, config.num_heads, config.num_kv_heads),
        is_weighted=importance is not None,
    )
    planned = [
        Planned(
            ours,
            shape,
            choose_kind(ours, shape, mix, stack),
            functools.partial(_value, weights, theirs, config),
            importance.of(ours, shape) if importance else None,
        )
        for ours, theirs, shape in tensor_names(config)
    ]
    if config.long_rope:
        for part, factors in (("long", config.long_rope.long), ("short", config.long_rope.short)):
            values = np.asarray(factors, dtype=np.float32)
            planned.append(Planned(f"rope_factors_{part}.weight", values.shape, "F32", values.copy))
    return planned


def tensor_names(config: LanguageConfig) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Yield GGUF name, name in transformers, and shape of every tensor."""
    width, head = config.width, config.head_dim
    rows = {
        "attn_q": config.num_heads * head, "attn_k": config.num_kv_heads * head, "attn_v": config.num_kv_heads * head,
        "ffn_gate": config.mlp_width, "ffn_up": config.mlp_width,
    }  # fmt: skip
    columns = {"attn_output": config.num_heads * head, "ffn_down": config.mlp_width}
    yield "token_embd.weight", "model.embed_tokens.weight", (config.vocab_size, width)
    for layer in range(config.num_layers):
        for theirs, ours in _IN_LAYER.items():
            shape = (width,) if ours.endswith("norm") else (rows.get(ours, width), columns.get(ours, width))
            yield f"blk.{layer}.{ours}.weight", f"model.layers.{layer}.{theirs}.weight", shape
            if config.kind == "qwen2" and ours in ("attn_q", "attn_k", "attn_v"):
                yield f"blk.{layer}.{ours}.bias", f"model.layers.{layer}.{theirs}.bias", shape[:1]
        if config.kind == "qwen3":
            for theirs, ours in _NORMS_OF_HEADS.items():
                yield f"blk.{layer}.{ours}.weight", f"model.layers.{layer}.{theirs}.weight", (head,)
    yield "output_norm.weight", "model.norm.weight", (width,)
    if not config.tied:
        yield "output.weight", "lm_head.weight", (config.vocab_size, width)


def _value(weights: Mapping[str, Rows], name: str, config: LanguageConfig) -> Rows:
    """Return a weight with its rows in the order of llama.cpp."""
    values = weights[name]
    if config.kind in INTERLEAVED and name.endswith(("q_proj.weight", "k_proj.weight")):
        return interleave(values[:], config.num_heads if "q_proj" in name else config.num_kv_heads)
    return values


def interleave(values: Float32[np.ndarray, "rows columns"], num_heads: int) -> Float32[np.ndarray, "rows columns"]:
    """Reorder the rows of a query or key projection.

    transformers rotates channel i with i + half; llama.cpp's ``llama`` graph rotates neighbours.
    """
    rows, columns = values.shape
    return values.reshape(num_heads, 2, rows // num_heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
