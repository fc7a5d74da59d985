"""Write the language half as one ONNX graph with its cache: embeddings in, logits and new keys and values out.

Boundary: numpy weights under the names of transformers in, a file out; no torch. For places where llama.cpp does not
run, such as a browser. The caller keeps keys and values and hands them back, so one graph reads a prompt of any length
and continues it token by token.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from onnx import TensorProto, helper

from handlens.config import LanguageConfig
from handlens.errors import ModelError
from handlens.export.onnx import IR_VERSION, OPSET, GraphWriter, save
from handlens.export.packed import PackedGraph

Weights = Mapping[str, Float32[np.ndarray, "..."]]


def check_language(config: LanguageConfig) -> None:
    """Raise ``ModelError`` unless the model is a plain Llama."""
    is_scaled = config.scale_emb != 1.0 or config.scale_depth is not None or config.dim_model_base is not None
    if config.kind != "llama" or config.long_rope or is_scaled:
        what = "long rope factors" if config.long_rope else "scaled branches" if is_scaled else f"kind {config.kind}"
        raise ModelError(
            f"this language model has {what}; an ONNX language half is written for plain Llama models such as nano; "
            "use its GGUF file"
        )


def write_language(weights: Weights, config: LanguageConfig, out: Path, *, graph: GraphWriter | None = None) -> Path:
    """Write ``out`` whole or not at all; without ``graph`` the matrices are stored in 8 bits, in blocks of 32.

    Inputs: ``embeddings`` [tokens, width], ``positions`` [tokens] and per layer ``past.N.key``, ``past.N.value``
    [past, key width], positions 0 to past. Outputs: ``logits`` [1, vocab] after the last token, and per layer
    ``new.N.key``, ``new.N.value`` [tokens, key width], already rotated.

    Raises:
        ModelError: the model is of another kind.
    """
    check_language(config)
    graph = graph or PackedGraph("q8")
    later = _mask(graph)
    cosines, sines = _rotations(graph, config)
    x = "embeddings"
    for layer in range(config.num_layers):
        x = _block(graph, x, layer, weights, config, (cosines, sines, later))
    last = graph.node("Gather", x, graph.constant("place.last", np.array([-1], dtype=np.int64)), to="last", axis=0)
    normed = _rms(graph, last, "model.norm", weights, config.norm_eps)
    head = weights["model.embed_tokens.weight" if config.tied else "lm_head.weight"]
    graph.node("Identity", graph.linear(normed, "lm_head", head, None), to="logits")
    key_width = config.num_kv_heads * config.head_dim

    def cache(prefix: str, length: str) -> list[object]:
        return [
            helper.make_tensor_value_info(f"{prefix}.{layer}.{part}", TensorProto.FLOAT, [length, key_width])
            for layer in range(config.num_layers)
            for part in ("key", "value")
        ]

    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "language",
            [
                helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["tokens", config.width]),
                helper.make_tensor_value_info("positions", TensorProto.INT64, ["tokens"]),
                *cache("past", "past"),
            ],
            [
                helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, config.vocab_size]),
                *cache("new", "tokens"),
            ],
            list(graph.constants.values()),
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="handlens",
    )
    return save(model, out)


def _mask(graph: GraphWriter) -> str:
    """Return [tokens, past + tokens]: 0 where a token may look, -inf where the key comes later."""
    first = graph.constant("place.0", np.array([0], dtype=np.int64))
    zero, one = (graph.constant(f"number.{n}", np.array(n, dtype=np.int64)) for n in (0, 1))
    past = graph.node("Shape", "past.0.key", to="past.shape", end=1)
    fresh = graph.node("Shape", "positions", to="fresh.shape")
    total = graph.node("Squeeze", graph.node("Add", past, fresh, to="total.shape"), first, to="total")
    keys = graph.node("Range", zero, total, one, to="key_places")
    rows = graph.node("Unsqueeze", "positions", graph.constant("place.1", np.array([1], dtype=np.int64)), to="rows")
    is_later = graph.node("Greater", keys, rows, to="is_later")
    hidden, open_ = (graph.constant(f"number.{n}", np.array(n, dtype=np.float32)) for n in (-np.inf, 0.0))
    return graph.node("Where", is_later, hidden, open_, to="later")


def _rotations(graph: GraphWriter, config: LanguageConfig) -> tuple[str, str]:
    """Return cosines and sines [tokens, 1, half a head] of the positions."""
    rates = config.rope_theta ** -(np.arange(0, config.head_dim, 2) / config.head_dim)
    angles = (np.arange(config.max_positions)[:, None] * rates)[:, None]
    tables = (("cosines", np.cos(angles)), ("sines", np.sin(angles)))
    cosines, sines = (
        graph.node("Gather", graph.exact(f"table.{name}", table.astype(np.float32)), "positions", to=name, axis=0)
        for name, table in tables
    )
    return cosines, sines


def _rms(graph: GraphWriter, x: str, name: str, weights: Weights, eps: float) -> str:
    """Divide by the root mean square of the last axis."""
    axis = graph.constant("axis.last", np.array([-1], dtype=np.int64))
    square = graph.node("Mul", x, x, to=f"{name}.square")
    mean = graph.node("ReduceMean", square, axis, to=f"{name}.mean", keepdims=1)
    safe = graph.node("Add", mean, graph.constant("eps", np.array(eps, dtype=np.float32)), to=f"{name}.safe")
    normed = graph.node("Div", x, graph.node("Sqrt", safe, to=f"{name}.root"), to=f"{name}.normed")
    return graph.node("Mul", normed, graph.constant(f"{name}.weight", weights[f"{name}.weight"]), to=name)


def _block(
    graph: GraphWriter, x: str, layer: int, weights: Weights, config: LanguageConfig, tables: tuple[str, str, str]
) -> str:
    """Pre-norm attention and gated MLP with residuals."""
    name = f"model.layers.{layer}"

    def project(source: str, part: str) -> str:
        return graph.linear(source, f"{name}.{part}", weights[f"{name}.{part}.weight"], None)

    normed = _rms(graph, x, f"{name}.input_layernorm", weights, config.norm_eps)
    q, k, v = (project(normed, f"self_attn.{part}_proj") for part in "qkv")
    mixed = project(_attend(graph, (q, k, v), layer, config, tables), "self_attn.o_proj")
    x = graph.node("Add", x, mixed, to=f"{name}.attended")
    normed = _rms(graph, x, f"{name}.post_attention_layernorm", weights, config.norm_eps)
    gate = project(normed, "mlp.gate_proj")
    open_ = graph.node("Mul", gate, graph.node("Sigmoid", gate, to=f"{name}.mlp.sigmoid"), to=f"{name}.mlp.silu")
    wide = graph.node("Mul", open_, project(normed, "mlp.up_proj"), to=f"{name}.mlp.wide")
    return graph.node("Add", x, project(wide, "mlp.down_proj"), to=name)


def _attend(
    graph: GraphWriter, qkv: tuple[str, str, str], layer: int, config: LanguageConfig, tables: tuple[str, str, str]
) -> str:
    """Attention over the past and the new tokens; heads that share keys are rows of one product."""
    heads, kv_heads, channels = config.num_heads, config.num_kv_heads, config.head_dim
    name = f"model.layers.{layer}.attention"
    cosines, sines, later = tables

    def shape(x: str, to: str, *lengths: int) -> str:
        known = graph.constant("shape." + ".".join(map(str, lengths)), np.array(lengths, dtype=np.int64))
        return graph.node("Reshape", x, known, to=f"{name}.{to}")

    def rotate(x: str, to: str) -> str:
        """Turn the two halves of every head by the angle of the position."""
        half = graph.constant("half", np.array([channels // 2] * 2, dtype=np.int64))
        left, right = f"{name}.{to}.left", f"{name}.{to}.right"
        graph.nodes.append(helper.make_node("Split", [x, half], [left, right], name=f"{name}.{to}.split", axis=-1))
        parts = []
        for part, own, other, sign in (("first", left, right, "Sub"), ("second", right, left, "Add")):
            turned = graph.node("Mul", own, cosines, to=f"{name}.{to}.{part}.cos")
            crossed = graph.node("Mul", other, sines, to=f"{name}.{to}.{part}.sin")
            parts.append(graph.node(sign, turned, crossed, to=f"{name}.{to}.{part}"))
        return graph.node("Concat", *parts, to=f"{name}.{to}", axis=-1)

    q = rotate(shape(qkv[0], "q.heads", -1, heads, channels), "q")
    factor = graph.constant("scale", np.array(channels**-0.5, dtype=np.float32))
    q = shape(
        graph.node("Mul", q, factor, to=f"{name}.q.scaled"), "q.groups", -1, kv_heads, heads // kv_heads, channels
    )
    q = graph.node("Transpose", q, to=f"{name}.q.turned", perm=(1, 2, 0, 3))
    q = shape(q, "q.rows", kv_heads, -1, channels)
    fresh = rotate(shape(qkv[1], "k.heads", -1, kv_heads, channels), "k")
    flat = graph.constant(f"shape.-1.{kv_heads * channels}", np.array([-1, kv_heads * channels], dtype=np.int64))
    sides = {
        "key": graph.node("Reshape", fresh, flat, to=f"new.{layer}.key"),
        "value": graph.node("Identity", qkv[2], to=f"new.{layer}.value"),
    }
    k, v = (
        graph.node(
            "Transpose",
            shape(graph.node("Concat", f"past.{layer}.{side}", new, to=f"{name}.{side}", axis=0), f"{side}.heads",
                  -1, kv_heads, channels),
            to=f"{name}.{side}.turned", perm=perm,
        )
        for (side, new), perm in zip(sides.items(), ((1, 2, 0), (1, 0, 2)), strict=True)
    )  # fmt: skip
    scores = graph.node("MatMul", q, k, to=f"{name}.scores")
    # [key heads, group * tokens, keys] and [heads, tokens, keys] are the same numbers in the same order.
    counts = graph.node("Shape", later, to=f"{name}.counts")
    by_head = graph.node(
        "Concat", graph.constant(f"count.{heads}", np.array([heads], dtype=np.int64)), counts,
        to=f"{name}.by_head", axis=0,
    )  # fmt: skip
    seen = graph.node("Add", graph.node("Reshape", scores, by_head, to=f"{name}.apart"), later, to=f"{name}.seen")
    shares = graph.node("Softmax", seen, to=f"{name}.shares", axis=-1)
    grouped = graph.node(
        "Reshape", shares, graph.node("Shape", scores, to=f"{name}.grouped"), to=f"{name}.shares.grouped"
    )
    mixed = shape(graph.node("MatMul", grouped, v, to=f"{name}.mixed"), "mixed.heads", heads, -1, channels)
    turned = graph.node("Transpose", mixed, to=f"{name}.mixed.turned", perm=(1, 0, 2))
    return shape(turned, "joined", -1, heads * channels)
