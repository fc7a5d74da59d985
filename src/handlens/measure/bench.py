"""Our engine beside stock llama.cpp: same language file, same picture, same threads, in turns; ratios of medians.

Boundary: runs trials and computes; prints nothing. What each stage reaches of the machine's own limits stands beside.
"""

import contextlib
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from handlens.core.slicing import plan_slices
from handlens.engine.setup import Setup
from handlens.errors import ModelError
from handlens.measure.devices import Device
from handlens.measure.geometry import Geometry
from handlens.measure.trial import SECOND_QUESTION, Job, Trial, require, run_trial

SIZES = ((448, 448), (1344, 1344))
ENGINES = ("handlens", "llama.cpp")
SPENT = {"encode": ("encode",), "prefill": ("prefill",), "decode": ("decode",),
         "first_word": ("load_vision", "slice", "encode", "load_language", "prefill")}  # fmt: skip
"""Figure -> phases whose processor time it is."""


def bench(
    geometry: Geometry,
    device: Device,
    *,
    mmproj: Path | None,
    threads: int,
    rounds: int = 3,
    sizes: Sequence[tuple[int, int]] = SIZES,
    max_tokens: int = 32,
    setup: Setup | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Return every figure of every engine and picture size, ratios, and shares of the limits.

    Args:
        geometry: of a bundle.
        device: this machine, for its limits.
        mmproj: vision file of stock llama.cpp; None measures our engine alone.
        threads: for both.
        rounds: how often each engine has its turn.
        sizes: of the drawn pictures, (width, height) in px.
        max_tokens: tokens that are said.
        setup: of our engine; threads are set to ``threads``.
        say: is told of every run.

    Raises:
        ModelError: a run failed.
    """
    from handlens.engine.bundle import Bundle

    assert geometry.folder is not None
    setup = setup or Setup()
    language = setup.language or Bundle.open(geometry.folder).language
    fields = setup.to_json() | dict.fromkeys(("vision_threads", "prefill_threads", "decode_threads"), threads)
    ours = Setup.from_json(fields)
    report: dict[str, Any] = {
        "model": geometry.name, "language": language, "threads": threads, "rounds": rounds,
        "setup": ours.to_json(changed_only=True), "limits": _limits(device), "pictures": [],
    }  # fmt: skip
    for size in sizes:
        job = Job(
            bundle=geometry.folder, setup=ours, images=(size,), max_tokens=max_tokens, language=language,
            limit_seconds=3600.0,
        )  # fmt: skip
        jobs = {"handlens": replace_job(job, second_question=SECOND_QUESTION)}
        if mmproj is not None:
            jobs["llama.cpp"] = replace_job(job, mmproj=mmproj)
        trials: dict[str, list[Trial]] = {name: [] for name in jobs}
        for number in range(rounds):
            for name, turn in jobs.items():
                trials[name].append(run_trial(turn))
                require(trials[name][-1])
                say(f"{size[0]}x{size[1]}, round {number + 1} of {rounds}, {name}: "
                    f"first word after {trials[name][-1].first_word_seconds:.2f} s")  # fmt: skip
        report["pictures"].append(_picture(geometry, device, size, trials))
    return report


def replace_job(job: Job, **changes: Any) -> Job:
    """Return a job with some fields changed."""
    import dataclasses

    return dataclasses.replace(job, **changes)


def _picture(
    geometry: Geometry, device: Device, size: tuple[int, int], trials: dict[str, list[Trial]]
) -> dict[str, Any]:
    """Return the figures for one picture size."""
    figures = {name: {key: summary(values) for key, values in _values(runs).items()} for name, runs in trials.items()}
    found: dict[str, Any] = {"size": list(size), "figures": figures}
    for name, runs in trials.items():
        facts = runs[0].figures or {}
        figures[name]["num_slices"], figures[name]["prompt_tokens"] = facts["num_slices"], facts["prompt_tokens"]
    if len(figures) == len(ENGINES):
        found["ratios"] = ratios(figures)
        found["processor_ratios"] = processor_ratios(trials)
    found["shares"] = _shares(geometry, device, size, figures["handlens"])
    return found


def _values(runs: Sequence[Trial]) -> dict[str, list[float]]:
    """Return every figure of every round."""
    values = {
        "vision_seconds_per_slice": [run.seconds_per_slice for run in runs],
        "load_seconds": [run.load_seconds for run in runs],
        "prefill_seconds": [run.prefill_seconds for run in runs],
        "first_word_seconds": [run.first_word_seconds for run in runs],
        "tokens_per_second": [run.tokens_per_second for run in runs],
        "peak_bytes": [float(run.peak_bytes) for run in runs],
    }
    if all("second_question" in (run.figures or {})["phases"] for run in runs):
        phases = [(run.figures or {})["phases"] for run in runs]
        # A new process finds the visual tokens on disk; a held one has read the picture already.
        values["second_question_seconds"] = [
            part["slice"]["seconds"] + part["load_language"]["seconds"] + part["prefill"]["seconds"] for part in phases
        ]
        values["second_question_held_seconds"] = [part["second_question"]["seconds"] for part in phases]
    else:
        values["second_question_seconds"] = values["first_word_seconds"]  # it has no memory of pictures
        values["second_question_held_seconds"] = [
            seconds - run.load_seconds for seconds, run in zip(values["first_word_seconds"], runs, strict=True)
        ]
    return values


def summary(values: Sequence[float]) -> dict[str, float]:
    """Return median and spread.

    >>> summary([3.0, 1.0, 2.0])
    {'median': 2.0, 'least': 1.0, 'most': 3.0}
    """
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def ratios(figures: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Return how many times better ours is, by medians: above 1 is faster, and less memory."""
    ours, theirs = figures["handlens"], figures["llama.cpp"]
    found = {
        key: round(theirs[key]["median"] / ours[key]["median"], 3)
        for key in ours
        if isinstance(ours[key], dict) and key not in ("tokens_per_second", "peak_bytes") and ours[key]["median"]
    }
    found["tokens_per_second"] = round(ours["tokens_per_second"]["median"] / theirs["tokens_per_second"]["median"], 3)
    found["memory"] = round(ours["peak_bytes"]["median"] / theirs["peak_bytes"]["median"], 3)
    return found


def processor_ratios(trials: dict[str, list[Trial]]) -> dict[str, float]:
    """Return how many times less processor time ours takes, by medians: what others do meanwhile hardly counts.

    Threads that wait in a loop count as working, so this says something for one thread only.
    """
    spent = {
        engine: {
            name: statistics.median(
                sum((run.figures or {})["phases"][phase]["processor_seconds"] for phase in phases) for run in runs
            )
            for name, phases in SPENT.items()
        }
        for engine, runs in trials.items()
    }
    ours, theirs = spent["handlens"], spent["llama.cpp"]
    return {name: round(theirs[name] / max(ours[name], 1e-9), 3) for name in ours}


def _limits(device: Device) -> dict[str, Any]:
    return {
        "read_bytes_per_second": device.read_bytes_per_second,
        "flops_per_second": device.flops_per_second,
        "how": "sum of a large array by all cores; 32-bit matrix product of numpy; best of five rounds each",
    }


def _shares(
    geometry: Geometry, device: Device, size: tuple[int, int], figures: dict[str, Any]
) -> dict[str, dict[str, float]]:
    """Return what each stage reaches, and its share of the machine's limit (8-bit arithmetic can exceed 1)."""
    plan = plan_slices(*size, side_px=geometry.side_px, max_slices=geometry.max_slices)
    rows, columns = plan.patches[-1]
    vision = geometry.slice_operations(rows * columns) / figures["vision_seconds_per_slice"]["median"]
    prefill = figures["prompt_tokens"] * geometry.token_operations / figures["prefill_seconds"]["median"]
    read = geometry.read_bytes * figures["tokens_per_second"]["median"]
    return {
        "vision": {"flops_per_second": vision, "share": round(vision / device.flops_per_second, 3)},
        "prefill": {"flops_per_second": prefill, "share": round(prefill / device.flops_per_second, 3)},
        "decode": {"bytes_per_second": read, "share": round(read / device.read_bytes_per_second, 3)},
    }


@contextlib.contextmanager
def mmproj_of(folder: Path, given: Path | None) -> Iterator[Path]:
    """Give the vision file for stock llama.cpp: the one named, the bundle's own, or one written from its weights.

    Raises:
        ModelError: there is none and none can be made.
    """
    own = sorted(folder.glob("mmproj*.gguf"))
    if given is not None or own:
        file = given or own[0]
        if not file.is_file():
            raise ModelError(f"{file} does not exist; give the mmproj GGUF of this model")
        yield file
        return
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise ModelError(
            f"{folder} has no mmproj*.gguf, which stock llama.cpp needs to see, and no model.safetensors to make one "
            "of; name one with --mmproj FILE"
        )
    from handlens.engine.bundle import Bundle
    from handlens.export.mmproj import write_mmproj
    from handlens.export.tensor_file import read_tensors

    with tempfile.TemporaryDirectory() as place:
        tensors = read_tensors(weights)
        yield write_mmproj(tensors, Bundle.open(folder).config, Path(place) / "mmproj-f16.gguf")
