"""Read and write model folders in the official layout: ``config.json``, ``model.safetensors``, ``tokenizer.json``.

Boundary: strict: a missing, extra or misshapen tensor is one clear error; safetensors only, never a pickle.
"""

import json
import os
import re
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from handlens.config import HandlensConfig
from handlens.core.durable import show
from handlens.errors import ModelError, no_config
from handlens.families import family_named
from handlens.model.vlm import HandlensModel, MiniCPMVConfig
from handlens.model.weights import PICKLES, WEIGHTS, StoredWeights, open_weights

PREPROCESSOR = "preprocessor_config.json"
DECIDED_BY = (
    (r"embed_tokens|lm_head", "vocab_size hidden_size"),
    (r"(llm|language_model)\..*(q_proj|o_proj)", "hidden_size num_attention_heads head_dim"),
    (r"(llm|language_model)\..*(k_proj|v_proj)", "hidden_size num_key_value_heads head_dim"),
    (r"(llm|language_model)\..*mlp", "hidden_size intermediate_size"),
    (r"resampler\.(query|pos_embed)", "query_num hidden_size"),
    (r"resampler\.kv_proj", "hidden_size vision_config.hidden_size"),
    (r"resampler", "hidden_size"),
    (r"pos_embed|position_embedding", "vision_config.image_size vision_config.patch_size vision_config.hidden_size"),
    (r"(vpm|vision_tower)\..*mlp", "vision_config.hidden_size vision_config.intermediate_size"),
    (r"vpm|vision_tower", "vision_config.hidden_size"),
    (r"", "hidden_size"),
)
"""Which fields of ``config.json`` decide the shape of a tensor; the first pattern that is found counts."""
OF_A_BUNDLE = ("manifest.json", "known.json", "vision.onnx")
"""Files that say what is beside other weights; a model folder that is written anew is no bundle."""
LARGEST_COMPANION_BYTES = 64_000_000
"""Other files of a folder up to this size travel with ``save_model(as_stored=True)``."""


def read_config(folder: Path) -> dict[str, Any]:
    """Return the fields of ``config.json``.

    Raises:
        ModelError: the folder or the file is missing or damaged.
    """
    file = Path(folder) / "config.json"
    if not file.is_file():
        raise no_config(Path(folder))
    return _read_object(file)


def _read_object(file: Path) -> dict[str, Any]:
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as cause:
        raise ModelError(f"{file} is not valid JSON: {cause}") from None
    if not isinstance(fields, dict):
        raise ModelError(f"{file} holds a {type(fields).__name__}; an object with the official fields is needed")
    return fields


