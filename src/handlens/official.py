"""Field names of the official ``config.json`` files, read into and written from ``HandlensConfig``.

Boundary: dictionaries in and out, no file access; strict: an unknown kind, version or scaling is an error.
"""

import difflib
from collections.abc import Iterable
from typing import Any

from handlens.config import HandlensConfig, LanguageConfig, LongRope, ResamplerConfig, SlicingConfig, VisionConfig
from handlens.errors import ModelError
from handlens.families import FAMILIES, Family, family_named

RESAMPLED = "minicpmv"
"""``model_type`` of nano and of 1.0 to 4.5, which ``version`` tells apart."""
NATIVE = {"minicpmv4_6": "4.6"}
"""``model_type`` and family of what transformers has a class for."""
VISION_ENCODERS = {
    "vit_so400m_patch14_siglip_384.webli": {
        "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16,
        "patch_size": 14, "image_size": 378,
    },
}  # fmt: skip
"""Sizes of the timm towers that 1.0 and 2.0 name."""
MODEL_CODE = {
    "AutoConfig": "configuration_minicpm.MiniCPMVConfig",
    "AutoModel": "modeling_minicpmv.MiniCPMV",
    "AutoModelForCausalLM": "modeling_minicpmv.MiniCPMV",
}


def read_fields(fields: dict[str, Any]) -> HandlensConfig:
    """Return the typed configuration.

    Raises:
        ModelError: see ``HandlensConfig.from_official``.
    """
    try:
        family = family_of(fields)
        return _read_native(fields, family) if family.tower == "native" else _read(fields, family)
    except KeyError as missing:
        raise ModelError(f"config.json lacks the field {missing}; take it from an official checkpoint") from None
    except (TypeError, ValueError, AttributeError) as cause:
        raise ModelError(
            f"a field of config.json has the wrong type: {cause}; compare it with an official one"
        ) from None


def family_of(fields: dict[str, Any]) -> Family:
    """Return the family that a ``config.json`` belongs to.

    Raises:
        ModelError: ``model_type`` or ``version`` is unknown; the message lists the known ones and the nearest.
    """
    kind = fields.get("model_type")
    if kind in NATIVE:
        name = NATIVE[kind]
        return family_named(f"{name}-4x" if fields.get("downsample_mode") == "4x" else name)
    if kind != RESAMPLED:
        raise ModelError(
            f"config.json has model_type {kind!r}; '{RESAMPLED}' is needed{_choices(str(kind), (RESAMPLED, *NATIVE))}"
        )
    if "handlens_family" in fields:
        return family_named(str(fields["handlens_family"]))
    versions = [name for name, family in FAMILIES.items() if family.tower != "native" and name[0].isdigit()]
    if fields.get("version") is None:
        if "vision_encoder" not in fields and fields["vision_config"] is not None:
            raise ModelError(
                f"config.json has neither version nor vision_encoder, so it is of no release{_choices('', versions)}"
            )
        return family_named("2.0" if fields.get("slice_mode") or "scale_resolution" in fields else "1.0")
    try:
        version = f"{float(fields['version']):.1f}"
    except (TypeError, ValueError):
        version = str(fields["version"])
    if version not in versions:
        raise ModelError(
            f"config.json has version {fields['version']!r}, which is unknown"
            f"{_choices(str(fields['version']), versions)}"
        )
    return family_named(version)


def _choices(given: str, known: Iterable[str]) -> str:
    """Return the known names and the nearest of them, as the end of a message."""
    names = list(known)
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.0) if given else []
    return f"; known: {', '.join(names)}" + (f"; nearest: {near[0]}" if near else "")


