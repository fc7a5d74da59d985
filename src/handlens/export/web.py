"""Write a model as a folder that a browser runs by itself: page, ONNX Runtime Web, both halves and the tokenizer.

Boundary: a bundle that holds its torch weights in, a folder of static files out; no torch. The page and its JavaScript
lie in ``serve/offline_page``; what differs between models is data in ``model.json``.
"""

import hashlib
import json
import lzma
import math
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from handlens.config import HandlensConfig
from handlens.engine.bundle import Bundle
from handlens.engine.llama import quantise_rows
from handlens.errors import ModelError, SettingError
from handlens.export.bundle import _replace
from handlens.export.onnx import write_vision
from handlens.export.onnx_language import check_language, write_language
from handlens.export.packed import PackedGraph, Storage
from handlens.export.tensor_file import TensorFolder
from handlens.families import family_named

PAGE = Path(__file__).parents[1] / "serve" / "offline_page"
STYLE = PAGE.parent / "page" / "page.css"
"""The style of the page that a server answers; both look the same."""
VISIONS: dict[str, Storage] = {"f16": "f16", "int8": "q8"}
MOST_BYTES = 40_000_000
"""A phone fetches all of it once and keeps it."""
RULES = ("bucketised", "floor")
"""Position rules that the page knows."""
MARKER = "sw.js"
"""The file by which a folder is known as one of ours."""
SPACES = r"\t-\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
r"""What ``\s`` means in a tokenizer file; in JavaScript it means U+FEFF too, and U+0085 not."""


