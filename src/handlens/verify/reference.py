"""Read and write a recorded reference: ``expected.json``, ``expected.safetensors`` and the pictures.

Boundary: files and numpy. The format is that of the references made with the released code.
"""

import contextlib
import json
import lzma
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from handlens.core.images import open_picture
from handlens.core.tokenizer import AnyTokenizer, CharacterTokenizer
from handlens.errors import DataError, HandlensError
from handlens.export.tensor_file import read_tensors, write_tensors
from handlens.verify.case import LAST_ROWS, Case, Trace
from handlens.verify.expected import Expected, hash_of, norms_of

FACTS, TENSORS = "expected.json", "expected.safetensors"
NUM_PIXELS, NUM_VALUES = 1000, 2000
"""Sampled numbers per case."""


@contextlib.contextmanager
def unpacked(folder: Path) -> Iterator[Path]:
    """Give a folder whose files are as they are; ``NAME.xz`` is unpacked into a copy for the time being.

    Raises:
        DataError: a packed file is damaged.
    """
    if not folder.is_dir() or not any(folder.glob("*.xz")):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="handlens-") as name:
        for file in filter(Path.is_file, folder.iterdir()):
            if file.suffix != ".xz":
                (Path(name) / file.name).symlink_to(file.resolve())
                continue
            try:
                with lzma.open(file) as packed, (Path(name) / file.stem).open("wb") as plain:
                    shutil.copyfileobj(packed, plain)
            except (lzma.LZMAError, EOFError, OSError) as cause:
                raise DataError(f"{file} is damaged ({cause}); copy it again") from None
        yield Path(name)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """An opened reference folder."""

    folder: Path
    fields: Mapping[str, Any]
    tensors: Mapping[str, np.ndarray]

    @classmethod
    def open(cls, folder: Path) -> "Reference":
        """Read both files.

        Raises:
            DataError: one of them is missing, damaged or cut.
        """
        file = folder / FACTS
        try:
            fields = json.loads(file.read_text(encoding="utf-8"))
            names = [case["name"] for case in fields["cases"] if case["prompt"] is not None and case["input_ids"]]
        except OSError:
            raise DataError(
                f"{folder} has no {FACTS}; a reference is a folder with {FACTS}, {TENSORS} and pictures; "
                "write one with `handlens verify MODEL --record DIR`"
            ) from None
        except (ValueError, KeyError, TypeError) as cause:
            raise DataError(f"{file} is damaged ({type(cause).__name__}: {cause}); record it again") from None
        if not names:
            raise DataError(f"{file} has no cases; record it again")
        try:
            tensors = read_tensors(folder / TENSORS)
        except HandlensError as cause:
            raise DataError(str(cause)) from None
        return cls(folder=folder, fields=fields, tensors=tensors)

    @property
    def tokenizer(self) -> AnyTokenizer | None:
        """The toy tokenizer it describes; None where the model brings its own."""
        described = self.fields.get("toy_tokenizer")
        return CharacterTokenizer.from_reference(described) if described else None

    def cases(self) -> list[Case]:
        """Return the cases with their pictures.

        Raises:
            DataError: a picture is missing.
            ImageError: a picture is damaged.
        """
        return [self._case(fields) for fields in self.fields["cases"]]

    def expected(self, name: str) -> Expected:
        """Return what a case should give.

        Raises:
            DataError: a field is damaged.
        """
        fields = next(case for case in self.fields["cases"] if case["name"] == name)
        try:
            return Expected.recorded(fields, self.tensors)
        except (KeyError, TypeError, ValueError) as cause:
            raise DataError(
                f"case {name} of {self.folder / FACTS} is damaged ({type(cause).__name__}: {cause}); record it again"
            ) from None

    def _case(self, fields: Mapping[str, Any]) -> Case:
        files = tuple(fields.get("images", ()))
        for file in files:
            if Path(file).name != file or not (self.folder / file).is_file():
                raise DataError(f"{self.folder} lacks the picture {file} of case {fields['name']}; record it again")
        times = fields.get("temporal_ids")
        return Case(
            name=fields["name"],
            prompt=fields["prompt"],
            pictures=tuple(open_picture(self.folder / file) for file in files),
            files=files,
            max_slices=fields.get("max_slice_nums"),
            use_image_id=fields.get("use_image_id"),
            times=None if times is None else tuple(tuple(int(time) for time in group) for group in times),
            mode=fields.get("downsample_mode"),
        )


def write_reference(
    folder: Path,
    traces: Sequence[tuple[Case, Trace]],
    *,
    family: str,
    computed_in: str,
    placeholder: str,
    toy_tokenizer: Mapping[str, Any] | None = None,
) -> Path:
    """Write what a model computed, so that it can be compared later.

    Raises:
        DataError: the folder holds something else.
    """
    if folder.exists() and not (folder / FACTS).is_file() and any(folder.iterdir()):
        raise DataError(f"{folder} exists and is no reference; give a new folder name")
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, np.ndarray] = {}
    cases = []
    for case, trace in traces:
        for file, picture in zip(case.files, case.pictures, strict=True):
            picture.image.save(folder / file)
        kept = _samples(trace)
        tensors |= {f"{case.name}.{name}": values for name, values in kept.items()}
        cases.append(_facts(case, trace, placeholder) | {"tensors": {name: list(v.shape) for name, v in kept.items()}})
    fields: dict[str, Any] = {
        "version": family,
        "set": "recorded",
        "computed_in": computed_in,
        "libraries": libraries(),
        "observed_noise": {},
    }
    if toy_tokenizer:
        fields["toy_tokenizer"] = dict(toy_tokenizer)
    write_tensors(tensors, folder / TENSORS)
    text = json.dumps(fields | {"cases": cases}, indent=1, ensure_ascii=False)
    (folder / FACTS).write_text(text + "\n", encoding="utf-8")
    return folder


