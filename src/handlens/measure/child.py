"""One measured run, in a process of its own: a job as JSON on standard input, its figures as JSON on standard output.

Boundary: drives the two halves one after the other, phase by phase; choosing what to run is ``trial.py``'s caller.
A process of its own has a peak of its own, and a configuration that crashes takes nothing with it.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from handlens.engine import memory

if TYPE_CHECKING:
    from handlens.core.prompt import Prompt
    from handlens.engine.answerer import Lens
    from handlens.engine.setup import Setup

Figures = dict[str, Any]
SPARE = 64
"""Tokens by which a second question may be longer."""


def main() -> None:
    """Read a job, run it, print its figures."""
    job = json.load(sys.stdin)
    # Libraries write to standard output; the figures go where nothing else goes.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    json.dump(run_job(job), channel)
    channel.close()


def run_job(job: dict[str, Any]) -> Figures:
    """Return the figures of one job: seconds and peak bytes per phase, and rates."""
    lens, pictures = _open(job)
    if job.get("mmproj"):
        from handlens.measure.stock import run_stock

        return run_stock(job, pictures[0].image, _stock_prompt(lens, job), Path(job["bundle"]) / job["language"])
    found: Figures = {"base_bytes": memory.resident_bytes(), "phases": {}}
    rows = None
    if "vision" in job["parts"]:
        rows = _see(lens, pictures, job, found)
    if "language" in job["parts"]:
        _answer(lens, pictures, rows, job, found)
    found["peak_bytes"] = max(phase["peak_bytes"] for phase in found["phases"].values())
    found["resets"] = memory.reset_peak()
    return found


def _open(job: dict[str, Any]) -> "tuple[Lens, list[Any]]":
    """Open the bundle and the pictures; load what every run loads."""
    import onnxruntime  # noqa: F401  counted as part of the base

    from handlens.core.images import Picture
    from handlens.engine import llama
    from handlens.engine.answerer import open_bundle
    from handlens.engine.setup import Setup

    llama.library()
    setup = Setup.from_json(job["setup"])
    lens = open_bundle(job["bundle"], setup=setup, keep=job.get("keep", False), verify=False)
    if setup.prefill == "openvino" and "language" in job["parts"]:
        _store_layers(Path(job["bundle"]), setup)
    return lens, [Picture(_image(source), "picture") for source in job["images"]]


def _store_layers(folder: Path, setup: "Setup") -> None:
    """Do what happens once per model before anything is measured."""
    from handlens.engine.bundle import Bundle
    from handlens.engine.gguf_header import read_header
    from handlens.engine.openvino_prefill import OpenVinoPrefill

    file = folder / (setup.language or Bundle.open(folder).language)
    OpenVinoPrefill(file, read_header(file), threads=1).prepare()


def _stock_prompt(lens: "Lens", job: dict[str, Any]) -> str:
    """Return the same prompt with llama.cpp's mark in the place of the picture."""
    from handlens.engine.mtmd import MARKER

    template = lens.family.template
    system = template.system.format(text=template.default_system) if template.default_system is not None else ""
    user = template.user.format(text=f"{MARKER}\n{job['question']}")
    return template.begin + system + user + template.opening


def _image(source: Any) -> Any:
    """Return a picture file, or a drawn one of the given size: what is measured depends on sizes alone."""
    from PIL import Image

    if isinstance(source, str):
        from handlens.core.images import open_picture

        return open_picture(source).image
    width, height = source
    return Image.linear_gradient("L").resize((width, height)).convert("RGB")


def _see(lens: "Lens", pictures: list[Any], job: dict[str, Any], found: Figures) -> np.ndarray:
    """Load the vision half, encode every slice, release it; ``encode_seconds`` is per slice."""
    from handlens.core.patches import normalise
    from handlens.core.slicing import cut

    with _phase(found, "load_vision"):
        vision = lens.open_vision()
    with _phase(found, "slice"):
        slices = [image for picture in pictures for image in cut(picture.image, _plan(lens, picture, job))]
    limit = job.get("max_encoded") or len(slices)
    found["num_slices"], found["encode_seconds"] = len(slices), []
    with _phase(found, "encode"):
        rows = []
        for image in slices[:limit]:
            begin = time.perf_counter()
            rows.append(vision.encode(normalise(image)))
            found["encode_seconds"].append(time.perf_counter() - begin)
    found["provider"] = getattr(vision, "provider", "")
    vision.close()
    del vision
    memory.give_back()
    rows += rows[-1:] * (len(slices) - limit)
    return np.concatenate(rows)


def _plan(lens: "Lens", picture: Any, job: dict[str, Any]) -> Any:
    from handlens.core.slicing import plan_slices

    info = lens.info
    max_slices = job.get("max_slices") or info.max_slices
    return plan_slices(*picture.image.size, side_px=info.side_px, max_slices=max_slices)


def _answer(lens: "Lens", pictures: list[Any], rows: np.ndarray | None, job: dict[str, Any], found: Figures) -> None:
    """Load the language half, read the prompt, say ``max_tokens`` tokens whatever they are."""
    from handlens.answerer import Seen, SeenPicture
    from handlens.core.chat import ask
    from handlens.engine.room import Room

    plans = [_plan(lens, picture, job) for picture in pictures]
    seen = Seen(pictures=tuple(SeenPicture(name="p", plan=plan, visual_tokens=None) for plan in plans))
    prompt = lens.prompt(ask(job["question"], len(plans)), seen)
    if rows is None:
        rows = np.random.default_rng(0).normal(0, 0.02, (prompt.num_visual, job["width"])).astype(np.float32)
    room = Room(prompt=len(prompt.ids) + (SPARE if job.get("second_question") else 0), answer=job["max_tokens"] + 1)
    with _phase(found, "load_language"):
        language = lens.open_language(room)
    found["prompt_tokens"] = len(prompt.ids)
    with _phase(found, "prefill"):
        logits = language.prefill(prompt, rows)
    found["step_seconds"] = []
    with _phase(found, "decode"):
        for _ in range(job["max_tokens"]):
            begin = time.perf_counter()
            logits = language.step([int(np.argmax(logits))], [0])[0]
            found["step_seconds"].append(time.perf_counter() - begin)
    if job.get("second_question"):
        _ask_again(lens, language, seen, rows, job, found)
    language.close()


def _ask_again(lens: "Lens", language: Any, seen: Any, rows: np.ndarray, job: dict[str, Any], found: Figures) -> None:
    """Time to the first word of another question about the same pictures, both halves held."""
    from handlens.core.chat import ask

    prompt: Prompt = lens.prompt(ask(job["second_question"], len(seen.pictures)), seen)
    with _phase(found, "second_question"):
        language.prefill(prompt, rows)
    found["reused_tokens"] = getattr(language, "num_reused", 0)


class _phase:  # noqa: N801  reads as a verb: with _phase(...)
    """Record seconds, processor seconds of all threads, and peak bytes of a block."""

    def __init__(self, found: Figures, name: str) -> None:
        self.found, self.name = found, name

    def __enter__(self) -> None:
        memory.reset_peak()
        self.begin, self.processor_begin = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        seconds = time.perf_counter() - self.begin
        self.found["phases"][self.name] = {
            "seconds": seconds,
            "processor_seconds": time.process_time() - self.processor_begin,
            "peak_bytes": memory.peak_bytes(),
        }


if __name__ == "__main__":
    main()
