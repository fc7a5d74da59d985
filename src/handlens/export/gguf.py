"""Write the language half as a GGUF file that stock llama.cpp runs.

Boundary: numpy weights under the names of transformers' Llama, one ``tokenizer.json``; no torch, no vision.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from jaxtyping import Float32
from tokenizers import Tokenizer as FastTokenizer

from handlens.config import LanguageConfig
from handlens.engine.llama import ROW_BLOCKS, quantise_rows
from handlens.errors import ModelError, SettingError, did_you_mean
from handlens.train.vocabulary import LLAMA_BPE

QUANTS = {"F32": 0, "F16": 1, "BF16": 32, "Q8_0": 7, "Q4_K_M": 15}
"""Names a user can ask for, with the number of ``enum llama_ftype``."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""ChatML in the form llama.cpp recognises; it is written where ``<|im_end|>`` exists."""

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
_FALLBACK = {"Q4_K": "Q5_0", "Q6_K": "Q8_0"}


def check_quant(quant: str) -> None:
    """Raise ``SettingError`` unless the name is one of ``QUANTS``."""
    if quant not in QUANTS:
        raise SettingError(f"unknown quantisation '{quant}'{did_you_mean(quant, QUANTS)}")


def write_gguf(
    weights: Mapping[str, Float32[np.ndarray, "..."]],
    config: LanguageConfig,
    tokenizer_file: Path,
    out: Path,
    *,
    quant: str = "Q8_0",
    name: str = "handlens",
) -> Path:
    """Write ``out`` whole or not at all.

    Args:
        weights: ``model.embed_tokens.weight``, ``model.layers.0...``, ``lm_head.weight`` (ignored if tied).
        config: shape of the language model.
        tokenizer_file: ``tokenizer.json`` with as many ids as the embeddings have rows.
        out: the file to write.
        quant: one of ``QUANTS``.
        name: shown by llama.cpp.

    Raises:
        SettingError: unknown ``quant``.
        ModelError: the tokeniser cannot be written, or belongs to another model.
    """
    check_quant(quant)
    vocabulary = read_vocabulary(tokenizer_file)
    rows = len(weights["model.embed_tokens.weight"])
    if len(vocabulary.tokens) != rows:
        raise ModelError(
            f"{tokenizer_file} has {len(vocabulary.tokens)} ids but the model has {rows} rows; "
            "take the tokenizer.json that was trained with it"
        )
    unfinished = out.with_name(f".{out.name}.{os.getpid()}")
    writer = gguf.GGUFWriter(unfinished, "llama")
    try:
        _add_shape(writer, config, quant, name)
        _add_vocabulary(writer, vocabulary)
        for tensor, values, kind in _tensors(weights, config, quant):
            encoded = _encode(values, kind)
            writer.add_tensor(tensor, encoded, raw_dtype=gguf.GGMLQuantizationType[kind])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        unfinished.replace(out)
    finally:
        unfinished.unlink(missing_ok=True)
    return out


def _add_shape(writer: gguf.GGUFWriter, config: LanguageConfig, quant: str, name: str) -> None:
    writer.add_name(name)
    writer.add_file_type(QUANTS[quant])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_positions)
    writer.add_embedding_length(config.width)
    writer.add_block_count(config.num_layers)
    writer.add_feed_forward_length(config.mlp_width)
    writer.add_head_count(config.num_heads)
    writer.add_head_count_kv(config.num_kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.norm_eps)


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """A byte-level BPE as GGUF stores it."""

    tokens: list[str]
    types: list[int]
    merges: list[str]


def read_vocabulary(tokenizer_file: Path) -> Vocabulary:
    """Read a ``tokenizer.json`` whose word rule llama.cpp knows as ``llama-bpe``.

    Raises:
        ModelError: another kind of tokeniser, ids with gaps, or merges that llama.cpp would read otherwise.
    """
    fields = json.loads(tokenizer_file.read_text(encoding="utf-8"))
    model = fields["model"]
    if model.get("type") != "BPE" or LLAMA_BPE not in _word_rules(fields):
        raise ModelError(
            f"{tokenizer_file} does not split words as 'llama-bpe' does; GGUF export writes only that kind"
        )
    ids = dict(model["vocab"])
    types = dict.fromkeys(ids.values(), gguf.TokenType.NORMAL)
    for added in fields["added_tokens"]:
        ids[added["content"]] = added["id"]
        types[added["id"]] = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
    by_id = {number: token for token, number in ids.items()}
    if sorted(by_id) != list(range(len(ids))):
        raise ModelError(f"{tokenizer_file} has {len(ids)} tokens but its ids are not 0 to {len(ids) - 1}")
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    if not model.get("ignore_merges"):
        _check_merges(tokenizer_file, {token for token, number in ids.items() if types[number] == 1})
    return Vocabulary(
        tokens=[by_id[number] for number in range(len(ids))],
        types=[int(types[number]) for number in range(len(ids))],
        merges=merges,
    )


