"""A bundle: the folder that a device needs, opened and checked.

Boundary: reads only and needs no torch; ``export/bundle.py`` writes. A folder holds ``vision.onnx``,
``language-<quant>.gguf``, ``tokenizer.json`` and ``manifest.json``.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handlens.answerer import ModelInfo
from handlens.config import HandlensConfig
from handlens.errors import ModelError
from handlens.families import Family, family_named

FORMAT = 1
"""Version of ``manifest.json``."""
PREPARATION = 1
"""Raised whenever ``core`` begins to prepare pictures or prompts differently."""
MANIFEST = "manifest.json"
MMPROJ = "mmproj.gguf"
"""The vision part for stock llama.cpp; a bundle may have it."""


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

    def parts(self, name: str) -> list[str]:
        """Return a file and what belongs to it: large weights of a graph lie in a file beside it."""
        return [part for part in sorted(self.manifest["files"]) if part == name or part.startswith(f"{name}.")]

    def check(self) -> None:
        """Compare the hash of every file; raises ``ModelError`` at the first that differs."""
        for name in self.manifest["files"]:
            Bundle(folder=self.folder, manifest=self.manifest, config=self.config).file(name)

    @property
    def vision(self) -> str:
        """Name of the vision file; of several the one that the manifest calls its own."""
        return str(self.manifest.get("vision") or self._one(".onnx"))

    @property
    def language(self) -> str:
        """Name of the language file; of several the one that the manifest calls its own."""
        return str(self.manifest.get("language") or self._first_gguf())

    def _first_gguf(self) -> str:
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
    missing += [str(manifest[half]) for half in ("vision", "language") if manifest.get(half, "") not in
                ("", *manifest.get("files", ()))]  # fmt: skip
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
