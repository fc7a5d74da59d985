"""The vision half in fewer bits, made from its full-precision graph.

Boundary: ``vision.onnx`` in, another graph with the same inputs and outputs out. Both stay in 32 bits.
"""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from handlens.config import HandlensConfig
from handlens.core.images import Picture
from handlens.core.patches import normalise
from handlens.core.slicing import cut, plan_slices
from handlens.engine.inputs import slice_inputs
from handlens.errors import NeedsExtra, SettingError, did_you_mean
from handlens.export.bundle import VISIONS

HALVES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
MOST_FP16 = 65504.0
CALIBRATION = (("lines", 6), ("receipts", 3), ("labels", 3), ("tables", 3), ("scenes", 3), ("charts", 2))
"""Kinds of drawn pictures and how many of each set the ranges of ``int8-static``."""
MOST_CALIBRATION_SLICES = 40
SEED = 8_800_001
"""Of the pictures that set ranges; no training run and no evaluation uses it."""


def write_variant(graph: Path, folder: Path, kind: str, config: HandlensConfig) -> Path:
    """Write one of ``VISIONS`` from the ``fp32`` graph into a folder.

    Raises:
        SettingError: unknown ``kind``.
        NeedsExtra: ``int8-static`` draws pictures, and what that needs is not installed.
    """
    if kind not in VISIONS:
        raise SettingError(f"unknown vision variant '{kind}'{did_you_mean(kind, VISIONS)}")
    out = folder / VISIONS[kind]
    if kind in HALVES:
        return store_halves(graph, out, kind)
    if kind == "int8":
        from handlens.export.onnx import quantise_vision

        return quantise_vision(graph, out)
    return quantise_static(graph, out, calibration_feeds(config))


def store_halves(graph: Path, out: Path, kind: str) -> Path:
    """Store every weight in 16 bits; it is widened when the graph is loaded, so every provider can run it."""
    model = onnx.load(str(graph))
    casts = []
    for tensor in list(model.graph.initializer):
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        if kind == "fp16" and np.abs(values).max(initial=0.0) > MOST_FP16:
            continue
        tensor.CopyFrom(_narrow(values, f"{tensor.name}.stored", kind))
        casts.append(
            helper.make_node("Cast", [tensor.name], [tensor.name.removesuffix(".stored")], to=TensorProto.FLOAT)
        )
    for place, node in enumerate(casts):
        model.graph.node.insert(place, node)
    with _whole(out) as unfinished:
        onnx.save(model, str(unfinished))
    return out


def _narrow(values: np.ndarray, name: str, kind: str) -> onnx.TensorProto:
    if kind == "fp16":
        return numpy_helper.from_array(values.astype(np.float16), name)
    import gguf

    bits = gguf.quants.quantize(np.ascontiguousarray(values), gguf.GGMLQuantizationType.BF16)
    return TensorProto(name=name, data_type=TensorProto.BFLOAT16, dims=values.shape, raw_data=bits.tobytes())


def quantise_static(graph: Path, out: Path, feeds: Iterable[Mapping[str, np.ndarray]]) -> Path:
    """Write weights and inputs of every linear layer in 8 bits; the range of each input is fixed by ``feeds``.

    Attention, whose factors are both computed, stays in floats. Weights are unsigned, as in ``quantise_vision``.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.feeds = iter(feeds)

        def get_next(self) -> Any:
            return next(self.feeds, None)

    quiet = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it advises a step that changes nothing in this graph
    try:
        with _whole(out) as unfinished:
            quantize_static(
                graph,
                unfinished,
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["MatMul"],
                nodes_to_quantize=_linear(graph),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QUInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
    finally:
        logging.disable(quiet)
    return out


def _linear(graph: Path) -> list[str]:
    """Return the products whose second factor is a weight."""
    model = onnx.load(str(graph)).graph
    weights = {tensor.name for tensor in model.initializer}
    return [node.name for node in model.node if node.op_type == "MatMul" and node.input[1] in weights]


def calibration_feeds(config: HandlensConfig) -> Iterator[dict[str, np.ndarray]]:
    """Yield the inputs of the graph for slices of drawn pictures of the training split.

    Raises:
        NeedsExtra: the generators are not installed.
    """
    for count, pixels in enumerate(slices_of(calibration_pictures(), config)):
        if count == MOST_CALIBRATION_SLICES:
            return
        patches, positions, keys = slice_inputs(pixels, config)
        yield {"patches": patches, "position_ids": positions, "key_positions": keys}


def calibration_pictures() -> Iterator[Picture]:
    """Yield drawn pictures, kind by kind in turns.

    Raises:
        NeedsExtra: the generators are not installed.
    """
    try:
        from handlens.data.generate import generate
    except ModuleNotFoundError as cause:
        raise NeedsExtra(f"drawing pictures ({cause.name} is missing)", "train") from None
    for index in range(max(count for _, count in CALIBRATION)):
        for kind, count in CALIBRATION:
            if index < count:
                record = generate(kind, SEED, index, split="train", level=0.4)
                yield Picture(record.picture, record.key)


def slices_of(pictures: Iterable[Picture], config: HandlensConfig) -> Iterator[np.ndarray]:
    """Yield the pixels of every slice, [3 height width], normalised."""
    for picture in pictures:
        plan = plan_slices(*picture.image.size, side_px=config.slicing.side_px, max_slices=config.slicing.max_slices)
        for image in cut(picture.image, plan):
            yield normalise(image)


def agreement(
    reference: Path, candidate: Path, config: HandlensConfig, pictures: Iterable[Picture]
) -> dict[str, float]:
    """Return how far the visual tokens of two graphs agree on the slices of pictures.

    ``error`` is the root mean square of the difference over that of the reference; ``cosine_mean`` and ``cosine_min``
    are taken token by token.
    """
    from handlens.engine.vision import OnnxVision

    ours, theirs = OnnxVision(candidate, config), OnnxVision(reference, config)
    squares = power = 0.0
    cosines: list[float] = []
    for pixels in slices_of(pictures, config):
        one, other = ours.encode(pixels), theirs.encode(pixels)
        squares, power = squares + float(np.square(one - other).sum()), power + float(np.square(other).sum())
        norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        cosines += ((one * other).sum(axis=1) / np.maximum(norms, 1e-12)).tolist()
    return {
        "error": (squares / max(power, 1e-12)) ** 0.5,
        "cosine_mean": float(np.mean(cosines)),
        "cosine_min": float(np.min(cosines)),
        "visual_tokens": float(len(cosines)),
    }


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    unfinished = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        yield unfinished
        unfinished.replace(out)
    finally:
        unfinished.unlink(missing_ok=True)
