"""Write vision tower and resampler as one ONNX graph: the patches of one slice in, its visual tokens out.

Boundary: numpy weights under the official names in, a file out; no torch. The graph is spelled node by node,
so it holds nothing that the model does not compute. Positions are inputs: ``core/patches.py`` makes them on
both sides.
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from jaxtyping import Float32
from onnx import TensorProto, helper, numpy_helper

from handlens.config import HandlensConfig

OPSET = 20
"""The first with Gelu as one node."""
IR_VERSION = 9
"""The file format that came with it."""

MOST_CHECKED_BYTES = 200_000_000
"""A larger graph is not checked: that takes two more copies of its weights."""

Weights = Mapping[str, Float32[np.ndarray, "..."]]


class GraphWriter:
    """Appends nodes; every method returns the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, values: np.ndarray) -> str:
        """Store a weight once."""
        return self.exact(name, values)

    def exact(self, name: str, values: np.ndarray) -> str:
        """Store numbers as they are, once."""
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(values), name)
        return name

    def node(self, kind: str, *inputs: str, to: str, **attributes: object) -> str:
        """Append a node of one result."""
        self.nodes.append(helper.make_node(kind, inputs, [to], name=to, **attributes))
        return to

    def linear(self, x: str, name: str, weight: np.ndarray, bias: np.ndarray | None) -> str:
        """Multiply by the transposed weight, as torch stores it, and add the bias."""
        product = self.node("MatMul", x, self.constant(f"{name}.weight", weight.T), to=f"{name}.product")
        return product if bias is None else self.node("Add", product, self.constant(f"{name}.bias", bias), to=name)

    def norm(self, x: str, name: str, weights: Weights, eps: float) -> str:
        """Normalise the last axis."""
        scale, shift = (self.constant(f"{name}.{part}", weights[f"{name}.{part}"]) for part in ("weight", "bias"))
        return self.node("LayerNormalization", x, scale, shift, to=name, axis=-1, epsilon=eps)

    def heads(self, x: str, name: str, num_heads: int, perm: tuple[int, int, int]) -> str:
        """Split channels into heads and order the axes (tokens 0, heads 1, channels 2) by ``perm``."""
        shape = self.constant(f"shape.{num_heads}.heads", np.array([0, num_heads, -1], dtype=np.int64))
        split = self.node("Reshape", x, shape, to=f"{name}.split")
        return self.node("Transpose", split, to=f"{name}.heads", perm=perm)

    def attend(self, q: str, k: str, v: str, name: str) -> str:
        """Attention of [heads, tokens, channels]; keys come as [heads, channels, tokens], queries already scaled."""
        scores = self.node("MatMul", q, k, to=f"{name}.scores")
        shares = self.node("Softmax", scores, to=f"{name}.shares", axis=-1)
        mixed = self.node("MatMul", shares, v, to=f"{name}.mixed")
        apart = self.node("Transpose", mixed, to=f"{name}.apart", perm=(1, 0, 2))
        return self.node(
            "Reshape", apart, self.constant("shape.joined", np.array([0, -1], dtype=np.int64)), to=f"{name}.joined"
        )


def write_vision(weights: Weights, config: HandlensConfig, out: Path, *, graph: GraphWriter | None = None) -> Path:
    """Write ``out``, for any number of patches, whole or not at all; ``graph`` may store weights in another way."""
    graph = graph or GraphWriter()
    x = _embed(graph, weights)
    for layer in range(config.vision.num_layers):
        x = _block(graph, x, f"vpm.encoder.layers.{layer}", weights, config)
    x = graph.norm(x, "vpm.post_layernorm", weights, config.vision.norm_eps)
    _resample(graph, x, weights, config)
    patch_values, dim = 3 * config.vision.patch_px**2, config.resampler.width
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "vision",
            [
                helper.make_tensor_value_info("patches", TensorProto.FLOAT, ["patches", patch_values]),
                helper.make_tensor_value_info("position_ids", TensorProto.INT64, ["patches"]),
                helper.make_tensor_value_info("key_positions", TensorProto.FLOAT, ["patches", dim]),
            ],
            [helper.make_tensor_value_info("visual_tokens", TensorProto.FLOAT, [config.resampler.num_queries, dim])],
            list(graph.constants.values()),
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="handlens",
    )
    if type(graph) is GraphWriter and sum(len(part.raw_data) for part in graph.constants.values()) < MOST_CHECKED_BYTES:
        onnx.checker.check_model(model)
    return save(model, out)


def _embed(graph: GraphWriter, weights: Weights) -> str:
    name = "vpm.embeddings"
    weight = weights[f"{name}.patch_embedding.weight"]
    projected = graph.linear(
        "patches", f"{name}.patch_embedding", weight.reshape(len(weight), -1), weights[f"{name}.patch_embedding.bias"]
    )
    table = graph.constant(f"{name}.position_embedding.weight", weights[f"{name}.position_embedding.weight"])
    positions = graph.node("Gather", table, "position_ids", to=f"{name}.position_embedding", axis=0)
    return graph.node("Add", projected, positions, to=name)


