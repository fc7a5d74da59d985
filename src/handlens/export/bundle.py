"""Write a bundle: the folder that a device needs, whole or not at all.

Boundary: ``export_bundle`` imports torch when it is called; ``engine/bundle.py`` reads what is written here.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from handlens.config import HandlensConfig
from handlens.engine.bundle import FORMAT, MANIFEST, fingerprint, sha256_of
from handlens.errors import ModelError, NeedsExtra, SettingError, did_you_mean

VISIONS = {
    "fp32": "vision.onnx", "bf16": "vision-bf16.onnx", "fp16": "vision-fp16.onnx", "int8": "vision-int8.onnx",
    "int8-static": "vision-int8-static.onnx",
}  # fmt: skip
"""Variants of the vision half and their file names."""


def write_manifest(folder: Path, config: HandlensConfig, *, name: str, licence: str, ledger: Any) -> None:
    """Write ``manifest.json`` over all other files of the folder."""
    files = sorted(file for file in folder.iterdir() if file.name != MANIFEST)
    manifest = {
        "format": FORMAT,
        "name": name,
        "family": config.family,
        "licence": licence,
        "fingerprint": fingerprint(config),
        "config": config.to_official(),
        "files": {file.name: {"sha256": sha256_of(file), "bytes": file.stat().st_size} for file in files},
        "ledger": ledger,
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def export_bundle(
    model_folder: Path | str,
    out: Path | str,
    *,
    quant: str = "Q8_0",
    vision: str = "fp32",
    name: str | None = None,
    licence: str = "Apache-2.0",
    weights: bool = False,
    mmproj: bool = False,
    importance: Any = None,
    progress: Any = None,
) -> Path:
    """Write a bundle of a torch model folder; ``out`` appears whole or stays as it was.

    Args:
        model_folder: ``config.json``, ``model.safetensors``, ``tokenizer.json`` and, if there, ``ledger.json``,
            whose ``notice`` is said with every answer.
        out: the folder to write; an older bundle in its place is replaced.
        quant: type of the language weights, one of ``export.gguf.QUANTS``.
        vision: one of ``VISIONS``.
        name: defaults to the name of ``out``.
        licence: SPDX name of the licence of the weights.
        weights: also copy ``config.json`` and ``model.safetensors``, so that the folder can be trained further.
        mmproj: also write the vision part for stock llama.cpp.
        importance: an ``importance.Importance`` for the language matrices.
        progress: a ``stream.Progress``, told how far it is.

    Raises:
        NeedsExtra: the package onnx is not installed.
        SettingError: unknown ``quant`` or ``vision``.
        ModelError: the model folder cannot be read, or ``out`` is a folder that is no bundle.
    """
    model_folder, out = Path(model_folder), Path(out)
    if vision not in VISIONS:
        raise SettingError(f"unknown vision variant '{vision}'{did_you_mean(vision, VISIONS)}")
    refuse_to_overwrite(out)
    try:
        from handlens.export.halves import write_halves
        from handlens.measure.known import record_known
    except ModuleNotFoundError as cause:
        raise NeedsExtra(f"export ({cause.name} is missing)", "train") from None
    unfinished = begin_folder(out)
    try:
        config = write_halves(
            model_folder, unfinished, quant=quant, vision=vision, name=name or out.stem, mmproj=mmproj,
            importance=importance, progress=progress,
        )  # fmt: skip
        copied = ("tokenizer.json", "config.json", "model.safetensors") if weights else ("tokenizer.json",)
        for file in copied:
            shutil.copyfile(model_folder / file, unfinished / file)
        ledger_file = model_folder / "ledger.json"
        ledger = json.loads(ledger_file.read_text(encoding="utf-8")) if ledger_file.is_file() else None
        write_manifest(unfinished, config, name=name or out.stem, licence=licence, ledger=ledger)
        record_known(unfinished)  # what `handlens doctor` asks later
        _replace(unfinished, out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return out


def begin_folder(out: Path) -> Path:
    """Return an empty folder beside ``out``, in which it is made before it appears whole.

    Raises:
        SettingError: nothing can be written there.
    """
    unfinished = out.with_name(f".{out.name}.{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True)
    except OSError as cause:
        why = cause.strerror or cause
        raise SettingError(f"cannot write {out}: {why}; give a folder that can be written") from None
    return unfinished


def refuse_to_overwrite(out: Path) -> None:
    """Refuse a place where something else than a bundle lies.

    Raises:
        ModelError: a file, or a full folder that is no bundle.
    """
    if out.exists() and not (out / MANIFEST).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise ModelError(f"{out} exists and is no bundle; give a new folder name")


def _replace(new: Path, target: Path) -> None:
    """Put the new folder in the place of the old one; a folder cannot be renamed over a full one."""
    old = target.with_name(f".{target.name}.old.{os.getpid()}")
    if target.exists():
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)
