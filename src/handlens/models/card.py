"""What a model is: family, sizes, licence, hashes, and what it needs to run.

Boundary: reads manifests, configurations and headers; loads no weights.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handlens.engine.bundle import Bundle, sha256_of
from handlens.errors import HandlensError
from handlens.models.pull import RECORD
from handlens.verify.side import find_kind

NEEDS = {
    "bundle": "the base install",
    "gguf": "the base install; language and mmproj files are run by llama.cpp",
    "torch": "the extra 'train': pip install 'handlens[train]'",
    "adapter": "the extra 'train', and the model it was trained on",
}

HALVES = (".onnx", ".onnx.data", ".gguf")


@dataclass(frozen=True, kw_only=True)
class Card:
    """One model, described."""

    name: str
    folder: Path
    kind: str
    """``bundle``, ``torch``, ``gguf`` or ``adapter``."""
    family: str
    licence: str
    files: dict[str, dict[str, Any]]
    """File -> bytes and sha256."""
    parameters: int | None
    notice: str = ""

    @property
    def num_bytes(self) -> int:
        """Bytes of all files."""
        return sum(int(facts["bytes"]) for facts in self.files.values())

    @property
    def memory_bytes(self) -> int:
        """Memory that its weights take: of a bundle the larger half, of a torch model float32."""
        if self.kind == "torch" and self.parameters:
            return 4 * self.parameters
        return max((int(facts["bytes"]) for name, facts in self.files.items() if name.endswith(HALVES)), default=0)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "name": self.name,
            "folder": str(self.folder),
            "kind": self.kind,
            "family": self.family,
            "licence": self.licence,
            "parameters": self.parameters,
            "bytes": self.num_bytes,
            "files": self.files,
            "needs": {"install": NEEDS[self.kind], "memory_bytes": self.memory_bytes},
            "notice": self.notice,
        }


def describe_model(name: str, folder: Path, *, hashes: bool = True) -> Card:
    """Read a model folder; ``hashes`` also computes the sha256 of files whose hash stands nowhere.

    Raises:
        ModelError: the folder is no whole model.
    """
    if (folder / "adapter_config.json").is_file():
        kind, family, parameters = "adapter", _adapter_base(folder), None
    else:
        kind = find_kind(folder)
        family, parameters = _measure(folder, kind)
    known = _known_hashes(folder, kind)
    files = {
        str(file.relative_to(folder)): {
            "bytes": file.stat().st_size,
            "sha256": known.get(file.name) or (sha256_of(file) if hashes else None),
        }
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    }
    notice = Bundle.open(folder, verify=False).info.notice if kind == "bundle" else ""
    return Card(
        name=name,
        folder=folder,
        kind=kind,
        family=family,
        licence=_licence(folder),
        files=files,
        parameters=parameters,
        notice=notice,
    )


def _measure(folder: Path, kind: str) -> tuple[str, int | None]:
    """Return family and number of weights."""
    from handlens.engine.gguf_header import read_header
    from handlens.export.llama_cpp import GgufFolder, read_config
    from handlens.export.tensor_file import TensorFolder

    if kind == "bundle":
        bundle = Bundle.open(folder, verify=False)
        return bundle.family.name, None
    if kind == "gguf":
        files = GgufFolder.open(folder)
        headers = [read_header(file) for file in (files.language, files.mmproj)]
        return files.config.family, sum(fact.num_values for header in headers for fact in header.tensors.values())
    weights = TensorFolder.open(folder)
    count = 0
    for place in weights.tensors.values():
        size = 1
        for length in place.shape:
            size *= length
        count += size
    return read_config(folder).family, count


def _known_hashes(folder: Path, kind: str) -> dict[str, str]:
    if kind == "bundle":
        return {name: facts["sha256"] for name, facts in Bundle.open(folder, verify=False).manifest["files"].items()}
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        return {name: facts["sha256"] for name, facts in record["files"].items() if facts.get("sha256")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _licence(folder: Path) -> str:
    """Return the licence that manifest, fetch record or README name; ``unknown`` where none does."""
    for file in ("manifest.json", RECORD):
        try:
            found = json.loads((folder / file).read_text(encoding="utf-8")).get("licence")
        except (OSError, ValueError, AttributeError):
            continue
        if found:
            return str(found)
    readme = folder / "README.md"
    if readme.is_file():
        head = readme.read_text(encoding="utf-8", errors="replace")[:5000]
        if found := re.search(r"^license:\s*(\S+)", head, re.MULTILINE):
            return found.group(1)
    return "unknown"


def _adapter_base(folder: Path) -> str:
    try:
        fields = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        return f"adapter of {fields.get('base_model_name_or_path') or 'an unnamed model'}"
    except (OSError, ValueError, AttributeError) as cause:
        raise HandlensError(f"{folder / 'adapter_config.json'} is damaged: {cause}; copy it again") from None
