"""Read a prompt with OpenVINO and hand keys and values to llama.cpp, which continues.

Boundary: one GGUF file and rows of embeddings in, keys and values out. The weights are those of the file, stored anew
in 8 bits once and kept on disk. One layer is in memory at a time, so the peak hardly grows. OpenVINO multiplies by
8-bit weights with VNNI or AMX, where the llama.cpp of the wheel knows AVX2.
"""

import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Float32

from handlens.engine import llama
from handlens.engine.gguf_header import Header
from handlens.engine.say import say_once
from handlens.errors import ModelError, NeedsExtra

if TYPE_CHECKING:
    import openvino

FORM = 1
"""Raise it when the stored layers change."""
GROUP = 128
"""Columns that share a scale; a multiple of what the widest processors multiply at once."""
SMALL_GROUP = 32
"""For Q8_0, whose own groups these are, and where a row is no multiple of ``GROUP``."""
FLOATS = frozenset({"F32", "F16", "BF16"})
PLAIN = frozenset(
    {f"{part}.weight" for part in ("attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate",
                                   "ffn_up", "ffn_down")}
    | {"token_embd.weight", "output_norm.weight", "output.weight"}
)  # fmt: skip
"""Tensors of a plain Llama, without the number of the layer."""


class OpenVinoPrefill:
    """Computes keys and values of a prompt that begins a conversation.

    Args:
        file: the GGUF file.
        header: of that file.
        threads: of the processor.
        stored: type of the keys and values that come out.

    Raises:
        NeedsExtra: the package openvino is missing.
        ModelError: the model is not a plain Llama.
    """

    def __init__(self, file: Path, header: Header, *, threads: int, stored: type = np.float16) -> None:
        try:
            import openvino
        except ModuleNotFoundError:
            raise NeedsExtra("reading prompts with OpenVINO", "openvino") from None
        check_plain(header)
        self._file, self._header, self._stored = file, header, stored
        self._core = openvino.Core()
        self._settings = {
            "INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False, "INFERENCE_PRECISION_HINT": "f32",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": GROUP,
        }  # fmt: skip
        self._heads = header.number("attention.head_count")
        self._kv_heads = header.number("attention.head_count_kv", self._heads)
        self._channels = header.number("attention.key_length", header.number("embedding_length") // self._heads)
        self._num_layers = header.number("block_count")

    def read(
        self, rows: Float32[np.ndarray, "tokens dim"]
    ) -> tuple[list[Float[np.ndarray, "tokens columns"]], list[Float[np.ndarray, "tokens columns"]]]:
        """Return rotated keys and values of every layer, channels in the order of the GGUF weights."""
        folder = self.prepare()
        cos, sin = self._rotations(len(rows))
        keys, values = [], []
        x = rows
        for layer in range(self._num_layers):
            request = self._core.compile_model(folder / f"{layer}.xml", "CPU", self._settings).create_infer_request()
            out = request.infer({"x": x, "cos": cos, "sin": sin}, share_inputs=True)
            keys.append(self._as_stored(out["key"]))
            values.append(out["value"].astype(self._stored))
            if layer + 1 < self._num_layers:
                x = out["out"].copy()
        return keys, values

    def _as_stored(self, keys: np.ndarray) -> np.ndarray:
        """Return keys whose channels are the two halves of a rotation as pairs, which is how GGUF has them."""
        halves = keys.reshape(len(keys), self._kv_heads, 2, -1)
        return np.ascontiguousarray(halves.swapaxes(2, 3), dtype=self._stored).reshape(len(keys), -1)

    def _rotations(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        base = float(self._header.values.get("llama.rope.freq_base", 10000.0))
        rates = base ** -(np.arange(0, self._channels, 2) / self._channels)
        angles = np.arange(count)[:, None, None] * rates
        return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)

    def prepare(self) -> Path:
        """Return the folder of the stored layers; they are written when they are first needed."""
        folder = stored_layers(self._file)
        if folder.is_dir():
            return folder
        say_once(f"storing {self._file.name} for OpenVINO, once; later runs find it in {folder.parent}")
        unfinished = folder.with_name(f"{folder.name}.{os.getpid()}")
        unfinished.mkdir(parents=True, mode=0o700)
        try:
            for layer in range(self._num_layers):
                self._write_layer(layer, unfinished / f"{layer}.xml")
            unfinished.rename(folder)
        except OSError:
            if not folder.is_dir():  # another process may have been quicker
                raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        return folder

    def _write_layer(self, layer: int, out: Path) -> None:
        import openvino

        openvino.save_model(self._graph(layer), out, compress_to_fp16=False)

    def _tensor(self, name: str) -> tuple[np.ndarray, str]:
        """Return a tensor in 32 bits, and the name of the type in which the file has it."""
        fact = self._header.tensors[name]
        rows = 1 if len(fact.shape) == 1 else fact.shape[0]
        shape = (rows, fact.num_bytes // rows)
        stored = np.memmap(self._file, dtype=np.uint8, mode="r", offset=fact.offset, shape=shape)
        kinds = {number: kind for kind, number in llama.GGML_TYPES.items()}
        return llama.dequantise_rows(stored, fact.kind, fact.shape[-1]), kinds.get(fact.kind, "")

    def _graph(self, layer: int) -> "openvino.Model":
        """Return one layer; the last makes keys and values only, because nobody asks for more."""
        import openvino.opset13 as op
        from openvino import Model, Type

        name = f"blk.{layer}."
        width = self._header.number("embedding_length")
        x = op.parameter([-1, width], Type.f32, name="x")
        cos, sin = (op.parameter([-1, 1, self._channels // 2], Type.f32, name=part) for part in ("cos", "sin"))
        normed = self._norm(x, f"{name}attn_norm.weight")
        key = self._rotate(self._linear(normed, f"{name}attn_k.weight", self._kv_heads), self._kv_heads, cos, sin)
        value = self._linear(normed, f"{name}attn_v.weight")
        flat = [0, self._kv_heads * self._channels]
        outputs = [_named(op.reshape(key, np.array(flat), True), "key"), _named(value, "value")]
        if layer + 1 < self._num_layers:
            query = self._rotate(self._linear(normed, f"{name}attn_q.weight", self._heads), self._heads, cos, sin)
            mixed = self._attend(query, key, value)
            x1 = op.add(x, self._linear(mixed, f"{name}attn_output.weight"))
            normed = self._norm(x1, f"{name}ffn_norm.weight")
            gate = op.swish(self._linear(normed, f"{name}ffn_gate.weight"))
            wide = op.multiply(gate, self._linear(normed, f"{name}ffn_up.weight"))
            outputs.append(_named(op.add(x1, self._linear(wide, f"{name}ffn_down.weight")), "out"))
        return Model(outputs, [x, cos, sin], f"layer{layer}")

    def _norm(self, x: Any, name: str) -> Any:
        import openvino.opset13 as op

        weight, _ = self._tensor(name)
        eps = float(self._header.values["llama.attention.layer_norm_rms_epsilon"])
        mean = op.reduce_mean(op.multiply(x, x), np.array([-1]), True)
        return op.multiply(op.divide(x, op.sqrt(op.add(mean, np.float32(eps)))), op.constant(weight.reshape(1, -1)))

    def _linear(self, x: Any, name: str, heads: int = 0) -> Any:
        """Multiply by the transposed weight; with ``heads`` the rows of each head are put into rotation halves."""
        import openvino.opset13 as op

        weight, kind = self._tensor(name)
        if heads:
            pairs = weight.reshape(heads, -1, 2, weight.shape[1])
            weight = np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(weight.shape)
        stored = op.constant(weight) if kind in FLOATS else _in_groups(weight, kind)
        return op.matmul(x, stored, False, True)

    def _rotate(self, x: Any, heads: int, cos: Any, sin: Any) -> Any:
        """Split into heads and turn the two halves of each by the angle of the position."""
        import openvino.opset13 as op

        split = op.split(op.reshape(x, np.array([0, heads, self._channels]), True), np.int64(2), 2)
        first, second = split.output(0), split.output(1)
        turned = [
            op.subtract(op.multiply(first, cos), op.multiply(second, sin)),
            op.add(op.multiply(second, cos), op.multiply(first, sin)),
        ]
        return op.concat(turned, 2)

    def _attend(self, query: Any, key: Any, value: Any) -> Any:
        """Attention of every token to itself and those before; heads share keys in groups."""
        import openvino.opset13 as op

        order, count = np.array([1, 0, 2]), self._heads // self._kv_heads
        value = op.reshape(value, np.array([0, self._kv_heads, self._channels]), True)

        def by_head(x: Any) -> Any:
            turned = op.unsqueeze(op.transpose(x, order), np.array([0]))  # 1, heads, tokens, channels
            if count == 1 or x is query:
                return turned
            apart = op.unsqueeze(turned, np.array([2]))
            spread = op.broadcast(apart, np.array([1, 1, count, 1, 1]), broadcast_spec="BIDIRECTIONAL")
            return op.reshape(spread, np.array([1, self._heads, -1, self._channels]), False)

        mixed = op.scaled_dot_product_attention(by_head(query), by_head(key), by_head(value), causal=True)
        joined = op.transpose(op.squeeze(mixed, np.array([0])), order)
        return op.reshape(joined, np.array([0, self._heads * self._channels]), True)


def check_plain(header: Header) -> None:
    """Raise ``ModelError`` unless the file holds a plain Llama."""
    odd = [name for name in header.tensors if re.sub(r"^blk\.\d+\.", "", name) not in PLAIN]
    if header.architecture == "llama" and not odd and "llama.expert_count" not in header.values:
        return
    what = f"the tensor {odd[0]}" if odd else f"architecture '{header.architecture}'"
    raise ModelError(f"this language half has {what}; OpenVINO reads prompts of plain Llama models; use llama.cpp")


def stored_layers(file: Path) -> Path:
    """Return the folder where the layers of a GGUF file are, or would be, kept."""
    from platformdirs import user_cache_path

    stat = file.stat()
    key = hashlib.sha256(f"{FORM} {file.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:16]
    return user_cache_path("handlens") / "openvino" / key


def _in_groups(weight: np.ndarray, kind: str) -> Any:
    """Return 8-bit weights with a scale per group of columns, as a constant that OpenVINO keeps in 8 bits."""
    import openvino.opset13 as op

    rows, columns = weight.shape
    group = SMALL_GROUP if kind == "Q8_0" or columns % GROUP else GROUP
    apart = weight.reshape(rows, columns // group, group)
    scale = np.maximum(np.abs(apart).max(axis=-1, keepdims=True) / 127, 1e-8).astype(np.float16)
    rounded = np.clip(np.rint(apart / scale.astype(np.float32)), -127, 127).astype(np.int8)
    whole = op.multiply(op.convert(op.constant(rounded), "f16"), op.constant(scale))
    return op.convert(op.reshape(whole, np.array([rows, columns]), False), "f32")


def _named(node: Any, name: str) -> Any:
    node.output(0).get_tensor().set_names({name})
    return node
