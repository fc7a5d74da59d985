"""Where models lie: those that ship, those in the user's cache, and folders given by path.

Boundary: names and folders; knows no format of weights. The cache is that of the operating system, or the folder that
HANDLENS_CACHE names.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

from handlens import PACKAGED
from handlens.errors import ModelError, did_you_mean

UNFINISHED = ".incomplete"
"""Ending of a folder that is still being fetched."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One model that can be named."""

    name: str
    folder: Path
    ships: bool
    """Part of the package; it cannot be removed."""

    @property
    def num_bytes(self) -> int:
        """Bytes of all its files."""
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())


def store_folder() -> Path:
    """Return the folder of fetched and made models; it may not exist yet."""
    given = os.environ.get("HANDLENS_CACHE")
    return (Path(given) if given else user_cache_path("handlens")) / "models"


def folder_of(name: str) -> Path:
    """Return where a model of this name lies or will lie.

    >>> folder_of("openbmb/MiniCPM-V-2_6").name
    'openbmb--MiniCPM-V-2_6'

    Raises:
        ModelError: the name could lead out of the store.
    """
    if not name or name.startswith((".", "/", "-")) or ".." in name or "\\" in name or name.count("/") > 1:
        raise ModelError(f"'{name}' is no name of a model; a name is one word, or owner/name as on Hugging Face")
    return store_folder() / name.replace("/", "--")


def list_models() -> list[Entry]:
    """Return the models that ship and those of the store, in the order of their names."""
    found = [Entry(name=name, folder=folder, ships=True) for name, folder in PACKAGED.items() if folder.is_dir()]
    store = store_folder()
    if store.is_dir():
        found += [
            Entry(name=folder.name.replace("--", "/", 1), folder=folder, ships=False)
            for folder in sorted(store.iterdir())
            if folder.is_dir() and not folder.name.startswith(".") and folder.suffix != UNFINISHED
        ]
    return found


def find_model(model: str | Path) -> Path:
    """Return the folder of a model that is named, or given by its path.

    Raises:
        ModelError: neither a known name nor a folder.
    """
    named = {entry.name: entry.folder for entry in list_models()}
    if str(model) in named:
        return named[str(model)]
    if Path(model).is_dir():
        return Path(model)
    if Path(model).exists():
        raise ModelError(f"{model} is a file; give the folder of a model")
    if str(model).endswith((".gguf", ".onnx", ".safetensors")):
        raise ModelError(f"there is no file {model}; give the folder of a model, or a file that is there")
    pull = f"; `handlens models pull {model}` fetches it from Hugging Face" if str(model).count("/") == 1 else ""
    raise ModelError(f"unknown model '{model}'{did_you_mean(str(model), named)}; or give the path of a folder{pull}")


def remove_model(name: str) -> int:
    """Delete a model of the store and what was fetched of it; return its bytes.

    Raises:
        ModelError: the name is unknown, or the model ships with the package.
    """
    entries = {entry.name: entry for entry in list_models()}
    if name in entries and entries[name].ships:
        raise ModelError(f"{name} ships with handlens and cannot be removed; fetched models can: handlens models list")
    folder = folder_of(name)
    parts = [part for part in (folder, folder.with_name(folder.name + UNFINISHED)) if part.is_dir()]
    if not parts:
        known = [entry.name for entry in entries.values() if not entry.ships]
        raise ModelError(
            f"no model '{name}' in {store_folder()}" + (did_you_mean(name, known) if known else "; it is empty")
        )
    num_bytes = sum(file.stat().st_size for part in parts for file in part.rglob("*") if file.is_file())
    for part in parts:
        shutil.rmtree(part)
    return num_bytes
