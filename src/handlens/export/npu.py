"""The vision half for a neural processor: one fixed shape, activations in 16 bits, weights in 8.

Boundary: the ``fp32`` vision graph of a bundle in, a bucket out: a graph and a table of positions, which the host adds.
``engine/bucket.py`` runs it. Neural processors want every shape known before they start, so a slice is filled up to the
bucket with patches that a mask hides; looking up positions stays on the host.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from handlens.config import HandlensConfig
from handlens.engine.bucket import POSITIONS, bucket_feeds, bucket_files
from handlens.errors import ModelError, SettingError


def write_bucket(
    graph: Path,
    folder: Path,
    config: HandlensConfig,
    *,
    patches: int,
    feeds: Iterable[Mapping[str, np.ndarray]] | None = None,
) -> Path:
    """Write ``vision-npu-<patches>.onnx`` and its positions into a folder; returns the graph.

    Args:
        graph: the ``fp32`` graph of ``export/onnx.py``.
        folder: where to write.
        config: of the model.
        patches: size of the bucket; a slice of more patches does not fit.
        feeds: inputs of ``graph`` from which ranges are taken. None writes the bucket in 32 bits, to compare with.

    Raises:
        SettingError: no slice fits, or none of ``feeds`` does.
        ModelError: the graph is of another kind.
    """
    if patches < 1:
        raise SettingError(f"a bucket of {patches} patches holds no slice; give at least 1")
    out, table_file = bucket_files(folder, patches)
    model, table = fix_shapes(onnx.load(str(graph)), config, patches)
    np.save(table_file, table)
    if feeds is None:
        onnx.save(model, str(out))
        return out
    ready = (bucket_feeds(one, table, patches) for one in feeds if len(one["patches"]) <= patches)
    return _quantise(model, out, ready, patches)


def fix_shapes(model: onnx.ModelProto, config: HandlensConfig, patches: int) -> tuple[onnx.ModelProto, np.ndarray]:
    """Return the graph with one shape, positions and a mask as inputs, and the table of positions."""
    graph = model.graph
    lookup = [node for node in graph.node if node.name == POSITIONS]
    tables = {tensor.name: tensor for tensor in graph.initializer}
    if len(lookup) != 1 or lookup[0].input[0] not in tables:
        raise ModelError(f"the vision graph has no lookup '{POSITIONS}' in full precision; export it as fp32 first")
    table = numpy_helper.to_array(tables[lookup[0].input[0]]).astype(np.float32)
    graph.initializer.remove(tables[lookup[0].input[0]])
    graph.node.remove(lookup[0])
    widths = {"patches": 3 * config.vision.patch_px**2, POSITIONS: config.vision.width}
    widths["key_positions"] = config.resampler.width
    del graph.input[:]
    graph.input.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [patches, width]) for name, width in widths.items()
    )
    graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1, 1, patches]))
    nodes = []
    for node in graph.node:
        if node.op_type == "Softmax":
            masked = f"{node.name}.masked"
            nodes.append(helper.make_node("Add", [node.input[0], "mask"], [masked], name=masked))
            node.input[0] = masked
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return shape_inference.infer_shapes(model, strict_mode=True, data_prop=True), table


def _quantise(model: onnx.ModelProto, out: Path, feeds: Iterator[dict[str, np.ndarray]], patches: int) -> Path:
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize
    from onnxruntime.quantization.execution_providers.qnn import get_qnn_qdq_config

    ready = list(feeds)
    if not ready:
        raise SettingError(f"no slice for calibration fits into {patches} patches; take a larger bucket")

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(ready)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.left, None)

    plain = out.with_name(f".{out.name}.plain")
    quiet = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it advises steps that change nothing in this graph
    try:
        onnx.save(model, str(plain))
        wanted = get_qnn_qdq_config(
            str(plain), Reader(), activation_type=QuantType.QUInt16, weight_type=QuantType.QUInt8
        )
        quantize(str(plain), str(out), wanted)
    finally:
        logging.disable(quiet)
        plain.unlink(missing_ok=True)
    return out
