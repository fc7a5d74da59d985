"""What two GGUF files say about their model: its family and its sizes, with or without a ``config.json``.

Boundary: headers in, a configuration out; loads no weights.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from handlens.config import HandlensConfig, LanguageConfig, ResamplerConfig, SlicingConfig, VisionConfig
from handlens.engine.gguf_header import Header, read_header
from handlens.errors import ModelError, SettingError
from handlens.export.mmproj import VERSIONS
from handlens.families import FAMILIES, family_named

NANO_SIDE_PX = FAMILIES["nano"].side_px


def family_of_pair(mmproj: Path, vision: Header, text: Header, told: str | None = None) -> str:
    """Return the family of a vision file, seeing that it sees for this kind of language model.

    ``told`` is what ``config.json`` says; several families can share a number.

    Raises:
        ModelError: the version is unknown, or of another kind of language model.
    """
    number = int(vision.values.get("clip.minicpmv_version", -1))
    names = [name for name, version in VERSIONS.items() if version == number]
    if not names:
        raise ModelError(
            f"{mmproj} has clip.minicpmv_version {number}; known: "
            + ", ".join(f"{version} ({name})" for name, version in VERSIONS.items())
        )
    if told is not None and told not in names:
        raise ModelError(
            f"config.json is of family {told}, {mmproj} sees for family {names[0]}; they belong to different models; "
            "take all files from one export"
        )
    is_small = vision.values.get("clip.vision.image_size") == NANO_SIDE_PX
    name = told or ("nano" if "nano" in names and is_small else next(name for name in names if name != "nano"))
    if family_named(name).language != text.architecture:
        raise ModelError(
            f"{mmproj} sees for {name}, whose language model is of kind {family_named(name).language}; the language "
            f"file is of kind {text.architecture}; take both files from one export"
        )
    return name


def config_of_pair(language: Path, mmproj: Path, told: str | None = None) -> HandlensConfig:
    """Return family and sizes of two files; ``told`` is the family that a ``config.json`` names.

    Raises:
        ModelError: they do not belong together, or a key is missing.
    """
    vision, text = read_header(mmproj), read_header(language)
    family = family_named(family_of_pair(mmproj, vision, text, told))

    def number(key: str) -> int:
        if (found := vision.values.get(f"clip.vision.{key}")) is None:
            raise ModelError(f"{mmproj} lacks the key clip.vision.{key}; export it again")
        return int(found)

    rows, width = vision.tensors["v.position_embd.weight"].shape
    queries, dim = vision.tensors["resampler.query"].shape
    heads, dim_text = text.number("attention.head_count", 1), text.number("embedding_length")

    def fraction(key: str, default: float) -> float:
        return float(
            str(np.float32(text.values.get(f"{text.architecture}.{key}", default)))
        )  # 32 bits as they are said

    head_size = text.number("attention.key_length")
    try:
        return HandlensConfig(
            family=family.name,
            vision=VisionConfig(
                width=width,
                mlp_width=number("feed_forward_length"),
                num_layers=number("block_count"),
                num_heads=number("attention.head_count"),
                patch_px=number("patch_size"),
                table_side=round(rows**0.5),
            ),
            resampler=ResamplerConfig(num_queries=queries, width=dim, vision_width=width),
            language=LanguageConfig(
                kind=family.language,
                vocab_size=text.tensors["token_embd.weight"].shape[0],
                width=dim_text,
                mlp_width=text.number("feed_forward_length"),
                num_layers=text.number("block_count"),
                num_heads=heads,
                num_kv_heads=text.number("attention.head_count_kv", heads),
                head_size=None if head_size in (0, dim_text // heads) else head_size,
                rope_theta=fraction("rope.freq_base", 10_000.0),
                max_positions=text.number("context_length", 4096),
                norm_eps=fraction("attention.layer_norm_rms_epsilon", 1e-6),
                tied="output.weight" not in text.tensors,
            ),
            slicing=replace(SlicingConfig(), side_px=number("image_size"), patch_px=number("patch_size")),
        )
    except (KeyError, SettingError) as cause:
        raise ModelError(f"{language} and {mmproj} do not describe a model: {cause}; export them again") from None
