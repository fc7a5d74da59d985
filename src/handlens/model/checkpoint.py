"""Read and write model folders in the official layout: ``config.json``, ``model.safetensors``, ``tokenizer.json``.

Boundary: strict: a missing, extra or misshapen tensor is one clear error; safetensors only, never a pickle.
"""

import json
import os
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from handlens.config import HandlensConfig
from handlens.errors import ModelError
from handlens.model.vlm import HandlensModel, build_model


def load_config(folder: Path) -> HandlensConfig:
    """Read ``config.json``.

    Raises:
        ModelError: the folder or the file is missing, damaged or of another kind.
    """
    file = Path(folder) / "config.json"
    if not file.is_file():
        raise ModelError(f"no config.json in {folder}; give a folder with config.json and model.safetensors")
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as cause:
        raise ModelError(f"{file} is not valid JSON: {cause}") from None
    if not isinstance(fields, dict):
        raise ModelError(f"{file} holds a {type(fields).__name__}; an object with the official fields is needed")
    return HandlensConfig.from_official(fields)


def load_weights(model: HandlensModel, file: Path) -> None:
    """Copy the tensors of a safetensors file into the model, widening half precision.

    Raises:
        ModelError: the file is damaged, or a tensor is missing, extra or misshapen.
    """
    try:
        stored = load_file(str(file))
    except (OSError, SafetensorError) as cause:
        raise ModelError(f"cannot read {file}: {cause}; copy it again or re-train") from None
    own = model.state_dict()
    if model.config.tie_word_embeddings:
        own.pop("llm.lm_head.weight", None)
        stored.pop("llm.lm_head.weight", None)
    for name in sorted(own.keys() - stored.keys()):
        raise ModelError(f"{file} lacks the tensor {name}; it belongs to another model than its config.json")
    for name in sorted(stored.keys() - own.keys()):
        raise ModelError(f"{file} has the unknown tensor {name}; it belongs to another model than its config.json")
    for name, tensor in own.items():
        if stored[name].shape != tensor.shape:
            raise ModelError(
                f"{file}: {name} has shape {list(stored[name].shape)}; config.json needs {list(tensor.shape)}"
            )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(stored[name])


def load_model(folder: Path | str, *, dtype: torch.dtype = torch.float32) -> HandlensModel:
    """Return the model of a folder, ready for inference.

    Raises:
        ModelError: see ``load_config`` and ``load_weights``.
    """
    folder = Path(folder)
    model = build_model(load_config(folder))
    load_weights(model, folder / "model.safetensors")
    return model.to(dtype).eval()


def save_weights(model: HandlensModel, file: Path, dtype: torch.dtype | None = None) -> None:
    """Write the tensors under the official names; the file appears whole or not at all.

    Raises:
        ModelError: the file cannot be written.
    """
    tensors = {name: tensor.to(dtype or tensor.dtype).contiguous() for name, tensor in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        tensors.pop("llm.lm_head.weight", None)
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        save_file(tensors, str(unfinished), metadata={"format": "pt"})
        unfinished.replace(file)
    except (OSError, SafetensorError) as cause:
        raise ModelError(f"cannot write {file}: {cause}; free some space or give another folder") from None
    finally:
        unfinished.unlink(missing_ok=True)


def save_model(
    model: HandlensModel, folder: Path | str, tokenizer_file: Path | None = None, dtype: torch.dtype | None = None
) -> None:
    """Write a model folder that ``load_model`` and ``AutoModel.from_pretrained`` read back exactly.

    The weights come last: a folder that has them is whole.

    Raises:
        ModelError: the weights cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    fields = model.config.typed().to_official()
    (folder / "config.json").write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
    if tokenizer_file is not None and Path(tokenizer_file).resolve() != (folder / "tokenizer.json").resolve():
        shutil.copyfile(tokenizer_file, folder / "tokenizer.json")
    save_weights(model, folder / "model.safetensors", dtype)