def _block(graph: GraphWriter, x: str, name: str, weights: Weights, config: HandlensConfig) -> str:
    """Pre-norm attention and MLP with residuals."""
    num_heads, eps = config.vision.num_heads, config.vision.norm_eps
    scale = (config.vision.width // num_heads) ** -0.5

    def project(x: str, part: str, factor: float = 1.0) -> str:
        weight, bias = weights[f"{name}.{part}.weight"], weights[f"{name}.{part}.bias"]
        return graph.linear(x, f"{name}.{part}", weight * np.float32(factor), bias * np.float32(factor))

    normed = graph.norm(x, f"{name}.layer_norm1", weights, eps)
    q, k, v = (
        graph.heads(project(normed, f"self_attn.{part}", factor), f"{name}.self_attn.{part}", num_heads, perm)
        for part, factor, perm in (
            ("q_proj", scale, (1, 0, 2)),
            ("k_proj", 1.0, (1, 2, 0)),
            ("v_proj", 1.0, (1, 0, 2)),
        )
    )
    mixed = project(graph.attend(q, k, v, f"{name}.self_attn"), "self_attn.out_proj")
    x = graph.node("Add", x, mixed, to=f"{name}.attended")
    wide = project(graph.norm(x, f"{name}.layer_norm2", weights, eps), "mlp.fc1")
    bent = graph.node("Gelu", wide, to=f"{name}.mlp.gelu", approximate="tanh")
    return graph.node("Add", x, project(bent, "mlp.fc2"), to=name)


def _resample(graph: GraphWriter, x: str, weights: Weights, config: HandlensConfig) -> str:
    """Cross-attention of the queries, which are known now, with the patches."""
    num_heads, eps = config.resampler.num_heads, config.resampler.norm_eps
    part_weights = dict(zip("qkv", np.split(weights["resampler.attn.in_proj_weight"], 3), strict=True))
    part_biases = dict(zip("qkv", np.split(weights["resampler.attn.in_proj_bias"], 3), strict=True))
    projected = graph.linear(x, "resampler.kv_proj", weights["resampler.kv_proj.weight"], None)
    values = graph.norm(projected, "resampler.ln_kv", weights, eps)
    keys = graph.node("Add", values, "key_positions", to="resampler.keys")
    queries = _fixed_queries(weights, config) @ part_weights["q"].T + part_biases["q"]
    queries = queries * np.float32((config.resampler.width // num_heads) ** -0.5)
    q = graph.constant("resampler.queries", queries.reshape(len(queries), num_heads, -1).transpose(1, 0, 2))
    k, v = (
        graph.heads(
            graph.linear(source, f"resampler.attn.{part}", part_weights[part], part_biases[part]),
            f"resampler.attn.{part}",
            num_heads,
            perm,
        )
        for part, source, perm in (("k", keys, (1, 2, 0)), ("v", values, (1, 0, 2)))
    )
    mixed = graph.attend(q, k, v, "resampler.attn")
    out_name = "resampler.attn.out_proj"
    out = graph.linear(mixed, out_name, weights[f"{out_name}.weight"], weights[f"{out_name}.bias"])
    normed = graph.norm(out, "resampler.ln_post", weights, eps)
    return graph.node("MatMul", normed, graph.constant("resampler.proj", weights["resampler.proj"]), to="visual_tokens")


def _fixed_queries(weights: Weights, config: HandlensConfig) -> Float32[np.ndarray, "queries dim"]:
    """Return the normalised queries, which no picture changes."""
    query = weights["resampler.query"].astype(np.float64)
    centred = query - query.mean(axis=-1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + config.resampler.norm_eps)
    normed = normed * weights["resampler.ln_q.weight"] + weights["resampler.ln_q.bias"]
    if config.resampler.query_positions:
        normed = normed + weights["resampler.pos_embed"]
    return normed.astype(np.float32)


def quantise_vision(graph: Path, out: Path) -> Path:
    """Write a variant whose weight matrices are 8-bit, one scale per output channel; activations stay float."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    unfinished = out.with_name(f".{out.name}.{os.getpid()}")
    quiet = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it advises a step that changes nothing in this graph
    try:
        # Unsigned weights: with signed ones the AVX2 kernel adds pairs in 16 bits and saturates. On random weights
        # at nano's size the root mean square error is 0.26 of the deviation signed and 0.02 unsigned.
        quantize_dynamic(
            graph, unfinished, op_types_to_quantize=["MatMul"], per_channel=True, weight_type=QuantType.QUInt8
        )
        _store_raw(unfinished)
        unfinished.replace(out)
    finally:
        logging.disable(quiet)
        unfinished.unlink(missing_ok=True)
    return out


def _store_raw(file: Path) -> None:
    """Store small integers as the large ones are, so that ``engine/signed_weights.py`` can change them in place."""
    model = onnx.load(str(file))
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.UINT8 and tensor.int32_data:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    onnx.save(model, str(file))


def save(model: onnx.ModelProto, out: Path) -> Path:
    """Write a graph whole or not at all."""
    unfinished = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        onnx.save(model, str(unfinished))
        unfinished.replace(out)
    finally:
        unfinished.unlink(missing_ok=True)
    return out