def _word_rules(fields: dict) -> list[str]:
    """Return the word rules of the pre-tokeniser."""
    stage = fields.get("pre_tokenizer") or {}
    stages = stage.get("pretokenizers", [stage])
    return [str(part["pattern"].get("Regex")) for part in stages if part.get("type") == "Split"]


def _check_merges(tokenizer_file: Path, tokens: set[str]) -> None:
    """Refuse a token that merging does not reach: llama.cpp takes a whole word from the list before it merges."""
    fast = FastTokenizer.from_file(str(tokenizer_file))
    for token in sorted(tokens):
        text = fast.decoder.decode([token])
        words = fast.pre_tokenizer.pre_tokenize_str(text)
        found = fast.encode(text, add_special_tokens=False).tokens
        if len(words) == 1 and words[0][0] == token and found != [token]:
            raise ModelError(
                f"{tokenizer_file}: the token {token!r} is read as {found} here and as one token by llama.cpp; "
                "set ignore_merges in its model"
            )


def _add_vocabulary(writer: gguf.GGUFWriter, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    writer.add_token_merges(vocabulary.merges)
    writer.add_add_bos_token(False)
    if "<|im_end|>" in vocabulary.tokens:
        writer.add_eos_token_id(vocabulary.tokens.index("<|im_end|>"))
        writer.add_chat_template(CHAT_TEMPLATE)
    if "<|endoftext|>" in vocabulary.tokens:
        writer.add_pad_token_id(vocabulary.tokens.index("<|endoftext|>"))


def _tensors(
    weights: Mapping[str, np.ndarray], config: LanguageConfig, quant: str
) -> Iterator[tuple[str, np.ndarray, str]]:
    """Yield name, values and type of every tensor, in the order of the computation."""
    yield _typed("token_embd", weights["model.embed_tokens.weight"], config, quant)
    for layer in range(config.num_layers):
        for theirs, ours in _IN_LAYER.items():
            values = weights[f"model.layers.{layer}.{theirs}.weight"]
            if ours in ("attn_q", "attn_k"):
                values = interleave(values, config.num_heads if ours == "attn_q" else config.num_kv_heads)
            yield _typed(f"blk.{layer}.{ours}", values, config, quant)
    yield _typed("output_norm", weights["model.norm.weight"], config, quant)
    if not config.tied:
        yield _typed("output", weights["lm_head.weight"], config, quant)


def interleave(values: Float32[np.ndarray, "rows columns"], num_heads: int) -> Float32[np.ndarray, "rows columns"]:
    """Reorder the rows of a query or key projection.

    transformers rotates channel i with i + half; llama.cpp's ``llama`` graph rotates neighbours.
    """
    rows, columns = values.shape
    return values.reshape(num_heads, 2, rows // num_heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _typed(name: str, values: np.ndarray, config: LanguageConfig, quant: str) -> tuple[str, np.ndarray, str]:
    kind = "F32" if values.ndim == 1 else fit_row(tensor_type(name, config, quant), values.shape[-1])
    return f"{name}.weight", values, kind


def tensor_type(name: str, config: LanguageConfig, quant: str) -> str:
    """Return the type of one weight matrix; Q4_K_M gives the sensitive ones more bits, as llama.cpp does.

    Source: llama.cpp, ``llama_tensor_get_type``.

    >>> shape = LanguageConfig(num_layers=8)
    >>> [tensor_type(f"blk.{layer}.ffn_down", shape, "Q4_K_M") for layer in range(4)]
    ['Q6_K', 'Q4_K', 'Q4_K', 'Q6_K']
    """
    if quant != "Q4_K_M":
        return quant
    if name == "output" or (name == "token_embd" and config.tied):
        return "Q6_K"
    kind = name.rpartition(".")[2]
    if kind in ("attn_v", "ffn_down"):
        layer, layers = int(name.split(".")[1]), config.num_layers
        if layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2:
            return "Q6_K"
    return "Q4_K"


def fit_row(kind: str, columns: int) -> str:
    """Return the type, or the one llama.cpp falls back to where rows do not fill its blocks.

    >>> fit_row("Q4_K", 512), fit_row("Q4_K", 96), fit_row("Q6_K", 96), fit_row("Q8_0", 40)
    ('Q4_K', 'Q5_0', 'Q8_0', 'F16')
    """
    if kind not in ROW_BLOCKS or columns % ROW_BLOCKS[kind][0] == 0:
        return kind
    smaller = _FALLBACK.get(kind, kind)
    return smaller if columns % ROW_BLOCKS[smaller][0] == 0 else "F16"


def _encode(values: np.ndarray, kind: str) -> np.ndarray:
    values = np.ascontiguousarray(values, dtype=np.float32)
    if kind in ROW_BLOCKS:
        return quantise_rows(values, kind)
    return gguf.quants.quantize(values, gguf.GGMLQuantizationType[kind])