def export_web(model: Path | str, out: Path | str, *, vision: str | None = None) -> Path:
    """Write the folder ``out`` whole or not at all; an older one in its place is replaced.

    Args:
        model: a bundle with ``model.safetensors``, as ``nano`` is.
        out: the folder.
        vision: how the vision weights are stored, ``f16`` or ``int8``; None takes ``f16`` where that is not too much.
            The language weights are those of Q8_0.

    Raises:
        ModelError: not such a bundle, a model that the page cannot run, more than 40 MB, or ``out`` is another folder.
        SettingError: unknown ``vision``.
    """
    if vision is not None and vision not in VISIONS:
        raise SettingError(f"unknown vision weights '{vision}' for a browser; known: {', '.join(VISIONS)}")
    bundle, out = Bundle.open(model), Path(out)
    _check(bundle)
    if out.exists() and not (out / MARKER).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise ModelError(f"{out} exists and is no folder of a page; give a new folder name")
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(f".{out.name}.{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        _copy_page(unfinished)
        _write_model(bundle, unfinished, VISIONS[vision or "f16"])
        if vision is None and _num_bytes(unfinished) > MOST_BYTES:
            _write_vision(bundle, unfinished, VISIONS["int8"])
        _write_service_worker(unfinished)
        _replace(unfinished, out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return out


def _check(bundle: Bundle) -> None:
    config, family = bundle.config, bundle.family
    check_language(config.language)
    if "model.safetensors" not in bundle.manifest["files"]:
        raise ModelError(
            f"{bundle.folder} has no model.safetensors, from which the halves of a page are made; "
            "export the bundle again with --weights"
        )
    if family.tower != "siglip" or family.position_rule not in RULES:
        raise ModelError(f"family {family.name} does not run in a browser here; nano, 2.6 and 4.0 have what it takes")


def _copy_page(folder: Path) -> None:
    shutil.copytree(PAGE, folder, ignore=shutil.ignore_patterns("*.xz", "README.md", "__pycache__"))
    shutil.copyfile(STYLE, folder / "page.css")
    for packed in (PAGE / "runtime").glob("*.xz"):
        (folder / "runtime" / packed.stem).write_bytes(lzma.decompress(packed.read_bytes()))


def _write_model(bundle: Bundle, folder: Path, vision: Storage) -> None:
    bundle.file("model.safetensors")  # compares the hash
    _write_vision(bundle, folder, vision)
    weights = TensorFolder.open(bundle.folder)
    language = {name.removeprefix("llm."): weights[name] for name in weights if name.startswith("llm.")}
    write_language(language, bundle.config.language, folder / "language.onnx")
    table = np.ascontiguousarray(language["model.embed_tokens.weight"])
    (folder / "embeddings.bin").write_bytes(quantise_rows(table, "Q8_0").tobytes())
    tokenizer = json.loads(bundle.file("tokenizer.json").read_text(encoding="utf-8"))
    _write_json(folder / "tokenizer.json", tokenizer)
    info = bundle.info
    facts = {"name": info.name, "notice": info.notice, "pattern": word_pattern(tokenizer)}
    _write_json(folder / "model.json", facts | rules_of(bundle.config))


def _write_vision(bundle: Bundle, folder: Path, vision: Storage) -> None:
    weights = TensorFolder.open(bundle.folder)
    write_vision(weights, bundle.config, folder / "vision.onnx", graph=PackedGraph(vision))


def _num_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def rules_of(config: HandlensConfig) -> dict[str, Any]:
    """Return what the JavaScript must know to prepare pictures and prompts of a model."""
    family = family_named(config.family)
    side_px, most, patch_px = config.slicing.side_px, config.slicing.max_slices, config.slicing.patch_px
    return {
        "slicing": {"side_px": side_px, "max_slices": most, "patch_px": patch_px, "logs": grid_logs(most)},
        "positions": {"rule": family.position_rule, "table_side": config.vision.table_side},
        "schema": family.schema,
        "uses_image_id": family.uses_image_id,
        "placeholder": family.placeholder,
        "template": asdict(family.template),
        "num_queries": config.resampler.num_queries,
        "width": config.resampler.width,
        "language": {
            "width": config.language.width,
            "vocab_size": config.language.vocab_size,
            "num_layers": config.language.num_layers,
            "key_width": config.language.num_kv_heads * config.language.head_dim,
            "max_positions": config.language.max_positions,
        },
    }


def grid_logs(max_slices: int) -> dict[str, float]:
    """Return the logarithm of the shape of every grid, under the shape as JavaScript writes it.

    >>> grid_logs(2)
    {'1': 0.0, '0.5': -0.6931471805599453, '2': 0.6931471805599453}
    """
    shapes = {
        columns / rows
        for columns in range(1, max_slices + 1)
        for rows in range(1, max_slices + 1)
        if columns * rows <= max_slices
    }
    ordered = sorted(shapes, key=lambda shape: (abs(math.log(shape)), shape))
    # Python and JavaScript both write the shortest digits that give the number back.
    return {str(int(shape)) if shape.is_integer() else repr(shape): math.log(shape) for shape in ordered}


def word_pattern(tokenizer: Mapping[str, Any]) -> str:
    """Return the word rule of a ``tokenizer.json`` as an expression that every browser reads.

    Raises:
        ModelError: the tokenizer is no byte-level BPE with one word rule.
    """
    steps = (tokenizer.get("pre_tokenizer") or {}).get("pretokenizers") or []
    splits = [step for step in steps if step.get("type") == "Split"]
    words = splits[0].get("pattern", {}).get("Regex") if len(splits) == 1 else None
    is_plain = tokenizer.get("normalizer") is None and len(steps) == 2 and steps[1].get("type") == "ByteLevel"
    marks = tokenizer.get("added_tokens") or []
    if not (is_plain and words and splits[0].get("behavior") == "Isolated" and not splits[0].get("invert")):
        raise ModelError("the page reads tokenizers of one kind: byte-level BPE with one word rule, as nano's")
    if any(mark.get(key) for mark in marks for key in ("single_word", "lstrip", "rstrip", "normalized")):
        raise ModelError("the tokenizer has marks that take white space along; the page does not know such marks")
    return _spell_out(words)


def _spell_out(pattern: str) -> str:
    r"""Replace what JavaScript lacks or means differently: ``(?i:...)`` and ``\s``.

    >>> _spell_out(r"(?i:'ve)|[^\r]+")
    "(?:'[vV][eE])|[^\\r]+"
    >>> _spell_out(r"[\s]") == f"[{SPACES}]", _spell_out(r"\S") == f"[^{SPACES}]"
    (True, True)
    """
    # Without regard to case an s is also the long s, as in the engine of the tokenizers library.
    more = {"s": r"\u017f", "k": r"\u212a"}

    def both_cases(found: re.Match[str]) -> str:
        letters = re.sub(r"[a-z]", lambda at: f"[{at[0]}{at[0].upper()}{more.get(at[0], '')}]", found[1])
        return f"(?:{letters})"

    spelled = re.sub(r"\(\?i:([^()\\\[\]]*)\)", both_cases, pattern)
    out, is_class, place = "", False, 0
    while place < len(spelled):
        pair = spelled[place : place + 2]
        if pair == r"\s":
            out += SPACES if is_class else f"[{SPACES}]"
        elif pair == r"\S" and not is_class:
            out += f"[^{SPACES}]"
        elif pair[0] == "\\":
            out += pair
        else:
            is_class = (is_class or pair[0] == "[") and pair[0] != "]"
            out, place = out + pair[0], place - 1
        place += 2
    return out


def _write_service_worker(folder: Path) -> None:
    """Put the list of files, and a name for this content, above the service worker."""
    rest = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != MARKER)
    names = {file.relative_to(folder).as_posix(): file for file in rest}
    sizes = {name: file.stat().st_size for name, file in names.items()}
    if sum(sizes.values()) > MOST_BYTES:
        raise ModelError(
            f"the page would be {sum(sizes.values()) / 1e6:.1f} MB, {MOST_BYTES / 1e6:.0f} MB are allowed; "
            "take a smaller model"
        )
    digest = hashlib.sha256()
    for name, file in names.items():
        digest.update(name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    worker = folder / MARKER
    body = worker.read_text(encoding="utf-8")
    digest.update(body.encode())
    head = f'const VERSION = "{digest.hexdigest()[:16]}";\nconst FILES = {json.dumps(sizes)};\n'
    worker.write_text(head + body, encoding="utf-8")


def _write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
