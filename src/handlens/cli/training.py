"""What ``train`` and ``finetune`` say of a run: counts, times, measures, and why it stopped."""

import signal
from pathlib import Path
from typing import Any

import click


def model_folder(name: str | None) -> Path | None:
    """Return the folder of a model; ``nano`` is the one that ships."""
    if name != "nano":
        return None if name is None else Path(name)
    import handlens

    return Path(handlens.__file__).parent / "nano"


def pause_code(paused: Any) -> int:
    """Say where the run stands and return the exit code of the signal that stopped it."""
    click.echo(f"handlens train: {paused}", err=True)
    return 128 + (paused.signal_number or signal.SIGTERM)


def news(row: dict[str, Any]) -> str:
    """Return the measures of a report in a few words.

    >>> news({"phase": "sft", "step": 20, "of": 100, "loss": 1.23456, "seconds": 7.0})
    'loss 1.235'
    """
    facts = {"phase", "step", "of", "pictures", "slices", "tokens", "seconds", "rate"}
    return ", ".join(
        f"{name} {value:.4g}" for name, value in row.items() if name not in facts and isinstance(value, int | float)
    )


def short(number: float | int) -> str:
    """Return a count in few letters.

    >>> short(200_000_000), short(1_234), short(12)
    ('200M', '1.23k', '12')
    """
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:g}"


def duration(hours: float | int) -> str:
    """Return a time in the unit that fits it.

    >>> duration(0.001), duration(0.25), duration(30.0)
    ('4 s', '15 min', '30 h')
    """
    if hours < 1 / 60:
        return f"{hours * 3600:.0f} s"
    return f"{hours * 60:.0f} min" if hours < 1 else f"{hours:,.0f} h"
