"""Which way an export takes: from torch weights, from a bundle, or from GGUF files.

Boundary: paths in, a path out; each way is a module of its own. Only torch weights that become a bundle need an extra.
"""

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from handlens.engine.bundle import MANIFEST, Bundle
from handlens.errors import ModelError, SettingError, did_you_mean
from handlens.export.bundle import VISIONS, _replace, begin_folder, export_bundle, write_manifest
from handlens.export.importance import Importance
from handlens.export.llama_cpp import COPIED, export_gguf, is_gguf_folder
from handlens.export.mixes import check_quant
from handlens.export.quantise import quantise_gguf
from handlens.export.stream import Progress
from handlens.export.vision_variants import write_variant
from handlens.measure.known import KNOWN, list_in_manifest, record_known


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """How a model is to be stored."""

    quant: str = "Q8_0"
    """One of ``mixes.MIXES``."""
    vision: str | None = None
    """One of ``bundle.VISIONS``; None keeps what is there, or takes fp32."""
    name: str | None = None
    """Of the model; None takes that of the folder."""
    weights: bool = False
    """Copy torch weights too."""
    mmproj: bool = False
    """Put the vision part of llama.cpp into a bundle."""
    importance: Importance | None = None
    again: bool = False
    """Also round what has few bits already."""


def kind_of(model: Path) -> str:
    """Return ``torch``, ``bundle``, ``gguf folder`` or ``gguf file``.

    Raises:
        ModelError: it is none of them.
    """
    if model.is_file() and model.suffix == ".gguf":
        return "gguf file"
    if model.is_file():
        raise ModelError(f"{model} is a file; export reads a model folder, a bundle or a .gguf file")
    has_weights = any((model / name).is_file() for name in ("model.safetensors", "model.safetensors.index.json"))
    if (model / MANIFEST).is_file() and not has_weights:
        return "bundle"
    return "gguf folder" if is_gguf_folder(model) and not has_weights else "torch"


def check_vision(vision: str | None) -> None:
    """Raise ``SettingError`` unless the name is one of ``VISIONS`` or None."""
    if vision is not None and vision not in VISIONS:
        raise SettingError(f"unknown vision variant '{vision}'{did_you_mean(vision, VISIONS)}")


def export_model(model: Path, out: Path, kind: str, wanted: Wanted, progress: Progress | None = None) -> Path:
    """Write ``out``: a folder of the ``kind`` ``bundle`` or ``gguf``, or a file where ``model`` is one.

    Raises:
        SettingError: an unknown name, a way that does not exist, or few bits without ``wanted.again``.
        ModelError: the model is not whole, or ``out`` holds something else.
        NeedsExtra: what this way needs is not installed.
    """
    check_quant(wanted.quant)
    source = kind_of(model)
    if source == "torch" and kind == "gguf":
        return export_gguf(
            model, out, quant=wanted.quant, name=wanted.name, importance=wanted.importance, progress=progress
        )
    if source == "torch":
        return export_bundle(
            model, out, quant=wanted.quant, vision=wanted.vision or "fp32", name=wanted.name, weights=wanted.weights,
            mmproj=wanted.mmproj, importance=wanted.importance, progress=progress,
        )  # fmt: skip
    if wanted.weights or wanted.mmproj:
        raise SettingError(
            f"{model} has no torch weights, so --weights and --mmproj have nothing to take; leave them out"
        )
    if source == "bundle" and kind == "bundle":
        return _from_bundle(model, out, wanted, progress)
    if source == "bundle":
        raise SettingError(f"{model} has no torch weights, so it stays a bundle; leave out --format gguf")
    if wanted.vision:
        raise SettingError(f"{model} has no ONNX vision half; leave out --vision")
    if source == "gguf folder":
        return _from_folder(model, out, wanted, progress)
    if out.is_dir():
        raise ModelError(f"{out} is a folder; one GGUF file becomes one file, for example --to {out / model.name}")
    return _quantise(model, out, wanted, progress)


def _quantise(source: Path, out: Path, wanted: Wanted, progress: Progress | None) -> Path:
    return quantise_gguf(
        source, out, quant=wanted.quant, importance=wanted.importance, again=wanted.again, progress=progress
    )