def _read(fields: dict[str, Any], family: Family) -> HandlensConfig:
    is_timm = family.tower == "timm"
    vision = fields.get("vision_config") if is_timm else fields["vision_config"]
    if vision is None:
        name = fields["vision_encoder"]
        if name not in VISION_ENCODERS:
            raise ModelError(f"config.json has the unknown vision_encoder {name!r}{_choices(name, VISION_ENCODERS)}")
        vision = VISION_ENCODERS[name]
    dropped = bool(fields.get("drop_vision_last_layer", is_timm))
    slices = fields if is_timm else fields["slice_config"]
    return HandlensConfig(
        family=family.name,
        vision=VisionConfig(
            width=vision["hidden_size"],
            mlp_width=vision["intermediate_size"],
            num_layers=vision["num_hidden_layers"] - dropped,
            num_heads=vision["num_attention_heads"],
            patch_px=vision["patch_size"],
            table_side=vision["image_size"] // vision["patch_size"],
            norm_eps=vision.get("layer_norm_eps", 1e-6),
        ),
        resampler=ResamplerConfig(
            num_queries=fields["query_num"],
            width=fields["hidden_size"],
            vision_width=vision["hidden_size"],
            query_positions=family.query_positions,
            stored_keys=family.stored_keys,
        ),
        language=_read_language(fields, family),
        slicing=SlicingConfig(
            side_px=slices.get("scale_resolution", family.side_px if is_timm else 448),
            max_slices=slices.get("max_slice_nums", 1) if is_timm else slices["max_slice_nums"],
            patch_px=slices.get("patch_size", 14) if is_timm else slices["patch_size"],
        ),
    )


def _read_language(fields: dict[str, Any], family: Family) -> LanguageConfig:
    heads, width = fields["num_attention_heads"], fields["hidden_size"]
    head_dim = fields.get("head_dim") or width // heads
    is_scaled = family.language == "minicpm"
    return LanguageConfig(
        kind=family.language,
        vocab_size=fields["vocab_size"],
        width=width,
        mlp_width=fields["intermediate_size"],
        num_layers=fields["num_hidden_layers"],
        num_heads=heads,
        num_kv_heads=fields["num_key_value_heads"],
        head_size=None if head_dim * heads == width else head_dim,
        rope_theta=float(fields["rope_theta"]),
        long_rope=_read_rope(fields.get("rope_scaling"), head_dim),
        max_positions=fields["max_position_embeddings"],
        norm_eps=fields["rms_norm_eps"],
        tied=bool(fields["tie_word_embeddings"]),
        scale_emb=float(fields["scale_emb"]) if is_scaled else 1.0,
        scale_depth=float(fields["scale_depth"]) if is_scaled else None,
        dim_model_base=fields["dim_model_base"] if is_scaled else None,
    )


def _read_rope(scaling: dict[str, Any] | None, head_dim: int) -> LongRope | None:
    if scaling is None:
        return None
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind == "default":
        return None
    if kind != "longrope":
        raise ModelError(f"config.json has rope_scaling of type {kind!r}; known: default, longrope")
    rope = LongRope(
        short=tuple(scaling["short_factor"]),
        long=tuple(scaling["long_factor"]),
        original_positions=scaling["original_max_position_embeddings"],
        factor=scaling.get("factor"),
    )
    if not len(rope.short) == len(rope.long) == head_dim // 2:
        raise ModelError(
            f"rope_scaling has {len(rope.short)} short and {len(rope.long)} long factors; heads of {head_dim} channels "
            f"need {head_dim // 2} of each"
        )
    return rope


def _read_native(fields: dict[str, Any], family: Family) -> HandlensConfig:
    vision, text = fields["vision_config"], fields["text_config"]
    slices = fields.get("slice_config") or {}
    return HandlensConfig(
        family=family.name,
        native={name: value for name, value in fields.items() if name != "slice_config"},
        vision=VisionConfig(
            width=vision["hidden_size"],
            mlp_width=vision["intermediate_size"],
            num_layers=vision["num_hidden_layers"],
            num_heads=vision["num_attention_heads"],
            patch_px=vision["patch_size"],
            table_side=vision["image_size"] // vision["patch_size"],
            norm_eps=vision.get("layer_norm_eps", 1e-6),
        ),
        resampler=ResamplerConfig(
            num_queries=family.num_queries, width=text["hidden_size"], vision_width=vision["hidden_size"]
        ),
        language=LanguageConfig(
            kind=family.language,
            vocab_size=text["vocab_size"],
            width=text["hidden_size"],
            mlp_width=text["intermediate_size"],
            num_layers=text["num_hidden_layers"],
            num_heads=text["num_attention_heads"],
            num_kv_heads=text["num_key_value_heads"],
            head_size=text["head_dim"],
            rope_theta=float(text["rope_parameters"]["rope_theta"]),
            max_positions=text["max_position_embeddings"],
            norm_eps=text["rms_norm_eps"],
            tied=bool(fields.get("tie_word_embeddings", False)),
        ),
        slicing=SlicingConfig(
            side_px=slices.get("scale_resolution", family.side_px),
            max_slices=slices.get("max_slice_nums", family.max_slices),
            patch_px=vision["patch_size"],
        ),
    )