def _with_preprocessor(fields: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Put the slicing of ``preprocessor_config.json``, which the released processors obey, into ``slice_config``."""
    file = Path(folder) / PREPROCESSOR
    if not file.is_file():
        return fields
    names = ("max_slice_nums", "scale_resolution", "patch_size")
    slicing = {name: value for name, value in _read_object(file).items() if name in names}
    return fields | {"slice_config": (fields.get("slice_config") or {}) | slicing}


def load_config(folder: Path) -> HandlensConfig:
    """Read ``config.json``, and the slicing of ``preprocessor_config.json`` where there is one.

    Raises:
        ModelError: the folder or the file is missing, damaged or of another kind.
    """
    return HandlensConfig.from_official(_with_preprocessor(read_config(folder), folder))


def empty_model(fields: dict[str, Any]) -> HandlensModel:
    """Return the model of official fields without memory for its weights (torch's meta device)."""
    config = HandlensConfig.from_official(fields)
    with torch.device("meta"):
        if family_named(config.family).tower == "native":
            from handlens.model.native import NativeConfig, NativeModel

            return NativeModel(NativeConfig(**fields))
        return HandlensModel(MiniCPMVConfig(**fields))


def tensor_shapes(config: HandlensConfig) -> dict[str, tuple[int, ...]]:
    """Return the official names and shapes of all weights of a configuration."""
    return {name: tuple(tensor.shape) for name, tensor in _own(empty_model(config.to_official())).items()}


def _own(model: HandlensModel) -> dict[str, torch.Tensor]:
    """Return the tensors that a file of this model holds; tied output weights are stored once."""
    tensors = model.state_dict()
    if model.config.tie_word_embeddings:
        tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith("lm_head.weight")}
    return tensors


def check_weights(model: HandlensModel, stored: StoredWeights, file: Path) -> list[str]:
    """Return the names to read after comparing the headers with the model.

    Raises:
        ModelError: a tensor is missing, extra or misshapen.
    """
    own = _own(model)
    allowed = own.keys() | (set(model.state_dict()) if model.config.tie_word_embeddings else set())
    for name in sorted(own.keys() - stored.shapes.keys()):
        raise ModelError(
            f"{file} lacks the tensor {name}; it belongs to another model than its config.json{_depth(model, name)}"
        )
    for name in sorted(stored.shapes.keys() - allowed):
        if not name.startswith(model.ignored or ("\0",)):
            raise ModelError(
                f"{file} has the unknown tensor {name}; it belongs to another model than its config.json"
                f"{_depth(model, name)}"
            )
    for name, tensor in own.items():
        if stored.shapes[name] != tuple(tensor.shape):
            raise ModelError(
                f"{file}: {name} has shape {list(stored.shapes[name])}; config.json needs {list(tensor.shape)}"
                f"{_decided_by(model, name)}"
            )
    return list(own)


def _field(fields: dict[str, Any], path: str) -> Any:
    for part in path.split("."):
        fields = fields.get(part) if isinstance(fields, dict) else None  # type: ignore[assignment]
    return fields


def _decided_by(model: HandlensModel, name: str) -> str:
    """Name the fields of ``config.json`` from which the needed shape follows."""
    paths = next(paths for pattern, paths in DECIDED_BY if re.search(pattern, name)).split()
    fields = model.official or model.config.to_dict()
    if "text_config" in fields:
        paths = [path if "." in path else f"text_config.{path}" for path in paths]
    known = [f"{path} {value}" for path in paths if (value := _field(fields, path)) is not None]
    return f" ({', '.join(known)})" if known else ""


def _depth(model: HandlensModel, name: str) -> str:
    """Name the number of layers where a whole layer is missing or too many."""
    if not re.search(r"(layers|blocks)\.\d+\.", name):
        return ""
    path = "vision_config.num_hidden_layers" if re.match(r"vpm|model\.vision", name) else "num_hidden_layers"
    fields = model.official or model.config.to_dict()
    if "text_config" in fields and "." not in path:
        path = f"text_config.{path}"
    value = _field(fields, path)
    return "" if value is None else f" ({path} {value})"


def load_weights(model: HandlensModel, file: Path) -> None:
    """Copy the tensors of a safetensors file into the model, widening half precision.

    Raises:
        ModelError: the file is damaged, or a tensor is missing, extra or misshapen.
    """
    stored = open_weights(file)
    names = check_weights(model, stored, file)
    own = model.state_dict()
    with torch.no_grad():
        for name in names:
            own[name].copy_(stored.tensor(name))


def load_model(folder: Path | str, *, dtype: torch.dtype = torch.float32) -> HandlensModel:
    """Return the model of a folder, ready for inference: nano, 1.0, 2.0, 2.5, 2.6, 4.0, 4.5, or 4.6 (``NativeModel``).

    Only one tensor at a time is held twice.

    Raises:
        ModelError: see ``load_config`` and ``load_weights``.
    """
    folder = Path(folder)
    official = read_config(folder)
    model = empty_model(_with_preprocessor(official, folder))
    model.official = official
    stored = open_weights(folder)
    file = next(iter(set(stored.files.values()))) if len(set(stored.files.values())) == 1 else folder
    names = check_weights(model, stored, file)
    tensors = {name: stored.tensor(name).to(dtype) for name in names}
    model.load_state_dict(tensors, assign=True, strict=False)
    model.tie()
    _fill_buffers(model)
    model.stored = dict(stored.dtypes)
    model.source = folder
    return model.requires_grad_(True).eval()


def _fill_buffers(model: HandlensModel) -> None:
    """Compute the rotary frequencies, which no file holds."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            buffers = list(child.buffers(recurse=False))
            if buffers and all(buffer.is_meta for buffer in buffers):
                setattr(parent, name, type(child)(child.config))


def save_weights(model: HandlensModel, file: Path, dtype: torch.dtype | None = None) -> None:
    """Write the tensors under the official names; the file appears whole or not at all.

    Raises:
        ModelError: the file cannot be written.
    """
    write_tensors({name: tensor.to(dtype or tensor.dtype) for name, tensor in _own(model).items()}, file)


def write_tensors(tensors: dict[str, torch.Tensor], file: Path) -> None:
    """Write one safetensors file; it appears whole or not at all.

    Raises:
        ModelError: the file cannot be written.
    """
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, str(unfinished), {"format": "pt"})
        show(unfinished, file)
    except (OSError, SafetensorError) as cause:
        raise ModelError(f"cannot write {file}: {cause}; free some space or give another folder") from None
    finally:
        unfinished.unlink(missing_ok=True)


def save_model(
    model: HandlensModel,
    folder: Path | str,
    tokenizer_file: Path | None = None,
    dtype: torch.dtype | None = None,
    *,
    as_stored: bool = False,
) -> None:
    """Write a model folder that ``load_model`` and ``AutoModel.from_pretrained`` read back exactly.

    The weights come last: a folder that has them is whole. ``as_stored`` writes a loaded model as it was: the same
    files, number types and companions (configuration, processor, tokenizer).

    Raises:
        ModelError: the weights cannot be written, or ``as_stored`` is asked of a model that came from no folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if as_stored:
        _save_as_stored(model, folder)
        return
    fields = model.config.typed().to_official()
    (folder / "config.json").write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")
    if tokenizer_file is not None and Path(tokenizer_file).resolve() != (folder / "tokenizer.json").resolve():
        shutil.copyfile(tokenizer_file, folder / "tokenizer.json")
    save_weights(model, folder / WEIGHTS, dtype)


def _save_as_stored(model: HandlensModel, folder: Path) -> None:
    if model.source is None or model.source.resolve() == folder.resolve():
        raise ModelError(f"a model from {model.source} cannot be saved as stored in {folder}; give another folder")
    for file in sorted(model.source.iterdir()):
        is_left = file.suffix in (".safetensors", ".gguf", *PICKLES) or file.name in OF_A_BUNDLE
        if file.is_file() and not is_left and file.stat().st_size <= LARGEST_COMPANION_BYTES:
            shutil.copyfile(file, folder / file.name)
    stored, own = open_weights(model.source), model.state_dict()
    parts: dict[str, list[str]] = defaultdict(list)
    for name, file in stored.files.items():
        parts[file.name].append(name)
    for part, names in sorted(parts.items()):
        tensors = {
            name: own[name].to(model.stored[name]) if name in own else stored.tensor(name) for name in names
        }  # what the class does not use (4.6: a second predictor) is carried over
        write_tensors(tensors, folder / part)
