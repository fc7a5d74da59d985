"""Pictures with known answers: recorded in a bundle when it is exported, asked again on any machine.

Boundary: one bundle folder. The record holds pictures, hashes, a few numbers and the answers, all made by the same
files, so a difference is the machine's or a library's: preparation, prompt, vision and language are compared in this
order, and the first that differs is to blame.
"""

import base64
import contextlib
import hashlib
import io
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from handlens.core.chat import ask
from handlens.core.images import Picture, open_picture
from handlens.core.sampling import Sampling
from handlens.core.slicing import cut
from handlens.engine.answerer import Lens, open_bundle
from handlens.engine.bundle import MANIFEST, Bundle, sha256_of
from handlens.errors import HandlensError, ModelError

if TYPE_CHECKING:
    from handlens.answerer import Seen
    from handlens.engine.setup import Setup

KNOWN = "known.json"
"""File of a bundle; listed in its manifest."""
FORMAT = 1
MAX_TOKENS = 12
MAX_SLICES = 4
NUM_SAMPLES = 32
"""Numbers kept of the visual tokens of a picture, spread evenly."""
SAME_VISION, CLOSE_VISION = 0.01, 0.1
"""Largest difference of a sample, in root mean squares of the visual tokens. Other instruction sets add in another
order (about 1e-5 in 32 bits); 8-bit weights differ more."""
CLOSE_NATS = 0.1
"""Per token: how much the log-probability of the recorded answer may change where another answer was likelier."""


@dataclass(frozen=True, kw_only=True)
class Station:
    """What one station made of one picture."""

    picture: str
    name: str
    """preparation, prompt, vision or language."""
    status: str
    """same, close (within what other processors compute) or different."""
    found: str


def draw_pictures() -> dict[str, tuple[Image.Image, str]]:
    """Return pictures with a question each; they are stored, so that a font or library may change later."""
    line = Image.new("RGB", (260, 60), "white")
    ImageDraw.Draw(line).text((12, 14), "Total 12.50", fill="black", font=ImageFont.load_default(28))
    scene = Image.new("RGB", (420, 300), (236, 240, 244))
    draw = ImageDraw.Draw(scene)
    draw.ellipse((30, 40, 150, 160), fill=(200, 30, 40))
    draw.rectangle((230, 60, 350, 180), fill=(30, 60, 190))
    draw.text((40, 240), "red circle, blue square", fill="black", font=ImageFont.load_default(24))
    return {"line": (line, "What does it say?"), "scene": (scene, "What does the picture show?")}


def record_known(folder: Path) -> bool:
    """Ask the bundle about the pictures and write what came of it into the bundle.

    Returns False, and writes nothing, where the bundle cannot answer on this machine.
    """
    try:
        with contextlib.closing(open_bundle(folder, keep=True, profile=False)) as lens:
            pictures = [_record(lens, name, *drawn) for name, drawn in draw_pictures().items()]
    except HandlensError:
        return False
    record = {"format": FORMAT, "weights": _weights(Bundle.open(folder, verify=False)), "pictures": pictures}
    file = folder / KNOWN
    file.write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    list_in_manifest(file)
    return True


def list_in_manifest(file: Path) -> None:
    """Write the hash and size of a file of a bundle into its manifest."""
    folder = file.parent
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    manifest["files"][file.name] = {"sha256": sha256_of(file), "bytes": file.stat().st_size}
    manifest["files"] = dict(sorted(manifest["files"].items()))
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_known(folder: Path) -> dict[str, Any] | None:
    """Return the record of a bundle; None where there is none, or it was made with other weights."""
    try:
        record = json.loads((folder / KNOWN).read_text(encoding="utf-8"))
        is_ours = record["format"] == FORMAT and record["weights"] == _weights(Bundle.open(folder, verify=False))
    except (OSError, ValueError, KeyError, TypeError, ModelError):
        return None
    return record if is_ours else None