def write_fields(config: HandlensConfig) -> dict[str, Any]:
    """Return the fields of a ``config.json`` that ``read_fields`` and the released code read.

    Raises:
        ModelError: see ``HandlensConfig.to_official``.
    """
    family = family_named(config.family)
    if family.tower == "native":
        if config.native is None:
            raise ModelError(
                f"a config.json of {family.name} cannot be made from sizes alone; begin with an official one"
            )
        return dict(config.native)
    # Like nano, what is no release is written as a model of 4.0, the layout that other programs read.
    version = {"1.0": {}, "2.0": {}, "2.5": {"version": "2.5"}}.get(
        family.name, {"version": float(family.name) if family.name[0].isdigit() else 4.0}
    )
    mark = {} if family.name[0].isdigit() else {"handlens_family": family.name}
    return (
        {"architectures": ["MiniCPMV"], "model_type": RESAMPLED}
        | version
        | mark
        | _language_fields(config.language)
        | {
            "query_num": config.resampler.num_queries,
            "image_size": config.slicing.side_px,
            "patch_size": config.vision.patch_px,
        }
        | (_timm_fields(config, family) if family.tower == "timm" else _siglip_fields(config, family))
    )


def _language_fields(language: LanguageConfig) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "hidden_size": language.width,
        "intermediate_size": language.mlp_width,
        "num_hidden_layers": language.num_layers,
        "num_attention_heads": language.num_heads,
        "num_key_value_heads": language.num_kv_heads,
        "head_dim": language.head_dim,
        "vocab_size": language.vocab_size,
        "max_position_embeddings": language.max_positions,
        "rms_norm_eps": language.norm_eps,
        "rope_theta": language.rope_theta,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": language.tied,
    }
    if language.kind == "minicpm":
        fields |= {
            "scale_emb": language.scale_emb,
            "scale_depth": language.scale_depth,
            "dim_model_base": language.dim_model_base,
        }
    if (rope := language.long_rope) is not None:
        fields["rope_scaling"] = {
            "rope_type": "longrope",
            "short_factor": list(rope.short),
            "long_factor": list(rope.long),
            "original_max_position_embeddings": rope.original_positions,
        } | ({} if rope.factor is None else {"factor": rope.factor})
    return fields


def _timm_fields(config: HandlensConfig, family: Family) -> dict[str, Any]:
    """The official file names the tower; sizes of another tower stand in ``vision_config``."""
    name, sizes = next(iter(VISION_ENCODERS.items()))
    ours = _vision_sizes(config.vision) | {"num_hidden_layers": config.vision.num_layers + 1}
    fields: dict[str, Any] = {"vision_encoder": name, "drop_vision_last_layer": True, "auto_map": MODEL_CODE}
    if family.division != "square":
        fields |= {
            "slice_mode": True,
            "max_slice_nums": config.slicing.max_slices,
            "scale_resolution": config.slicing.side_px,
            "mm_use_im_start_end": True,
        }
    return fields if ours == sizes else fields | {"vision_config": ours}


def _siglip_fields(config: HandlensConfig, family: Family) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "drop_vision_last_layer": False,
        "batch_vision_input": True,
        "slice_mode": True,
        "use_image_id": family.uses_image_id,
        "vision_batch_size": 16,
        "slice_config": {
            "max_slice_nums": config.slicing.max_slices,
            "scale_resolution": config.slicing.side_px,
            "patch_size": config.slicing.patch_px,
            "model_type": RESAMPLED,
        },
        "vision_config": {
            "model_type": "idefics2" if family.attends_padding else "siglip",
            **_vision_sizes(config.vision),
            "hidden_act": "gelu_pytorch_tanh",
            "layer_norm_eps": config.vision.norm_eps,
        },
    }
    return fields | ({"batch_3d_resampler": True} if family.groups_frames else {})


def _vision_sizes(vision: VisionConfig) -> dict[str, int]:
    return {
        "hidden_size": vision.width,
        "intermediate_size": vision.mlp_width,
        "num_hidden_layers": vision.num_layers,
        "num_attention_heads": vision.num_heads,
        "image_size": vision.table_side * vision.patch_px,
        "patch_size": vision.patch_px,
    }
