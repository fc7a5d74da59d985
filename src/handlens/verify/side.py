"""One side of a comparison: anything that can take a case through the stages.

Boundary: opens the engine that a path asks for and imports no other; a bundle is compared without torch.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from handlens.config import HandlensConfig
from handlens.core.tokenizer import AnyTokenizer
from handlens.errors import ModelError, NeedsExtra
from handlens.families import Family
from handlens.verify.case import Case, Trace

VISUAL_NOISE = {"float32": 1e-4, "ONNX fp32": 1e-4, "llama.cpp F32": 2e-3, "llama.cpp F16": 1e-2, "bfloat16": 0.1,
                "float16": 1e-2, "ONNX int8": 0.3}  # fmt: skip
"""Largest difference of a visual token that a way of computing explains, for tokens of root mean square 1."""
LOGIT_NOISE = {"float32": 1e-4, "F32": 1e-4, "F16": 1e-2, "float16": 1e-2, "BF16": 0.2, "bfloat16": 0.3, "Q8_0": 0.1,
               "Q6_K": 0.25, "Q5_K_M": 0.5, "Q4_K_M": 1.0, "Q4_0": 1.5}  # fmt: skip
"""The same for logits."""
COARSEST = 2.0


@dataclass(frozen=True, kw_only=True)
class Precision:
    """How exactly a side computes."""

    vision: str
    """One of ``VISUAL_NOISE``."""
    language: str
    """One of ``LOGIT_NOISE``; another quantisation counts as the coarsest."""

    @property
    def visual_noise(self) -> float:
        """What rounding alone does to a visual token."""
        return VISUAL_NOISE.get(self.vision, 0.3)

    @property
    def logit_noise(self) -> float:
        """What rounding alone does to a logit, that of its visual tokens included."""
        return max(LOGIT_NOISE.get(self.language, COARSEST), 2 * self.visual_noise)


@runtime_checkable
class Side(Protocol):
    """A model as the contract sees it."""

    @property
    def name(self) -> str:
        """Its path."""
        ...

    @property
    def config(self) -> HandlensConfig:
        """Shape and family."""
        ...

    @property
    def family(self) -> Family:
        """Rules of the released version."""
        ...

    @property
    def tokenizer(self) -> AnyTokenizer:
        """Of the folder, or one that was given."""
        ...

    @property
    def precision(self) -> Precision:
        """How exactly it computes."""
        ...

    def trace(self, case: Case) -> Trace:
        """Take a case through all stages."""
        ...

    def close(self) -> None:
        """Release the weights."""
        ...


def find_kind(path: Path) -> str:
    """Return ``bundle``, ``gguf`` or ``torch``.

    Raises:
        ModelError: the path is no model folder.
    """
    if (path / "manifest.json").is_file():
        return "bundle"
    if (path / "config.json").is_file() and not any(path.glob("*.gguf")):
        return "torch"
    if path.is_dir() and any(path.glob("*.gguf")):
        return "gguf"
    raise ModelError(
        f"{path} is no model folder; give a bundle (manifest.json), a torch folder (config.json, model.safetensors) "
        "or a folder with a language GGUF and an mmproj GGUF"
    )


def open_side(path: Path, tokenizer: AnyTokenizer | None = None, *, kind: str | None = None) -> Side:
    """Open one side; ``tokenizer`` is used where the folder has none, ``kind`` chooses between two in one folder.

    Raises:
        ModelError: the folder is not whole.
        NeedsExtra: a torch folder without torch.
    """
    kind = kind or find_kind(path)
    if kind == "torch":
        try:
            from handlens.verify.torch_side import TorchSide
        except ModuleNotFoundError as cause:
            raise NeedsExtra(f"the torch model folder {path} ({cause.name} is missing)", "train") from None
        return TorchSide.open(path, tokenizer)
    from handlens.verify.device_side import BundleSide, GgufSide

    return BundleSide.open(path, tokenizer) if kind == "bundle" else GgufSide.open(path, tokenizer)


def find_tokenizer(folder: Path, given: AnyTokenizer | None = None) -> AnyTokenizer:
    """Return the tokenizer that was given, that of the folder, or the toy one of a reference that lies in it.

    Raises:
        ModelError: there is none.
    """
    from handlens.core.tokenizer import CharacterTokenizer, Tokenizer

    if given is not None:
        return given
    if (folder / "tokenizer.json").is_file():
        return Tokenizer.from_file(folder / "tokenizer.json")
    described = toy_fields(folder)
    return CharacterTokenizer.from_reference(described) if described else Tokenizer.from_folder(folder)


def toy_fields(folder: Path) -> dict[str, Any] | None:
    """Return the toy tokenizer that a reference in the folder describes, where the folder has no real one."""
    file = folder / "expected.json"
    if (folder / "tokenizer.json").is_file() or not file.is_file():
        return None
    try:
        return json.loads(file.read_text(encoding="utf-8")).get("toy_tokenizer")
    except (ValueError, AttributeError):
        raise ModelError(f"{file} is damaged; record it again") from None
