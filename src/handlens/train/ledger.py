"""The ledger: what a phase cost and where its data came from, beside its weights and in its model card.

Boundary: numbers of ``Progress`` in, ``ledger.json`` and ``README.md`` out.
"""

import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from handlens import __version__
from handlens.core.durable import show
from handlens.train.distributed import World
from handlens.train.energy import Meter, grams_per_kwh
from handlens.train.phases import Phase
from handlens.train.state import Progress

LEDGER, CARD = "ledger.json", "README.md"
SUMMED = (
    "steps", "tokens", "targets", "pictures", "slices", "flops", "flops_counted", "wall_seconds", "device_hours",
    "energy_kwh", "carbon_kg",
)  # fmt: skip
"""Entries that are added up over the phases of a run."""


def git_commit() -> str:
    """Return the commit of the checkout that runs, ``+`` where it was changed; the version outside of one."""
    folder = Path(__file__).parents[1]
    try:
        head = _git(folder, "rev-parse", "HEAD")
        return head + ("+" if _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return f"handlens {__version__}"


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


def command_line() -> str:
    """Return the command of this process as it can be typed."""
    name = Path(sys.argv[0]).name
    first = "handlens" if name in ("main.py", "handlens") else name
    return shlex.join([first, *sys.argv[1:]])


def phase_ledger(
    phase: Phase, progress: Progress, meter: Meter, world: World, provenance: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return the entries of one phase; energies in kWh, carbon in kg, times in seconds or hours."""
    kwh = progress.joules / 3.6e6
    device = torch_device_name(world)
    return {
        "phase": phase.name,
        "trains": list(phase.trains),
        "steps": progress.step,
        "pictures": progress.pictures,
        "slices": progress.slices,
        "tokens": progress.tokens,
        "targets": progress.targets,
        "flops": progress.flops,
        "flops_counted": progress.flops * progress.counted_share,
        "flops_method": "flops: formula over all steps; flops_counted: the same times what torch's FlopCounterMode "
        f"counted in one step ({progress.counted_share:.4f} of the formula)",
        "padded_share": round(progress.padded / max(progress.padded + progress.patches, 1), 4),
        "wall_seconds": round(progress.seconds, 1),
        "processor_seconds": round(progress.processor_seconds, 1),
        "device": device,
        "devices": world.size,
        "device_hours": round(progress.device_seconds / 3600, 6),
        "sessions": progress.sessions,
        "energy_kwh": round(kwh, 8),
        "energy_method": meter.method,
        "carbon_kg": round(kwh * grams_per_kwh() / 1000, 8),
        "carbon_method": f"estimated: {grams_per_kwh():g} g of CO2 per kWh (HANDLENS_GRAMS_PER_KWH changes it)",
        "data": provenance,
        "substitutes": phase.substitutes,
        "command": command_line(),
        "commit": git_commit(),
        "handlens": __version__,
    }


def torch_device_name(world: World) -> str:
    """Return what computes, in words."""
    if world.device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(world.device)
    return f"{platform.machine()} processor, {len(os.sched_getaffinity(0))} cores"


def total_of(ledgers: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the sums over phases."""
    return {name: round(sum(ledger.get(name, 0) for ledger in ledgers), 8) for name in SUMMED}


def read_ledgers(out: Path, order: list[str]) -> list[dict[str, Any]]:
    """Return the ledgers of the phases of a run that have one, in order."""
    found = []
    for name in order:
        file = out / name / LEDGER
        try:
            found.append(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            continue
    return found


def write_ledger(out: Path, order: list[str], ledger: dict[str, Any], title: str) -> None:
    """Write the ledger and the card of a phase, and the totals of the run so far."""
    folder = out / str(ledger["phase"])
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / LEDGER, json.dumps(ledger, indent=2) + "\n")
    ledgers = read_ledgers(out, order)
    total = {"recipe": title, "phases": [one["phase"] for one in ledgers], "total": total_of(ledgers)}
    write_whole(out / LEDGER, json.dumps(total | {"ledgers": ledgers}, indent=2) + "\n")
    write_whole(folder / CARD, model_card(title, ledgers))


def model_card(title: str, ledgers: list[dict[str, Any]]) -> str:
    """Return the model card: what was trained on what, and what it cost."""
    last = ledgers[-1]
    sources = {json.dumps(source, sort_keys=True): source for ledger in ledgers for source in ledger["data"]}
    rows = "\n".join(
        f"| {one['phase']} | {', '.join(one['trains']) or '-'} | {one['steps']:,} | {one['pictures']:,} "
        f"| {one['slices']:,} | {one['tokens']:,} | {one['flops']:.3g} "
        f"| {one['device_hours']:.4g} | {one['energy_kwh']:.4g} |"
        for one in ledgers
    )
    total = total_of(ledgers)
    sums = (
        f"| all | | {total['steps']:,} | {total['pictures']:,} | {total['slices']:,} | {total['tokens']:,} "
        f"| {total['flops']:.3g} | {total['device_hours']:.4g} | {total['energy_kwh']:.4g} |"
    )
    data = "\n".join(
        "- " + ", ".join(f"{name}: {value}" for name, value in source.items()) for source in sources.values()
    )
    return f"""---
library_name: handlens
pipeline_tag: image-text-to-text
---
# {title}, phase {last["phase"]}

Trained by Handlens {last["handlens"]} (commit `{last["commit"]}`) with

    {last["command"]}

## What it cost
| phase | trains | steps | pictures | slices | tokens | operations | device-hours | kWh |
|---|---|---|---|---|---|---|---|---|
{rows}
{sums}

Device: {last["device"]}. Energy: {last["energy_method"]}. Carbon: {total["carbon_kg"]:.4g} kg, {last["carbon_method"]}.
Operations: {last["flops_method"]}. What was computed after the last checkpoint before a kill is not in these figures.

## What it learned from
{data}
"""


def write_whole(file: Path, text: str) -> None:
    """Write a text so that it appears whole or not at all."""
    part = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        part.write_text(text, encoding="utf-8")
        show(part, file)
    finally:
        part.unlink(missing_ok=True)
