"""Write both halves of a torch model into a folder.

Boundary: the torch side of ``bundle.py``; reads a model folder in the official layout.
"""

from pathlib import Path

from handlens.config import HandlensConfig
from handlens.errors import ModelError
from handlens.export.bundle import MMPROJ, VISIONS
from handlens.export.gguf import write_gguf
from handlens.export.mixes import check_quant
from handlens.export.mmproj import write_mmproj
from handlens.export.onnx import quantise_vision, write_vision
from handlens.families import family_named
from handlens.model.checkpoint import load_config, load_model


def write_halves(
    model_folder: Path, folder: Path, *, quant: str, vision: str, name: str, mmproj: bool = False
) -> HandlensConfig:
    """Write ``vision*.onnx``, ``language-<quant>.gguf`` and, if wanted, ``mmproj.gguf``; return the configuration.

    Raises:
        SettingError: unknown ``quant``.
        ModelError: the model folder is not whole, or a half cannot be written for its family.
    """
    check_quant(quant)
    family = family_named(load_config(model_folder).family)
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
    model = load_model(model_folder)
    config = model.config.typed()
    weights = {tensor: values.float().numpy() for tensor, values in model.state_dict().items()}
    language = {tensor.removeprefix("llm."): values for tensor, values in weights.items() if tensor.startswith("llm.")}
    write_gguf(language, config.language, tokenizer_file, folder / f"language-{quant}.gguf", quant=quant, name=name)
    graph = write_vision(weights, config, folder / VISIONS["fp32"])
    if vision == "int8":
        quantise_vision(graph, folder / VISIONS["int8"])
        graph.unlink()
    if mmproj:
        write_mmproj(weights, config, folder / MMPROJ)
    return config
