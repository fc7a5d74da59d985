"""How a model holds up: pictures and tokens over minutes, with heat, clock, energy and memory, as an open record.

Boundary: drives one model through the ``Answerer`` protocol and samples the machine; ``report_page.py`` draws it.
The record is schema ``handlens.report/1``, described in docs/device.md.
"""

import json
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from handlens.core.images import Picture
from handlens.engine import memory
from handlens.engine.say import say_once
from handlens.errors import DataError
from handlens.measure.energy import NOT_MEASURABLE, Meter, find_meter, frequency_megahertz, read_power_log
from handlens.measure.energy import temperature_celsius as temperature
from handlens.measure.trial import QUESTION

SCHEMA = "handlens.report/1"
SAMPLE_SECONDS = 1.0
PARTS = ("model", "quantisation", "processor", "picture", "answers", "samples", "memory", "energy", "summary")
SUMMARY = (
    "pictures", "pictures_per_hour", "sustained_tokens_per_second", "tokens_per_second_spread",
    "cold_first_word_seconds", "warm_first_word_seconds", "warm_first_word_spread", "late_over_early",
)  # fmt: skip
"""What a page and a comparison read."""


class Sampler(threading.Thread):
    """Writes temperature, clock, energy and memory once a second until it is stopped."""

    def __init__(self, meter: Meter) -> None:
        super().__init__(daemon=True)
        self.meter = meter
        self.rows: list[dict[str, float | None]] = []
        self.begin = time.monotonic()
        self._done = threading.Event()

    def run(self) -> None:
        """Sample until ``stop``."""
        while True:
            self.sample()
            if self._done.wait(SAMPLE_SECONDS):
                return

    def sample(self) -> None:
        """Append one row."""
        now = time.monotonic() - self.begin
        self.rows.append({
            "seconds": round(now, 2), "celsius": temperature(), "megahertz": frequency_megahertz(),
            "joules": self.meter.read(now), "resident_bytes": float(memory.resident_bytes()),
        })  # fmt: skip

    def stop(self) -> None:
        """End the thread after one last row."""
        self._done.set()
        self.join()
        self.sample()


