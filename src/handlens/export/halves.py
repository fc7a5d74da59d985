"""Write both halves of a model folder in the official layout.

Boundary: numpy weights, read tensor by tensor; of the language half only some rows are in memory at a time. The vision
graph needs the package onnx.
"""

import math
from pathlib import Path

from handlens.config import HandlensConfig
from handlens.engine.bundle import MMPROJ
from handlens.errors import ModelError, no_config
from handlens.export.bundle import VISIONS
from handlens.export.gguf import write_gguf
from handlens.export.importance import Importance
from handlens.export.llama_cpp import read_config
from handlens.export.mixes import check_quant
from handlens.export.mmproj import tensor_names, write_mmproj
from handlens.export.onnx import write_vision
from handlens.export.stream import Progress
from handlens.export.tensor_file import StoredRows, TensorFolder
from handlens.export.vision_variants import write_variant
from handlens.families import family_named

MOST_GRAPH_BYTES = 2_000_000_000
"""What one ONNX file holds, less a little for its nodes."""


def write_halves(
    model_folder: Path,
    folder: Path,
    *,
    quant: str,
    vision: str,
    name: str,
    mmproj: bool = False,
    importance: Importance | None = None,
    progress: Progress | None = None,
) -> HandlensConfig:
    """Write ``vision*.onnx``, ``language-<quant>.gguf`` and, if wanted, ``mmproj.gguf``; return the configuration.

    Raises:
        SettingError: unknown ``quant``.
        ModelError: the model folder is not whole, or a half cannot be written for its family.
    """
    check_quant(quant)
    if not (model_folder / "config.json").is_file():
        raise no_config(model_folder)
    config = read_config(model_folder)
    family = family_named(config.family)
    if family.tower != "siglip":
        raise ModelError(
            f"family {family.name} has no ONNX vision half here; bundles are made of 2.5, 2.6, 4.0, 4.5 and nano; "
            "run it as a torch folder"
        )
    tokenizer_file = model_folder / "tokenizer.json"
    if not tokenizer_file.is_file():
        raise ModelError(
            f"no tokenizer.json in {model_folder}; export needs config.json, model.safetensors, tokenizer.json"
        )
    weights = TensorFolder.open(model_folder)
    check_vision(weights, config)
    write_gguf(
        StoredRows(weights, "llm."), config.language, tokenizer_file, folder / f"language-{quant}.gguf", quant=quant,
        name=name, importance=importance, progress=progress,
    )  # fmt: skip
    _write_vision(weights, config, folder, vision)
    if mmproj:
        write_mmproj(weights, config, folder / MMPROJ)
    return config


def write_half(
    model_folder: Path, folder: Path, variant: str, *, name: str, importance: Importance | None = None
) -> Path:
    """Write one half of a model folder in one variant, a quantisation or one of ``VISIONS``; return the file.

    Raises:
        ModelError: as ``write_halves``.
    """
    config, weights = read_config(model_folder), TensorFolder.open(model_folder)
    if variant in VISIONS:
        _write_vision(weights, config, folder, variant)
        return folder / VISIONS[variant]
    return write_gguf(
        StoredRows(weights, "llm."), config.language, model_folder / "tokenizer.json",
        folder / f"language-{variant}.gguf", quant=variant, name=name, importance=importance,
    )  # fmt: skip


def _write_vision(weights: TensorFolder, config: HandlensConfig, folder: Path, vision: str) -> None:
    """Write the vision half; one that fits no single file goes to 8 bits as it is read."""
    size = 4 * sum(math.prod(weights.place(name).shape) for name in weights if name.startswith(("vpm.", "resampler.")))
    if size > MOST_GRAPH_BYTES:
        from handlens.models.small_graph import SmallWriter

        if vision != "int8":
            raise ModelError(
                f"the vision half takes {size / 1e9:.1f} GB in 32 bits; an ONNX file holds 2 GB; take --vision int8, "
                "or --format gguf"
            )
        file = folder / VISIONS["int8"]
        write_vision(weights, config, file, graph=SmallWriter(folder / f"{file.name}.data"))
        return
    graph = write_vision(weights, config, folder / VISIONS["fp32"])
    if vision != "fp32":
        write_variant(graph, folder, vision, config)
        graph.unlink()


def check_vision(weights: TensorFolder, config: HandlensConfig) -> None:
    """Raise ``ModelError`` unless the tensors of tower and resampler have the shapes of ``config.json``."""
    for _, name, shape in tensor_names(config):
        found = weights.place(name).shape
        if found != shape:
            raise ModelError(
                f"{name} comes with shape {list(found)}; config.json needs {list(shape)}; "
                "take both files from one model"
            )
