"""PEFT adapters: opened on their model, merged into its weights.

Boundary: folders in, a model folder out; peft does the arithmetic. Imported when it is used: it needs torch.
"""

import warnings
from pathlib import Path

from handlens.errors import ModelError, NeedsExtra
from handlens.export.tensor_file import read_header
from handlens.model.checkpoint import load_model, save_model
from handlens.model.vlm import HandlensModel

WEIGHTS = "adapter_model.safetensors"


def load_with_adapter(model_folder: Path, adapter_folder: Path) -> HandlensModel:
    """Return the model with the adapter added to its weights.

    Raises:
        ModelError: a folder is not whole, or the adapter belongs to another model.
        NeedsExtra: peft is missing.
    """
    for file in ("adapter_config.json", WEIGHTS):
        if not (adapter_folder / file).is_file():
            raise ModelError(
                f"{adapter_folder} has no {file}; an adapter is a folder with adapter_config.json and {WEIGHTS}"
            )
    header = read_header(adapter_folder / WEIGHTS)
    try:
        from peft import PeftModel
    except ImportError:
        raise NeedsExtra("an adapter (peft)", "train") from None
    model = load_model(model_folder)
    shapes = {name: tuple(values.shape) for name, values in model.state_dict().items()}
    _check_names(adapter_folder, list(header), shapes)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peft warns of what it did not find; names were compared above
            merged = PeftModel.from_pretrained(model, str(adapter_folder)).merge_and_unload()
    except (ValueError, RuntimeError, KeyError, TypeError) as cause:
        line = " ".join(str(cause).split())[:200]
        raise ModelError(f"{adapter_folder} does not fit {model_folder}: {line}; merge it with its own model") from None
    assert isinstance(merged, HandlensModel)
    return merged


def merge_adapter(model_folder: Path, adapter_folder: Path, out: Path) -> Path:
    """Write the merged model in the official layout, every tensor in the type that the model has it in.

    Raises:
        ModelError: see ``load_with_adapter``; or ``out`` exists.
    """
    if out.exists() and any(out.iterdir()):
        raise ModelError(f"{out} exists and is not empty; give a new folder name")
    save_model(load_with_adapter(model_folder, adapter_folder), out, as_stored=True)
    return out


def _check_names(adapter_folder: Path, names: list[str], shapes: dict[str, tuple[int, ...]]) -> None:
    """Refuse an adapter for layers that the model does not have."""
    for name in names:
        own = name.removeprefix("base_model.model.").replace(".modules_to_save", "")
        layer = own.split(".lora_")[0]
        if own not in shapes and f"{layer}.weight" not in shapes:
            raise ModelError(f"{adapter_folder} changes {layer}, which the model lacks; merge it with its own model")
