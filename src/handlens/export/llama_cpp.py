"""Write a model folder as the two files of stock llama.cpp: ``language-<quant>.gguf`` and ``mmproj.gguf``.

Boundary: a folder in the official layout in, a folder out; tensors pass one by one, so an 8B model needs the memory of
its largest tensor. No torch.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from handlens.config import HandlensConfig
from handlens.engine.bundle import MMPROJ
from handlens.engine.mtmd import check_pair
from handlens.errors import ModelError
from handlens.export.bundle import begin_folder
from handlens.export.gguf import check_kind, write_gguf
from handlens.export.gguf_config import config_of_pair
from handlens.export.importance import Importance
from handlens.export.mixes import check_quant
from handlens.export.mmproj import check_family, write_mmproj
from handlens.export.stream import Progress
from handlens.export.tensor_file import StoredRows, TensorFolder
from handlens.families import family_named

COPIED = ("config.json", "tokenizer.json")
"""Files that travel with the two, so that the folder can be verified and asked."""


@dataclass(frozen=True, kw_only=True)
class GgufFolder:
    """Two files that belong together, and what is known about them."""

    folder: Path
    language: Path
    mmproj: Path
    config: HandlensConfig
    tokenizer: Path | None

    @classmethod
    def open(cls, path: Path) -> "GgufFolder":
        """Find the two files of a folder, or of a language file and its neighbour, and read both headers.

        ``config.json`` is not needed: the headers say what the model is.

        Raises:
            ModelError: one of them is missing or damaged, or they do not belong together.
        """
        folder = path.parent if path.is_file() else path
        files = sorted(folder.glob("*.gguf"))
        visions = [file for file in files if "mmproj" in file.name]
        languages = [path] if path.is_file() else [file for file in files if file not in visions]
        if len(visions) != 1 or len(languages) != 1:
            raise ModelError(
                f"{folder} has {len(languages)} language and {len(visions)} mmproj GGUF files; one of each is needed, "
                "the second with 'mmproj' in its name; the path of a language file chooses among several"
            )
        check_pair(visions[0], languages[0])
        told = read_config(folder) if (folder / "config.json").is_file() else None
        found = config_of_pair(languages[0], visions[0], told.family if told else None)
        config = _same_model(told, found, visions[0], languages[0]) if told else found
        tokenizer = folder / "tokenizer.json"
        return cls(
            folder=folder,
            language=languages[0],
            mmproj=visions[0],
            config=config,
            tokenizer=tokenizer if tokenizer.is_file() else None,
        )


def _same_model(told: HandlensConfig, found: HandlensConfig, mmproj: Path, language: Path) -> HandlensConfig:
    """Return ``config.json`` after comparing it with the headers."""
    pairs = (
        (mmproj, "vision_config.hidden_size", told.vision.width, found.vision.width),
        (mmproj, "vision_config.num_hidden_layers", told.vision.num_layers, found.vision.num_layers),
        (mmproj, "query_num", told.resampler.num_queries, found.resampler.num_queries),
        (language, "hidden_size", told.language.width, found.language.width),
        (language, "num_hidden_layers", told.language.num_layers, found.language.num_layers),
    )
    for file, field, wanted, has in pairs:
        if wanted != has:
            raise ModelError(f"config.json has {field} {wanted}, {file} has {has}; take all files from one export")
    return told


def is_gguf_folder(folder: Path) -> bool:
    """True for a folder that holds GGUF files and neither a manifest nor torch weights."""
    return (
        folder.is_dir()
        and any(folder.glob("*.gguf"))
        and not (folder / "manifest.json").is_file()
        and not (folder / "model.safetensors").is_file()
    )


def read_config(folder: Path) -> HandlensConfig:
    """Read ``config.json`` without torch.

    Raises:
        ModelError: the file is missing, damaged or of another kind of model.
    """
    file = folder / "config.json"
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except OSError:
        raise ModelError(f"{folder} has no config.json; copy the one of the model it was made of") from None
    except ValueError as cause:
        raise ModelError(f"{file} is not valid JSON: {cause}") from None
    if not isinstance(fields, dict):
        raise ModelError(f"{file} holds a {type(fields).__name__}; an object with the official fields is needed")
    return HandlensConfig.from_official(fields)


def hazards(model_folder: Path, kind: str) -> list[str]:
    """Return where an export, ``bundle`` or ``gguf``, computes otherwise than the released code, one line each."""
    config = read_config(model_folder)
    notes = []
    if family_named(config.family).attends_padding:
        notes.append(
            "2.5: slices are seen one by one, with 2-D positions by llama.cpp; the released code reads row 0 of the "
            "table and the padding of its batch, so visual tokens differ by more than 1 (docs/families.md)"
        )
    if kind == "gguf" and not (model_folder / "tokenizer.json").is_file():
        notes.append("no tokenizer.json: the language file takes ids and no text")
    if kind == "gguf" and config.family != "nano":
        notes.append("llama.cpp slices some picture sizes differently; docs/families.md says which")
    return notes


def export_gguf(
    model_folder: Path | str,
    out: Path | str,
    *,
    quant: str = "F16",
    mmproj: str | None = None,
    name: str | None = None,
    marks: Mapping[str, int] | None = None,
    importance: Importance | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write the two files of a model folder; ``out`` appears whole or stays as it was.

    Args:
        model_folder: ``config.json``, ``model.safetensors`` (or shards) and, if there, ``tokenizer.json``; without
            it the language file takes ids and no text.
        out: the folder to write.
        quant: type of the language weights, one of ``export.gguf.QUANTS``.
        mmproj: ``F32`` or ``F16``. None takes F32 where ``quant`` is F32.
        name: shown by llama.cpp.
        marks: ids of marks such as ``<image>`` where there is no tokeniser.
        importance: how much an error of each input of a language matrix counts.
        progress: told how far it is.

    Raises:
        SettingError: unknown ``quant``.
        ModelError: the folder is not whole, llama.cpp has no part for this family, or ``out`` holds something else.
    """
    model_folder, out = Path(model_folder), Path(out)
    check_quant(quant)
    config = read_config(model_folder)
    check_family(config)
    check_kind(config.language)
    if out.exists() and not is_gguf_folder(out) and not (out.is_dir() and not any(out.iterdir())):
        raise ModelError(f"{out} exists and holds no GGUF model; give a new folder name")
    weights = TensorFolder.open(model_folder)
    tokenizer = model_folder / "tokenizer.json"
    unfinished = begin_folder(out)
    try:
        write_gguf(
            StoredRows(weights, "llm."),
            config.language,
            tokenizer if tokenizer.is_file() else None,
            unfinished / f"language-{quant}.gguf",
            quant=quant,
            name=name or out.stem,
            marks=marks,
            importance=importance,
            progress=progress,
        )
        write_mmproj(weights, config, unfinished / MMPROJ, kind=mmproj or ("F32" if quant == "F32" else "F16"))
        for file in COPIED:
            if (model_folder / file).is_file():
                shutil.copyfile(model_folder / file, unfinished / file)
        shutil.rmtree(out, ignore_errors=True)
        unfinished.rename(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return out