def check_known(folder: Path, setup: "Setup | None" = None) -> tuple[list[Station], float]:
    """Ask the recorded pictures; return every station of every picture, and the seconds it took.

    ``setup`` says how the halves run; its files are left aside, since the record belongs to the bundle's own.

    Raises:
        ModelError: there is no record of these weights, or the bundle cannot run here.
    """
    record = read_known(folder)
    if record is None:
        raise ModelError(f"{folder} has no {KNOWN} of its weights; `handlens doctor {folder.name} --record` writes it")
    begin = time.perf_counter()
    own = replace(setup, vision="", language="") if setup else None
    with contextlib.closing(open_bundle(folder, keep=True, profile=False, setup=own)) as lens:
        stations = [station for known in record["pictures"] for station in _compare(lens, known)]
    return stations, time.perf_counter() - begin


def _record(lens: Lens, name: str, image: Image.Image, question: str) -> dict[str, Any]:
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    seen, facts = _look(lens, Picture(image, name), question)
    tokens = list(lens.answer(ask(question), seen, Sampling(max_tokens=MAX_TOKENS)))
    text = "".join(token.text for token in tokens)
    return {
        "name": name, "question": question, "png": base64.b64encode(stream.getvalue()).decode("ascii"), **facts,
        "answer": text, "nats": round(lens.score(ask(question), seen, [text])[0], 5),
        "num_tokens": len(lens.tokenizer.encode(text)),
    }  # fmt: skip


def _look(lens: Lens, picture: Picture, question: str) -> "tuple[Seen, dict[str, Any]]":
    """Return the encoded picture and what is recorded of it."""
    seen = lens.see([picture], max_slices=MAX_SLICES)
    pixels = hashlib.sha256()
    for image in cut(picture.image, seen.plans[0]):
        pixels.update(np.ascontiguousarray(image).tobytes())
    prompt = lens.prompt(ask(question), seen)
    visual = seen.pictures[0].visual_tokens
    assert visual is not None
    samples = visual.reshape(-1)[np.linspace(0, visual.size - 1, NUM_SAMPLES).astype(int)]
    return seen, {
        "slices": len(visual), "pixels": pixels.hexdigest(),
        "prompt": hashlib.sha256(np.ascontiguousarray(prompt.ids, dtype="<i8").tobytes()).hexdigest(),
        "visual": [round(float(value), 6) for value in samples],
        "visual_rms": round(float(np.sqrt(np.mean(np.square(visual)))), 6),
    }  # fmt: skip


def _compare(lens: Lens, known: dict[str, Any]) -> Iterator[Station]:
    picture = open_picture(base64.b64decode(known["png"]), name=known["name"])
    seen, facts = _look(lens, picture, known["question"])
    for name, key, what in (("preparation", "pixels", "pixels of the slices"), ("prompt", "prompt", "token ids")):
        is_same = facts[key] == known[key]
        yield Station(
            picture=known["name"], name=name, status="same" if is_same else "different",
            found=f"{what} {'equal' if is_same else 'differ from'} the record",
        )  # fmt: skip
    gap = float(np.abs(np.subtract(facts["visual"], known["visual"])).max()) / max(known["visual_rms"], 1e-9)
    status = "same" if gap <= SAME_VISION else "close" if gap <= CLOSE_VISION else "different"
    yield Station(
        picture=known["name"], name="vision", status=status, found=f"visual tokens differ by {gap:.1e} at most"
    )
    yield _compare_language(lens, known, seen)


def _compare_language(lens: Lens, known: dict[str, Any], seen: "Seen") -> Station:
    chat = ask(known["question"])
    text = "".join(token.text for token in lens.answer(chat, seen, Sampling(max_tokens=MAX_TOKENS)))
    gap = abs(lens.score(chat, seen, [known["answer"]])[0] - known["nats"]) / max(1, known["num_tokens"])
    if text == known["answer"] and gap <= CLOSE_NATS:
        status, found = "same", f"answer {text!r} as recorded, {gap:.1e} nats per token apart"
    else:
        status = "close" if gap <= CLOSE_NATS else "different"
        found = f"answer {text!r}, recorded {known['answer']!r}, {gap:.2g} nats per token apart"
    return Station(picture=known["name"], name="language", status=status, found=found)


def _weights(bundle: Bundle) -> dict[str, str]:
    """Return the hashes of the files that decide an answer, as the manifest has them."""
    names = (bundle.vision, bundle.language, "tokenizer.json")
    return {name: str(bundle.manifest["files"][name]["sha256"]) for name in names}