def libraries() -> dict[str, str]:
    """Return the versions of what computes."""
    found = {"python": platform.python_version()}
    for name in ("torch", "transformers", "numpy", "pillow", "onnxruntime", "xllamacpp", "handlens"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _facts(case: Case, trace: Trace, placeholder: str) -> dict[str, Any]:
    """Return the fields of one case that are no tensors."""
    assert trace.ids is not None and trace.is_visual is not None
    facts: dict[str, Any] = {"name": case.name, "images": list(case.files)}
    optional = {
        "max_slice_nums": case.max_slices,
        "use_image_id": case.use_image_id,
        "temporal_ids": None if case.times is None else [list(group) for group in case.times],
        "downsample_mode": case.mode,
    }
    facts |= {name: value for name, value in optional.items() if value is not None}
    facts |= {
        "prompt": case.prompt,
        "input_ids": trace.ids.tolist(),
        "image_bound": _runs(trace.is_visual),
        "n_slices": trace.num_slices or 0,
        "expanded_prompt": re.sub(
            f"(?:{re.escape(placeholder)}){{2,}}",
            lambda found: f"{placeholder}*{len(found.group()) // len(placeholder)}",
            trace.expanded or "",
        ),
        "sequence_length": len(trace.ids),
    }
    if trace.grids:
        facts["tgt_sizes"] = [list(grid) for grid in trace.grids]
    if trace.pixels is not None:
        hashes, shapes = [hash_of(part) for part in trace.pixels], [list(part.shape) for part in trace.pixels]
        is_packed = trace.pixels[0].ndim == 4
        facts |= {"pixel_sha256": hashes[0] if is_packed else hashes}
        facts |= {"pixel_shape": shapes[0]} if is_packed else {"pixel_shapes": shapes}
    if trace.greedy is not None:
        facts["greedy"] = trace.greedy
    if trace.margins is not None:
        facts["greedy_min_margin"] = min(trace.margins)
    return facts


def _runs(is_visual: np.ndarray) -> list[list[int]]:
    """Return begin and end of every run of visual places."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], is_visual, [False]]).astype(np.int8)))
    return edges.reshape(-1, 2).tolist()


def _samples(trace: Trace) -> dict[str, np.ndarray]:
    """Return the tensors of one case: all of what is small, seeded samples and norms of the rest."""
    draw = np.random.default_rng(0)
    kept: dict[str, np.ndarray] = {}

    def sample(name: str, parts: Sequence[np.ndarray], count: int, *, in_one: bool = False) -> None:
        sizes = np.asarray([part.size for part in parts])
        flat = np.sort(draw.choice(int(sizes.sum()), min(count, int(sizes.sum())), replace=False))
        which = np.searchsorted(np.cumsum(sizes), flat, side="right")
        begins = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        rows = [
            (int(part), *map(int, np.unravel_index(place - begins[part], parts[part].shape)))
            for part, place in zip(which, flat, strict=True)
        ]
        index = np.asarray(rows, dtype=np.int32)
        kept[f"{name}_idx"] = index[:, 1:] if in_one else index
        kept[f"{name}_val"] = np.asarray([parts[row[0]][row[1:]] for row in rows], dtype=np.float32)

    if trace.pixels:
        sample("pixel", list(trace.pixels[0]) if trace.pixels[0].ndim == 4 else trace.pixels, NUM_PIXELS)
    if trace.positions is not None:
        kept["vit_position_ids"] = trace.positions.astype(np.int32)
    if trace.vision:
        sample("vision", trace.vision, NUM_VALUES)
        kept["vision_norm"] = norms_of(trace.vision)
    if trace.visual:
        even = len({part.shape for part in trace.visual}) == 1
        kept["tokens"] = (np.stack if even else np.concatenate)(trace.visual).astype(np.float32)
        kept["tokens_norm"] = norms_of(trace.visual)
    if trace.embeddings is not None:
        sample("embeds", [trace.embeddings], NUM_VALUES, in_one=True)
    if trace.logits is not None:
        kept["logits_last8"] = trace.logits[-LAST_ROWS:].astype(np.float32)
        if trace.ids is not None and len(trace.logits) == len(trace.ids):
            sample("logits", [trace.logits], NUM_VALUES, in_one=True)
    if trace.greedy is not None:
        kept["greedy"] = np.asarray(trace.greedy, dtype=np.int64)
    if trace.margins is not None:
        kept["greedy_margin"] = np.asarray(trace.margins, dtype=np.float32)
    return kept
