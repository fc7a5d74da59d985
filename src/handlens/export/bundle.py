"""A bundle: the folder that a device needs, whole and checked.

Boundary: reading needs no torch; ``export_bundle`` imports it when it is called. A folder holds
``vision.onnx``, ``language-<quant>.gguf``, ``tokenizer.json`` and ``manifest.json``.
"""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handlens.answerer import ModelInfo
from handlens.config import HandlensConfig
from handlens.errors import ModelError, NeedsExtra, SettingError, did_you_mean
from handlens.families import Family, family_named

FORMAT = 1
"""Version of ``manifest.json``."""
PREPARATION = 1
"""Raised whenever ``core`` begins to prepare pictures or prompts differently."""
MANIFEST = "manifest.json"
MMPROJ = "mmproj.gguf"
"""The vision part for stock llama.cpp; a bundle may have it."""
VISIONS = {
    "fp32": "vision.onnx", "bf16": "vision-bf16.onnx", "fp16": "vision-fp16.onnx", "int8": "vision-int8.onnx",
    "int8-static": "vision-int8-static.onnx",
}  # fmt: skip
"""Variants of the vision half and their file names."""


def fingerprint(config: HandlensConfig) -> str:
    """Return the sha256 of everything that decides how a picture is prepared for this model."""
    family = family_named(config.family)
    facts = {
        "preparation": PREPARATION,
        "slicing": {
            "side_px": config.slicing.side_px,
            "max_slices": config.slicing.max_slices,
            "patch_px": config.slicing.patch_px,
            "order": "resize_then_crop",
            "filter": "bicubic",
        },
        "normalise": {"mean": 0.5, "deviation": 0.5},
        "positions": {"rule": family.position_rule, "table_side": config.vision.table_side},
        "prompt": {"schema": family.schema, "uses_image_id": family.uses_image_id},
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def sha256_of(file: Path) -> str:
    """Return the sha256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """An opened bundle folder; hashes are compared when a file is asked for."""

    folder: Path
    manifest: dict[str, Any]
    config: HandlensConfig
    verify: bool = True

    @classmethod
    def open(cls, path: Path | str, *, verify: bool = True) -> "Bundle":
        """Read the manifest and see that every file is there with its size.

        Raises:
            ModelError: not a folder, no manifest, a damaged manifest, a missing or cut file, or a bundle whose
                pictures were prepared differently.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise ModelError(
                f"{folder} is not a folder; a bundle is a folder with {MANIFEST}, vision and language files"
            )
        manifest = _read_manifest(folder / MANIFEST)
        try:
            config = HandlensConfig.from_official(dict(manifest["config"]))
            sizes = {name: int(facts["bytes"]) for name, facts in manifest["files"].items() if str(facts["sha256"])}
        except (KeyError, TypeError, AttributeError) as cause:
            raise ModelError(
                f"{folder / MANIFEST} is damaged ({type(cause).__name__}: {cause}); copy the bundle again"
            ) from None
        for name, size in sizes.items():
            _check_size(folder / name, size)
        bundle = cls(folder=folder, manifest=manifest, config=config, verify=verify)
        ours = fingerprint(bundle.config)
        if manifest["fingerprint"] != ours:
            raise ModelError(
                f"{folder} was made for another preparation of pictures ({manifest['fingerprint'][:12]}, this release "
                f"has {ours[:12]}); export it again with this release"
            )
        return bundle

    def file(self, name: str) -> Path:
        """Return the path of a file after its hash was compared.

        Raises:
            ModelError: the file changed since the bundle was written.
        """
        file = self.folder / name
        if self.verify:
            expected, found = self.manifest["files"][name]["sha256"], sha256_of(file)
            if found != expected:
                raise ModelError(
                    f"{file} is damaged: its sha256 begins {found[:12]}, the manifest says {expected[:12]}; "
                    "copy the bundle again or export it again"
                )
        return file

    def check(self) -> None:
        """Compare the hash of every file; raises ``ModelError`` at the first that differs."""
        for name in self.manifest["files"]:
            Bundle(folder=self.folder, manifest=self.manifest, config=self.config).file(name)

    @property
    def vision(self) -> str:
        """Name of the vision file."""
        return self._one(".onnx")

    @property
    def language(self) -> str:
        """Name of the language file."""
        return next(name for name in sorted(self.manifest["files"]) if name.endswith(".gguf") and name != MMPROJ)

    @property
    def mmproj(self) -> str | None:
        """Name of the vision file for llama.cpp, where the bundle has one."""
        return MMPROJ if MMPROJ in self.manifest["files"] else None

    def _one(self, ending: str) -> str:
        return next(name for name in sorted(self.manifest["files"]) if name.endswith(ending))

    @property
    def family(self) -> Family:
        """The released version whose rules this model follows."""
        return family_named(self.config.family)

    @property
    def info(self) -> ModelInfo:
        """What the model is and how it runs here."""
        return ModelInfo(
            name=self.manifest["name"],
            family=self.config.family,
            engine="onnxruntime+llama.cpp",
            num_queries=self.config.resampler.num_queries,
            side_px=self.config.slicing.side_px,
            max_slices=self.config.slicing.max_slices,
            quantisation=self.language.removeprefix("language-").removesuffix(".gguf"),
            notice=str((self.manifest.get("ledger") or {}).get("notice", "")),
        )


def _read_manifest(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise ModelError(f"{file.parent} has no {MANIFEST}, so it is no bundle; make one with `handlens export`")
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        made_by = manifest["format"]
    except (ValueError, KeyError, TypeError, OSError) as cause:
        raise ModelError(f"{file} is damaged ({type(cause).__name__}: {cause}); copy the bundle again") from None
    if made_by != FORMAT:
        raise ModelError(f"{file} has format {made_by}; this release reads {FORMAT}; export the bundle again")
    missing = [key for key in ("name", "config", "fingerprint", "files") if key not in manifest]
    parts = (".onnx", ".gguf", "tokenizer.json")
    missing += [part for part in parts if not any(name.endswith(part) for name in manifest.get("files", ()))]
    strange = [name for name in manifest.get("files", ()) if Path(name).name != name]
    if strange:
        raise ModelError(f"{file} names '{strange[0]}', which is no file of its folder; do not trust this bundle")
    if missing:
        raise ModelError(f"{file} lacks {', '.join(missing)}; copy the bundle again")
    return manifest


def _check_size(file: Path, expected: int) -> None:
    if not file.is_file():
        raise ModelError(f"{file.parent} lacks {file.name}, which its manifest names; copy the bundle again")
    found = file.stat().st_size
    if found != expected:
        raise ModelError(
            f"{file} has {found:,} bytes, the manifest says {expected:,}; it is cut or changed; copy the bundle again"
        )


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
    _refuse_to_overwrite(out)
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


def _refuse_to_overwrite(out: Path) -> None:
    if out.exists() and not (out / MANIFEST).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise ModelError(f"{out} exists and is no bundle; give a new folder name")


def _replace(new: Path, target: Path) -> None:
    """Put the new folder in the place of the old one; a folder cannot be renamed over a full one."""
    old = target.with_name(f".{target.name}.old.{os.getpid()}")
    if target.exists():
        target.rename(old)
    new.rename(target)
    shutil.rmtree(old, ignore_errors=True)
