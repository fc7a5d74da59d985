"""How the two halves run on this machine: what ``handlens tune`` searches and every later run uses.

Boundary: names and numbers, and the file that keeps the best of them; no engine.
"""

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from handlens.errors import SettingError, did_you_mean

NO_PROFILE = "HANDLENS_NO_PROFILE"
"""Environment variable: 1 lets every run use the defaults."""
LOOKUP = 15
"""With the token before them they make a batch of 16, which fills the registers of most processors."""
PREFILLS = ("llama.cpp", "openvino")
KV_KINDS = ("auto", "f16", "q8_0", "f32")


@dataclass(frozen=True, kw_only=True)
class Setup:
    """Settings of one engine; the defaults suit most machines."""

    provider: str = "cpu"
    """Execution provider of the vision half, one of ``engine.vision.PROVIDERS``."""
    vision: str = ""
    """File of the vision half inside the bundle; empty takes the bundle's own."""
    language: str = ""
    """File of the language half inside the bundle; empty takes the bundle's own."""
    vision_threads: int = 0
    """0 takes the free cores; so do the next two."""
    prefill_threads: int = 0
    decode_threads: int = 0
    prefill: str = "llama.cpp"
    """What reads the pictures of a prompt, one of ``PREFILLS``; llama.cpp reads the text after them and answers."""
    batch: int = 512
    """Prompt tokens handed over at once."""
    micro_batch: int = 256
    """Prompt tokens computed at once; decides the size of the work memory."""
    kv: str = "auto"
    """Type of keys and values; auto is f16, and f32 where the weights are F32."""
    flash: bool = False
    """Attention without a table of scores; needed for ``kv="q8_0"``."""
    mmap: bool | None = None
    """Map the file instead of copying it; None copies only what is repacked anyway."""
    repack: bool = True
    """Lay the weights out anew for this processor."""
    lookup: int | None = None
    """Most tokens of repeated text that are guessed and checked in one batch; 0 is off, None as ``engine.lookup``
    decides."""

    def __post_init__(self) -> None:
        if self.kv not in KV_KINDS:
            raise SettingError(f"unknown kv type '{self.kv}'{did_you_mean(self.kv, KV_KINDS)}")
        if self.prefill not in PREFILLS:
            raise SettingError(f"unknown prefill '{self.prefill}'{did_you_mean(self.prefill, PREFILLS)}")
        if self.kv == "q8_0" and not self.flash:
            raise SettingError("kv q8_0 needs flash attention; set flash to true or kv to f16")
        for name in ("batch", "micro_batch"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} is {getattr(self, name)}; at least 1 is needed")
        if min(self.vision_threads, self.prefill_threads, self.decode_threads) < 0:
            raise SettingError("threads cannot be negative; 0 takes the free cores")
        if self.lookup is not None and self.lookup < 0:
            raise SettingError(f"lookup is {self.lookup}; give 0 (off) or how many tokens are guessed at once, say 15")

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "Setup":
        """Read settings; an unknown name is an error that guesses the right one."""
        known = {field.name for field in dataclasses.fields(cls)}
        for name in fields:
            if name not in known:
                raise SettingError(f"unknown setting '{name}'{did_you_mean(name, known)}")
        return cls(**fields)

    def to_json(self, *, changed_only: bool = False) -> dict[str, Any]:
        """Return plain values, all or those that differ from the defaults."""
        fields = dataclasses.asdict(self)
        return {name: value for name, value in fields.items() if value != getattr(Setup(), name)} if changed_only else (
            fields
        )  # fmt: skip

    def describe(self) -> str:
        """Return what differs from the defaults, in one line."""
        changed = self.to_json(changed_only=True)
        return ", ".join(f"{name} {value}" for name, value in changed.items()) or "defaults"


def profile_file(bundle_folder: Path) -> Path:
    """Return where the tuned settings of a bundle on this kind of processor are kept."""
    from platformdirs import user_config_path

    manifest = (bundle_folder / "manifest.json").read_bytes()
    key = hashlib.sha256(manifest + processor_name().encode()).hexdigest()[:16]
    return user_config_path("handlens") / "profiles" / f"{key}.json"


def load_profile(bundle_folder: Path) -> Setup | None:
    """Return the settings that ``handlens tune`` found; None where there are none or they are switched off.

    Raises:
        SettingError: the file is damaged.
    """
    if os.environ.get(NO_PROFILE, "") not in ("", "0"):
        return None
    file = profile_file(bundle_folder)
    if not file.is_file():
        return None
    try:
        return Setup.from_json(json.loads(file.read_text(encoding="utf-8"))["setup"])
    except (ValueError, KeyError, TypeError, SettingError) as cause:
        raise SettingError(f"the profile {file} is damaged ({cause}); delete it or run `handlens tune` again") from None


def save_profile(bundle_folder: Path, setup: Setup, facts: dict[str, Any]) -> Path:
    """Write the settings with what is known about them; returns the file."""
    file = profile_file(bundle_folder)
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    content = {"setup": setup.to_json(), "processor": processor_name(), **facts}
    unfinished = file.with_suffix(f".{os.getpid()}")
    unfinished.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(file)
    return file


def processor_name() -> str:
    """Return the name of the processor and how many of its cores this process may use."""
    import platform

    from handlens.engine.cores import physical_cores

    name = ""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.lower().startswith("model name")), "")
    except OSError:
        pass
    cores = physical_cores()
    return f"{name or platform.processor() or platform.machine()} ({cores} {'core' if cores == 1 else 'cores'})"
