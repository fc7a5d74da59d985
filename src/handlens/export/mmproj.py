"""Write vision tower and resampler as the ``mmproj`` file of llama.cpp.

Boundary: numpy weights under the official names in, one GGUF file out; no torch. Families 2.5, 2.6, 4.0, 4.5 and nano:
llama.cpp has no vision part for 1.0 and 2.0, and that of 4.6 is not written here.
"""

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

import gguf
import numpy as np

from handlens.config import HandlensConfig
from handlens.core.patches import key_positions
from handlens.errors import ModelError
from handlens.export.stream import Planned, write_planned

VERSIONS = {"2.5": 2, "2.6": 3, "4.0": 5, "nano": 5, "4.5": 6}
"""Family -> ``clip.minicpmv_version``."""
KINDS = {"F32": 0, "F16": 1}
"""Types of the weight matrices -> ``general.file_type``."""

IN_LAYER = {
    "layer_norm1": "ln1",
    "layer_norm2": "ln2",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_out",
    # Older files have these two exchanged, and the loader exchanges them back where it sees that.
    "mlp.fc1": "ffn_down",
    "mlp.fc2": "ffn_up",
}
RESAMPLER = {
    "resampler.kv_proj": "resampler.kv",
    "resampler.attn.out_proj": "resampler.attn.out",
    "resampler.ln_q": "resampler.ln_q",
    "resampler.ln_kv": "resampler.ln_kv",
    "resampler.ln_post": "resampler.ln_post",
}


def check_family(config: HandlensConfig) -> None:
    """Raise ``ModelError`` unless llama.cpp can see with this family."""
    if config.family not in VERSIONS:
        raise ModelError(
            f"family {config.family} has no vision part for llama.cpp here; mmproj files are written for: "
            f"{', '.join(sorted(VERSIONS))}"
        )


def write_mmproj(weights: Mapping[str, np.ndarray], config: HandlensConfig, out: Path, *, kind: str = "F16") -> Path:
    """Write ``out`` whole or not at all.

    Args:
        weights: official names, ``vpm.*`` and ``resampler.*``, widened to float32.
        config: shape and family of the model.
        out: the file to write.
        kind: one of ``KINDS``; the patch projection is F16 in both, as llama.cpp reads it.

    Raises:
        ModelError: llama.cpp has no vision part for this family.
    """
    check_family(config)
    return write_planned(out, "clip", lambda writer: _add_keys(writer, config, kind), _tensors(weights, config, kind))


def _add_keys(writer: gguf.GGUFWriter, config: HandlensConfig, kind: str) -> None:
    vision = config.vision
    writer.add_description("vision tower and resampler of MiniCPM-V")
    writer.add_file_type(KINDS[kind])
    writer.add_bool("clip.has_text_encoder", False)
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_bool("clip.has_minicpmv_projector", True)
    writer.add_string("clip.projector_type", "resampler")
    writer.add_int32("clip.minicpmv_version", VERSIONS[config.family])
    writer.add_uint32("clip.minicpmv_query_num", config.resampler.num_queries)
    writer.add_uint32("clip.vision.image_size", config.slicing.side_px)  # the side of a slice, not of the table
    writer.add_uint32("clip.vision.patch_size", vision.patch_px)
    writer.add_uint32("clip.vision.embedding_length", vision.width)
    writer.add_uint32("clip.vision.feed_forward_length", vision.mlp_width)
    writer.add_uint32("clip.vision.projection_dim", 0)
    writer.add_uint32("clip.vision.attention.head_count", vision.num_heads)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", vision.norm_eps)
    writer.add_uint32("clip.vision.block_count", vision.num_layers)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    writer.add_bool("clip.use_gelu", True)


def tensor_names(config: HandlensConfig) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Yield GGUF name, official name and shape of every tensor that is copied as it is."""
    vision, width, mlp = config.vision, config.vision.width, config.vision.mlp_width
    patch = "vpm.embeddings.patch_embedding"
    yield "v.patch_embd.weight", f"{patch}.weight", (width, 3, vision.patch_px, vision.patch_px)
    yield "v.patch_embd.bias", f"{patch}.bias", (width,)
    yield "v.position_embd.weight", "vpm.embeddings.position_embedding.weight", (vision.table_side**2, width)
    for layer in range(vision.num_layers):
        for theirs, ours in IN_LAYER.items():
            rows, columns = {"mlp.fc1": (mlp, width), "mlp.fc2": (width, mlp)}.get(theirs, (width, width))
            shape = (width,) if "norm" in theirs else (rows, columns)
            yield f"v.blk.{layer}.{ours}.weight", f"vpm.encoder.layers.{layer}.{theirs}.weight", shape
            yield f"v.blk.{layer}.{ours}.bias", f"vpm.encoder.layers.{layer}.{theirs}.bias", (rows,)
    for part in ("weight", "bias"):
        yield f"v.post_ln.{part}", f"vpm.post_layernorm.{part}", (width,)
    dim = config.resampler.width
    yield "resampler.query", "resampler.query", (config.resampler.num_queries, dim)
    for theirs, ours in RESAMPLER.items():
        shape = {"resampler.kv": (dim, width), "resampler.attn.out": (dim, dim)}.get(ours, (dim,))
        yield f"{ours}.weight", f"{theirs}.weight", shape
        if ours != "resampler.kv":
            yield f"{ours}.bias", f"{theirs}.bias", (dim,)


def _tensors(weights: Mapping[str, np.ndarray], config: HandlensConfig, kind: str) -> list[Planned]:
    """Return every tensor in the order of the computation; the values are asked for when they are written."""
    planned = [
        Planned(ours, shape, _kind(ours, shape, kind), functools.partial(weights.__getitem__, theirs))
        for ours, theirs, shape in tensor_names(config)
    ]
    dim = config.resampler.width
    for place, part in enumerate("qkv"):
        rows = slice(place * dim, (place + 1) * dim)
        for end, shape in (("weight", (dim, dim)), ("bias", (dim,))):
            planned.append(
                Planned(
                    f"resampler.attn.{part}.{end}",
                    shape,
                    _kind(f"{part}.{end}", shape, kind),
                    functools.partial(_part, weights, f"resampler.attn.in_proj_{end}", rows),
                )
            )
    # The official projection is used as x @ proj; llama.cpp multiplies by the transposed weight.
    planned.append(
        Planned("resampler.proj.weight", (dim, dim), kind, lambda: np.ascontiguousarray(weights["resampler.proj"].T))
    )
    side = config.vision.table_side
    planned.append(  # the loader asks for it; the graph computes it anew
        Planned("resampler.pos_embed_k", (side * side, dim), "F32", lambda: key_positions(side, side, dim))
    )
    return planned


def _part(weights: Mapping[str, np.ndarray], name: str, rows: slice) -> np.ndarray:
    """Return the rows of queries, keys or values, which are stored as one."""
    return weights[name][rows]


def _kind(name: str, shape: tuple[int, ...], kind: str) -> str:
    if len(shape) == 4:
        return "F16"
    return kind if len(shape) == 2 and name.endswith(".weight") else "F32"
