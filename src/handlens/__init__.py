"""Ask a picture: a small vision-language model that answers on the device in your hand."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from handlens.answerer import Answerer
    from handlens.asking import Model

__version__ = "0.6.0"
__all__ = ["Answerer", "__version__", "load"]  # Answer, Conversation and Model stand in handlens.asking

PACKAGED = {"nano": Path(__file__).parent / "nano"}
"""Bundles that ship with the package."""


def load(
    model: str | Path = "nano", *, keep: bool = False, cache: bool = False, profile: bool = True, lookup: bool = True
) -> "Model":
    """Return a model that answers: ``nano``, one that was fetched or made, a bundle, torch model or GGUF pair folder.

    A GGUF pair, two files of llama.cpp, can also be named by the path of its language file.

    ``keep`` holds a bundle's halves in memory for many questions, ``cache`` keeps visual tokens on disk, and
    ``profile`` uses what ``handlens tune`` found for this machine. ``lookup`` guesses text that repeats.

    Raises:
        ModelError: the name is unknown, or the folder is no whole model.
        NeedsExtra: a torch model folder without torch.

    >>> load("nano").info.name
    'nano'
    """
    from handlens.asking import Model
    from handlens.errors import ModelError, NeedsExtra

    folder = PACKAGED.get(str(model), Path(model))
    if str(model) in PACKAGED and not (folder / "manifest.json").is_file():
        raise ModelError(f"this installation lacks the bundle of {model} ({folder}); install handlens again")
    if not folder.exists():
        from handlens.models.store import list_models

        folder = {entry.name: entry.folder for entry in list_models()}.get(str(model), folder)
    if not folder.exists():
        raise ModelError(
            f"unknown model '{model}'; known: {', '.join(PACKAGED)}; or give the path of a folder: "
            "a bundle (manifest.json), a torch model (config.json, model.safetensors) or a GGUF pair"
            + (
                f"; `handlens models pull {model}` fetches it"
                if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", str(model))
                else ""
            )
        )
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"{folder} is an adapter; `handlens models merge MODEL {folder} --to NEW` adds it to its model"
        )
    is_folder = folder.is_dir() and not (folder / "manifest.json").is_file()
    if folder.suffix == ".gguf" or (is_folder and any(folder.glob("*.gguf")) and not any(folder.glob("*.safetensors"))):
        from handlens.engine.pair import open_pair

        return Model(open_pair(folder, keep=keep), folder=folder)
    weights = ("config.json", "model.safetensors", "model.safetensors.index.json")
    if not (folder / "manifest.json").is_file() and any((folder / name).is_file() for name in weights):
        try:
            from handlens.model.halves import open_torch
        except ModuleNotFoundError as cause:
            raise NeedsExtra(f"the torch model folder {folder} ({cause.name} is missing)", "train") from None
        return Model(open_torch(folder), folder=folder)
    from handlens.engine.answerer import open_bundle

    return Model(open_bundle(folder, keep=keep, cache=cache, profile=profile, lookup=lookup), folder=folder)


def __getattr__(name: str) -> Any:
    """Import ``Answerer`` when it is asked for: the command line starts without numpy."""
    if name == "Answerer":
        from handlens.answerer import Answerer

        return Answerer
    raise AttributeError(f"module 'handlens' has no attribute '{name}'")
