"""What a person who helps needs to know of this machine and this installation, each with a verdict.

Boundary: the operating system, installed packages and one bundle; asks pictures of its own, never one of the user.
"""

import importlib.metadata
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from handlens.errors import HandlensError

ORDER = ("fail", "warn", "skip", "ok")
HOT_CELSIUS = 90.0
"""From here on most processors slow down."""
LITTLE_DISK_BYTES = 1_000_000_000
NATIVE_FLAGS = ("avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "amx_bf16")
"""Instruction sets that a native build of llama.cpp uses and the prebuilt wheel does not."""
PACKAGES = (
    "numpy", "pillow", "tokenizers", "onnxruntime", "xllamacpp", "gguf", "pypdfium2", "huggingface_hub", "torch",
    "transformers", "ray", "fastapi",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    status: str
    """ok, warn (works, but), fail (does not work) or skip (cannot be known here)."""
    found: str
    advice: str = ""
    """What to do; empty where nothing is to be done."""
    facts: dict[str, Any] = field(default_factory=dict)
    """The same as values, for programs."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "name": self.name, "status": self.status, "found": self.found, "advice": self.advice or None,
            "facts": self.facts,
        }  # fmt: skip


def examine(folder: Path) -> Iterator[Check]:
    """Yield every check, one after the other; nothing that goes wrong is raised.

    ``folder`` is a bundle; what cannot be looked at because something before it failed is left out.
    """
    for look in (_system, _instructions, _memory, _load, _temperature, _disk, _versions, _vision_engine):
        yield _safely(look)
    language = _safely(_language_engine)
    yield language
    bundle = _safely(lambda: _bundle(folder), "bundle")
    yield bundle
    if bundle.status == "fail":
        return
    yield _safely(lambda: _fits(folder), "room for the model")
    yield _safely(lambda: _profile(folder), "settings")
    if language.status != "fail":
        yield _safely(lambda: _answers(folder), "known pictures")


def _safely(look: Callable[[], Check], name: str = "") -> Check:
    """Turn what is raised into a failed check."""
    name = name or look.__name__.strip("_").replace("_", " ")
    try:
        return look()
    except HandlensError as cause:
        return Check(name=name, status="fail", found=str(cause))
    except Exception as cause:  # a doctor does not fall ill
        return Check(name=name, status="fail", found=f"{type(cause).__name__}: {cause}", advice="please report this")


def _system() -> Check:
    from handlens.engine.setup import processor_name

    facts = {
        "system": platform.system(), "release": platform.release(), "machine": platform.machine(),
        "python": platform.python_version(), "processor": processor_name(),
    }  # fmt: skip
    found = f"{facts['system']} {facts['release']} on {facts['machine']}, {facts['processor']}"
    return Check(name="system", status="ok", found=found, facts=facts)


def _instructions() -> Check:
    from handlens.engine.llama import NEEDED_FLAGS, processor_flags

    name, flags = "instruction set", processor_flags()
    if flags is None:
        return Check(name=name, status="ok", found=f"{platform.machine()}; nothing special is needed")
    missing, native = sorted(NEEDED_FLAGS - flags), [flag for flag in NATIVE_FLAGS if flag in flags]
    facts = {"needed": sorted(NEEDED_FLAGS), "missing": missing, "unused": native}
    if missing:
        return Check(
            name=name, status="fail", found=f"lacks {', '.join(missing)}", facts=facts,
            advice="the language half cannot run; build xllamacpp on this machine (see the line about llama.cpp)",
        )  # fmt: skip
    advice = ""
    if native:
        advice = f"a native build of llama.cpp would use {', '.join(native)}; prompts of large models get faster"
    return Check(name=name, status="ok", found=f"has {', '.join(sorted(NEEDED_FLAGS))}", advice=advice, facts=facts)


def _memory() -> Check:
    from handlens.engine.memory import available_bytes, human, total_bytes

    total, free = total_bytes(), available_bytes()
    facts = {"total_bytes": total, "available_bytes": free}
    low = free < total / 10
    return Check(
        name="memory", status="warn" if low else "ok", found=f"{human(free)} of {human(total)} available", facts=facts,
        advice="close other programs" if low else "",
    )  # fmt: skip


def _load() -> Check:
    from handlens.engine.cores import count_free_cores, physical_cores

    cores, free = physical_cores(), count_free_cores()
    busy = free < cores
    return Check(
        name="cores", status="warn" if busy else "ok", found=f"{free} of {cores} cores are free",
        facts={"cores": cores, "free": free},
        advice="answers are slower while other programs compute" if busy else "",
    )  # fmt: skip


def _temperature() -> Check:
    from handlens.measure import energy

    celsius, megahertz = energy.temperature_celsius(), energy.frequency_megahertz()
    facts = {"celsius": celsius, "megahertz": megahertz, "energy": energy.find_meter().method}
    warmth = energy.NOT_MEASURABLE if celsius is None else f"{celsius:.0f} °C"
    found = f"{warmth}; clock {f'{megahertz:.0f} MHz' if megahertz else 'unknown'}; energy: {facts['energy']}"
    hot = celsius is not None and celsius >= HOT_CELSIUS
    status = "skip" if celsius is None else "warn" if hot else "ok"
    return Check(
        name="temperature", status=status, found=found, facts=facts,
        advice="let it cool down; a hot processor runs slower" if hot else "",
    )  # fmt: skip


def _disk() -> Check:
    from handlens.engine.memory import human
    from handlens.models.store import store_folder

    folder = store_folder()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    little = free < LITTLE_DISK_BYTES
    return Check(
        name="disk", status="warn" if little else "ok", found=f"{human(free)} free where models and caches are kept",
        facts={"free_bytes": free}, advice="make room, or set HANDLENS_CACHE" if little else "",
    )  # fmt: skip


def _versions() -> Check:
    from handlens import __version__

    facts = {"handlens": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            facts[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return Check(
        name="versions", status="ok", found=", ".join(f"{name} {version}" for name, version in facts.items()),
        facts=facts,
    )  # fmt: skip


def _vision_engine() -> Check:
    import onnxruntime

    from handlens.engine.vision import available_providers

    found = available_providers()
    return Check(
        name="vision engine", status="ok", facts={"engine": "onnxruntime", "providers": found},
        found=f"onnxruntime {onnxruntime.__version__}, providers: {', '.join(found)}",
    )  # fmt: skip


def _language_engine() -> Check:
    from handlens.engine import llama

    llama.library()
    return Check(
        name="language engine", status="ok", facts={"engine": "llama.cpp", "xllamacpp": llama.XLLAMACPP_VERSION},
        found=f"llama.cpp of xllamacpp {llama.XLLAMACPP_VERSION}; its struct layouts are as expected",
    )  # fmt: skip


def _bundle(folder: Path) -> Check:
    from handlens.engine.bundle import Bundle
    from handlens.engine.memory import human

    bundle = Bundle.open(folder)
    bundle.check()
    files = bundle.manifest["files"]
    total = sum(int(facts["bytes"]) for facts in files.values())
    return Check(
        name="bundle", status="ok",
        found=f"{bundle.manifest['name']}, {len(files)} files, {human(total)}; every sha256 is as in the manifest",
        facts={
            "name": bundle.manifest["name"], "family": bundle.config.family,
            "fingerprint": bundle.manifest["fingerprint"], "vision": bundle.vision, "language": bundle.language,
            "sha256": {name: facts["sha256"] for name, facts in files.items()},
        },
    )  # fmt: skip


def _fits(folder: Path) -> Check:
    from handlens.engine.bundle import Bundle
    from handlens.engine.memory import available_bytes, human

    bundle = Bundle.open(folder, verify=False)
    files = bundle.manifest["files"]
    largest = max(int(files[name]["bytes"]) for name in (bundle.vision, bundle.language))
    free = available_bytes()
    fits = largest < free
    return Check(
        name="room for the model", status="ok" if fits else "fail",
        found=f"the larger half has {human(largest)}, {human(free)} are available",
        advice="" if fits else "close other programs, or export smaller weights (handlens export --quant Q4_K_M)",
        facts={"larger_half_bytes": largest},
    )  # fmt: skip


def _profile(folder: Path) -> Check:
    from handlens.engine.setup import load_profile

    setup = load_profile(folder)
    found = "defaults" if setup is None else f"found by tune: {setup.describe()}"
    facts = {"tuned": setup is not None, "setup": setup.to_json(changed_only=True) if setup else {}}
    advice = "" if setup else "`handlens tune` looks for faster ones"
    return Check(name="settings", status="ok", found=found, facts=facts, advice=advice)


def _answers(folder: Path) -> Check:
    """Ask the known pictures; the first station that differs names the culprit."""
    from handlens.engine.setup import load_profile
    from handlens.measure.known import check_known, read_known
    from handlens.measure.routes import check_routes

    is_recorded = read_known(folder) is not None
    stations, seconds = check_known(folder, load_profile(folder)) if is_recorded else (check_routes(folder), None)
    facts: dict[str, Any] = {
        "recorded": is_recorded, "seconds": seconds and round(seconds, 2),
        "stations": [
            {"picture": station.picture, "name": station.name, "status": station.status, "found": station.found}
            for station in stations
        ],
    }  # fmt: skip
    against = "the record of the bundle" if is_recorded else "a second way of computing (the bundle has no record)"
    wrong = [station for station in stations if station.status == "different"]
    if wrong:
        return Check(
            name="known pictures", status="fail", facts=facts,
            found=f"{wrong[0].name} of '{wrong[0].picture}' differs from {against}: {wrong[0].found}",
            advice=ADVICE[wrong[0].name],
        )  # fmt: skip
    close = sum(station.status == "close" for station in stations)
    found = f"{len(stations)} checks agree with {against}"
    return Check(
        name="known pictures", status="ok", facts=facts, found=f"{found}, {close} of them nearly" if close else found
    )


ADVICE = {
    "preparation": "pillow resizes otherwise; install the version of constraints.txt",
    "prompt": "tokenizers splits otherwise; install the version of constraints.txt",
    "vision": "try --no-profile, another provider, or the onnxruntime of constraints.txt",
    "language": "try --no-profile, or install xllamacpp again",
}
"""What to do when a station differs."""
