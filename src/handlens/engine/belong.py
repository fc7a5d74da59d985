"""Refuse halves that do not belong together, and a half that does not fit into memory, before anything is computed.

Boundary: headers and numbers; loads no weights.
"""

from pathlib import Path

from handlens.config import HandlensConfig
from handlens.engine.gguf_header import Header
from handlens.engine.memory import available_bytes, human, total_bytes
from handlens.engine.say import say_once
from handlens.errors import ModelError

LANGUAGE_KINDS = ("llama", "minicpm", "qwen2", "qwen3")
"""Architectures, as GGUF names them, of the language halves of this family of models."""


def check_language(file: Path, header: Header, config: HandlensConfig) -> None:
    """Raise ``ModelError`` unless the GGUF file is the language half that the configuration describes."""
    if header.architecture not in LANGUAGE_KINDS:
        kind = header.architecture or "unnamed"
        hint = "that is a vision half for llama.cpp" if kind == "clip" else f"needed is {', '.join(LANGUAGE_KINDS)}"
        raise ModelError(f"{file} is a GGUF of architecture '{kind}'; {hint}; put the language half in its place")
    language = config.language
    expected = {
        "embedding_length": (language.width, "width"),
        "block_count": (language.num_layers, "number of layers"),
    }
    for key, (wanted, name) in expected.items():
        found = header.number(key, wanted)
        if found != wanted:
            raise ModelError(
                f"{file} has {name} {found}, the manifest says {wanted}; these halves do not belong together; "
                "export the bundle again"
            )


def check_room(needed_bytes: int, what: str) -> None:
    """Refuse what cannot fit, and warn once before the machine would swap.

    Raises:
        ModelError: more is needed than the machine, its container or the shell's limit has in all.
    """
    total, available = total_bytes(), available_bytes()
    if needed_bytes > total:
        raise ModelError(
            f"{what} needs about {human(needed_bytes)} of memory, there are {human(total)} in all; choose a smaller "
            "quantisation or model; `handlens plan` says what each phase needs"
        )
    if needed_bytes > available:
        say_once(
            f"{what} needs about {human(needed_bytes)} of memory, {human(available)} are free; it will swap or read "
            "its file again and again; close other programs; `handlens plan` says what each phase needs"
        )