def measure_report(
    model: str,
    *,
    minutes: float,
    size: tuple[int, int] = (1344, 1344),
    max_tokens: int = 64,
    power_csv: Path | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> dict[str, Any]:
    """Ask about one picture after another for some minutes; return the record.

    Args:
        model: nano or a bundle.
        minutes: how long; at least one answer is given.
        size: of the drawn pictures, (width, height) in px; every one differs, so none is known.
        max_tokens: longest answer.
        power_csv: log of a power meter, still being written while this runs. One that ends too early makes the energy
            "not measurable here", and that is said; what was measured is kept.
        progress: is told the share that is done.

    Raises:
        DataError: the log of the power meter is none.
    """
    import handlens
    from handlens.core.chat import ask
    from handlens.core.sampling import Sampling
    from handlens.engine.setup import processor_name

    meter = find_meter()
    if power_csv:
        read_power_log(power_csv)  # a wrong file is told before the minutes
    lens = handlens.load(model, keep=True)
    sampler = Sampler(meter)
    answers: list[dict[str, Any]] = []
    began = time.time()
    sampler.start()
    end = time.monotonic() + 60 * minutes
    peaks: dict[str, list[int]] = {"encode": [], "answer": []}
    try:
        while not answers or time.monotonic() < end:
            picture = _picture(size, len(answers))
            begin = time.monotonic()
            memory.reset_peak()
            seen = lens.see([picture])
            peaks["encode"].append(memory.peak_bytes())
            memory.reset_peak()
            count, first = 0, 0.0
            for _ in lens.answer(ask(QUESTION), seen, Sampling(max_tokens=max_tokens)):
                first = first or time.monotonic() - begin
                count += 1
            peaks["answer"].append(memory.peak_bytes())
            seconds = seen.seconds
            answers.append({
                "at_seconds": round(begin - sampler.begin, 3), "first_word_seconds": round(first, 4), "tokens": count,
                "seconds": round(time.monotonic() - begin, 4), "encode_seconds": round(seconds.get("encode", 0.0), 4),
                "prefill_seconds": round(seconds.get("prefill", 0.0), 4),
                "decode_seconds": round(seconds.get("decode", 0.0), 4),
            })  # fmt: skip
            progress(min(1.0, (time.monotonic() - end + 60 * minutes) / (60 * minutes)))
    finally:
        sampler.stop()
        lens.close()
    method = _read_meter(power_csv, began, sampler.rows) if power_csv else meter.method
    return {
        "schema": SCHEMA,
        "model": lens.info.name,
        "quantisation": lens.info.quantisation,
        "settings": lens.info.settings,
        "processor": processor_name(),
        "picture": {"size": list(size), "slices": seen.plans[0].num_slices},
        "minutes": minutes,
        "answers": answers,
        "samples": sampler.rows,
        "memory": {
            "phases": [
                {
                    "name": name,
                    "peak_bytes": max(found),
                    "cold_peak_bytes": found[0],
                    "warm_peak_bytes": max(found[1:] or found),
                }
                for name, found in peaks.items()
            ]
        },
        "energy": _energy(sampler.rows[-1]["joules"], method, answers),
        "summary": summarise(answers),
    }


def _read_meter(file: Path, began_seconds: float, rows: Sequence[dict[str, float | None]]) -> str:
    """Fill the joules of every sample from a power log; return the method."""
    log = read_power_log(file)
    end = began_seconds + float(rows[-1]["seconds"] or 0.0)
    if not log.covers(began_seconds, end):
        say_once(
            f"{file} does not cover the run (Unix time {began_seconds:.0f} to {end:.0f} s, it has {log.span}), so the "
            "energy is not known; let the meter log until the command has ended"
        )
        for row in rows:
            row["joules"] = None
        return NOT_MEASURABLE
    for row in rows:
        row["joules"] = round(log.joules(began_seconds, began_seconds + float(row["seconds"] or 0.0)), 3)
    return f"power meter ({log.name})"


def summarise(answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what counts: cold and warm, sustained and spread."""
    total = sum(answer["seconds"] for answer in answers)
    warm = answers[1:] or answers
    rates = [answer["tokens"] / answer["decode_seconds"] for answer in warm if answer["decode_seconds"]]
    firsts = [answer["first_word_seconds"] for answer in warm]
    third = max(1, len(warm) // 3)
    early, late = _rate(warm[:third]), _rate(warm[-third:])
    return {
        "pictures": len(answers),
        "pictures_per_hour": round(3600 * len(answers) / total, 1),
        "tokens": sum(answer["tokens"] for answer in answers),
        "sustained_tokens_per_second": round(statistics.median(rates), 3) if rates else 0.0,
        "tokens_per_second_spread": [round(min(rates), 3), round(max(rates), 3)] if rates else [0.0, 0.0],
        "cold_first_word_seconds": answers[0]["first_word_seconds"],
        "warm_first_word_seconds": round(statistics.median(firsts), 4),
        "warm_first_word_spread": [min(firsts), max(firsts)],
        "late_over_early": round(late / early, 3) if early else 1.0,
    }


def _rate(answers: Sequence[dict[str, Any]]) -> float:
    """Return pictures per second."""
    return len(answers) / (sum(answer["seconds"] for answer in answers) or 1.0)


def _energy(joules: float | None, method: str, answers: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if joules is None or method == NOT_MEASURABLE:
        return {"method": NOT_MEASURABLE, "joules": None, "joules_per_picture": None, "joules_per_token": None}
    tokens = sum(answer["tokens"] for answer in answers)
    return {
        "method": method,
        "joules": round(joules, 2),
        "joules_per_picture": round(joules / len(answers), 3),
        "joules_per_token": round(joules / tokens, 4) if tokens else None,
    }


def _picture(size: tuple[int, int], number: int) -> Picture:
    """Draw a picture that no other equals."""
    from PIL import Image, ImageDraw

    image = Image.linear_gradient("L").resize(size).convert("RGB")
    ImageDraw.Draw(image).text((size[0] // 4, size[1] // 2), f"No. {number} {time.time_ns()}", fill=(200, 20, 20))
    return Picture(image, f"picture {number}")


def read_report(file: Path) -> dict[str, Any]:
    """Read a record that was written before.

    Raises:
        DataError: it is no record of this schema.
    """
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        schema = record["schema"]
    except OSError as cause:
        raise DataError(f"cannot read {file}: {cause.strerror or cause}") from None
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{file} is no report; write one with `handlens report MODEL --out {file}`") from None
    if schema != SCHEMA:
        raise DataError(f"{file} has schema '{schema}'; this release reads '{SCHEMA}'")
    missing = [name for name in PARTS if name not in record]
    missing += [f"summary.{name}" for name in SUMMARY if name not in record.get("summary", {})]
    if missing:
        raise DataError(f"{file} lacks {', '.join(missing)}; write it again with `handlens report`")
    return record