def _from_bundle(model: Path, out: Path, wanted: Wanted, progress: Progress | None) -> Path:
    """Write another variant of a bundle; a half that is as wanted is copied."""
    bundle = Bundle.open(model)
    if out.exists() and out.resolve() == model.resolve():
        raise SettingError(f"{out} is the bundle that is read; give another folder")
    if out.exists() and not (out / MANIFEST).is_file() and any(out.iterdir()):
        raise ModelError(f"{out} exists and is no bundle; give a new folder name")
    vision = next((name for name, file in VISIONS.items() if file == bundle.vision), bundle.vision)
    if wanted.vision not in (None, vision) and vision != "fp32":
        raise SettingError(
            f"{model} holds its vision half as {vision}; {wanted.vision} is made from fp32; leave out --vision"
        )
    unfinished = begin_folder(out)
    try:
        language = f"language-{wanted.quant}.gguf"
        if bundle.language == language:
            shutil.copyfile(bundle.file(language), unfinished / language)
        else:
            _quantise(bundle.file(bundle.language), unfinished / language, wanted, progress)
        if wanted.vision in (None, vision):
            for name in bundle.parts(bundle.vision):
                shutil.copyfile(bundle.file(name), unfinished / name)
        else:
            write_variant(bundle.file(bundle.vision), unfinished, str(wanted.vision), bundle.config)
        for name in bundle.manifest["files"]:
            if not name.endswith((".gguf", ".onnx", ".data")) and name != KNOWN:
                shutil.copyfile(bundle.file(name), unfinished / name)
        manifest = bundle.manifest
        write_manifest(
            unfinished,
            bundle.config,
            name=wanted.name or out.stem,
            licence=str(manifest.get("licence", "")),
            ledger=manifest.get("ledger"),
        )
        record_known(unfinished)  # other weights, other answers
        _replace(unfinished, out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return out


def add_variants(out: Path, model: Path, variants: Sequence[str], wanted: Wanted) -> None:
    """Put more variants of its halves into a bundle that was just made of ``model``; its own stay what they are.

    ``handlens tune`` chooses among them.

    Args:
        out: the bundle.
        model: torch weights, or a bundle in floats.
        variants: quantisations of the language half and names of ``VISIONS``.
        wanted: as the bundle was made.

    Raises:
        SettingError: an unknown variant, or one that cannot be made of this model.
    """
    check_variants(model, variants)
    bundle = Bundle.open(out, verify=False)
    own = {"vision": bundle.vision, "language": bundle.language}
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        for variant in variants:
            for file in _write_variants(model, Path(folder), variant, bundle, wanted):
                if file.name not in bundle.manifest["files"]:
                    file.replace(out / file.name)
                    list_in_manifest(out / file.name)
    manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8")) | own
    (out / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def check_variants(model: Path, variants: Sequence[str]) -> None:
    """Raise ``SettingError`` for a variant that cannot be made, before anything is."""
    for variant in variants:
        if variant not in VISIONS:
            check_quant(variant)
    kind = kind_of(model)
    if kind == "bundle" and any(variant in VISIONS for variant in variants):
        held = Bundle.open(model, verify=False).vision
        if held != VISIONS["fp32"]:
            raise SettingError(f"{model} holds its vision half as {held}; others are made from {VISIONS['fp32']}")
    if variants and kind not in ("torch", "bundle"):
        raise SettingError(f"{model} makes no bundle, and only a bundle holds several variants; leave out --also")


def _write_variants(model: Path, folder: Path, variant: str, bundle: Bundle, wanted: Wanted) -> list[Path]:
    """Write one variant; return its files."""
    if kind_of(model) == "torch":
        from handlens.export.halves import write_half

        file = write_half(
            model, folder, variant, name=str(bundle.manifest["name"]), importance=wanted.importance
        )  # fmt: skip
    else:
        source = Bundle.open(model)
        if variant not in VISIONS:
            file = _quantise(
                source.file(source.language), folder / f"language-{variant}.gguf", replace(wanted, quant=variant), None
            )
        elif VISIONS[variant] == source.vision:
            return []
        else:
            file = write_variant(source.file(source.vision), folder, variant, source.config)
    return sorted(folder.glob(f"{file.name}*"))


def _from_folder(model: Path, out: Path, wanted: Wanted, progress: Progress | None) -> Path:
    """Quantise the language file of two; the rest is copied."""
    files = sorted(model.glob("*.gguf"))
    languages = [file for file in files if "mmproj" not in file.name]
    if len(languages) != 1:
        raise ModelError(f"{model} has {len(languages)} language GGUF files; one is needed; give the path of one")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ModelError(f"{out} exists; give a new folder name")
    unfinished = begin_folder(out)
    try:
        _quantise(languages[0], unfinished / f"language-{wanted.quant}.gguf", wanted, progress)
        for file in [*(file for file in files if file not in languages), *(model / name for name in COPIED)]:
            if file.is_file():
                shutil.copyfile(file, unfinished / file.name)
        _replace(unfinished, out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return out


def sizes_of(out: Path) -> dict[str, int]:
    """Return name -> bytes of what was written."""
    return {file.name: file.stat().st_size for file in (sorted(out.iterdir()) if out.is_dir() else [out])}


def language_of(out: Path) -> Path:
    """Return the language file of what was written."""
    if (out / MANIFEST).is_file():
        return out / Bundle.open(out, verify=False).language
    return out if out.is_file() else next(file for file in sorted(out.glob("*.gguf")) if "mmproj" not in file.name)
