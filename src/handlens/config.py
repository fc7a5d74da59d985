"""Configuration of a model as frozen dataclasses, read from and written to the official ``config.json``.

Boundary: no framework, no file access; ``model/`` and ``export/`` turn these into weights and graphs.
"""

from dataclasses import dataclass, field
from typing import Any

from handlens.errors import ModelError, SettingError


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """The vision tower: a ViT whose positions are fitted to every slice."""

    width: int = 192
    """Channels of one patch vector (official name ``hidden_size``)."""
    mlp_width: int = 512
    num_layers: int = 6
    num_heads: int = 3
    patch_px: int = 14
    table_side: int = 70
    """Rows and columns of the learned position table (official ``image_size / patch_size``)."""
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.width % self.num_heads:
            raise SettingError(f"vision width {self.width} is not a multiple of {self.num_heads} heads")


@dataclass(frozen=True, kw_only=True)
class ResamplerConfig:
    """One cross-attention layer: learned queries read the patches of one slice."""

    num_queries: int = 64
    """Visual tokens that one slice becomes."""
    width: int = 256
    """Channels of a visual token; equals the language width."""
    vision_width: int = 192
    query_positions: bool = False
    """Add a stored sin-cos table to the queries (1.0 and 2.0 do, 2.5 and later do not)."""
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.width % 128:
            raise SettingError(f"resampler width {self.width} is not a multiple of 128, the size of one head")

    @property
    def num_heads(self) -> int:
        """Heads of 128 channels (arXiv 2408.01800 releases: width // 128)."""
        return self.width // 128


@dataclass(frozen=True, kw_only=True)
class LanguageConfig:
    """A Llama-shaped decoder."""

    vocab_size: int = 1024
    width: int = 256
    mlp_width: int = 768
    num_layers: int = 4
    num_heads: int = 4
    num_kv_heads: int = 2
    rope_theta: float = 10_000.0
    max_positions: int = 4096
    norm_eps: float = 1e-6
    tied: bool = False
    """Output weights are the input embeddings."""

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.width // self.num_heads


@dataclass(frozen=True, kw_only=True)
class SlicingConfig:
    """How a picture is divided (arXiv 2408.01800, section 3.2)."""

    side_px: int = 448
    """A slice has about ``side_px ** 2`` pixels."""
    max_slices: int = 9
    patch_px: int = 14


@dataclass(frozen=True, kw_only=True)
class HandlensConfig:
    """Everything that decides what a model computes."""

    family: str = "nano"
    vision: VisionConfig = field(default_factory=VisionConfig)
    resampler: ResamplerConfig = field(default_factory=ResamplerConfig)
    language: LanguageConfig = field(default_factory=LanguageConfig)
    slicing: SlicingConfig = field(default_factory=lambda: SlicingConfig(side_px=224))

    def __post_init__(self) -> None:
        if self.resampler.width != self.language.width:
            raise SettingError(
                f"resampler width {self.resampler.width} must equal language width {self.language.width}"
            )
        if self.resampler.vision_width != self.vision.width:
            raise SettingError(
                f"resampler vision_width {self.resampler.vision_width} must equal vision width {self.vision.width}"
            )

    def to_official(self) -> dict[str, Any]:
        """Return the fields of an official MiniCPM-V 4.0 ``config.json`` (plain RoPE, 2.6 schema)."""
        vision, language = self.vision, self.language
        return {
            "architectures": ["MiniCPMV"],
            "model_type": "minicpmv",
            "version": 4.0,
            "handlens_family": self.family,
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
            "query_num": self.resampler.num_queries,
            "image_size": self.slicing.side_px,
            "patch_size": vision.patch_px,
            "drop_vision_last_layer": False,
            "batch_vision_input": True,
            "slice_mode": True,
            "use_image_id": True,
            "vision_batch_size": 16,
            "slice_config": {
                "max_slice_nums": self.slicing.max_slices,
                "scale_resolution": self.slicing.side_px,
                "patch_size": self.slicing.patch_px,
                "model_type": "minicpmv",
            },
            "vision_config": {
                "model_type": "siglip",
                "hidden_size": vision.width,
                "intermediate_size": vision.mlp_width,
                "num_hidden_layers": vision.num_layers,
                "num_attention_heads": vision.num_heads,
                "image_size": vision.table_side * vision.patch_px,
                "patch_size": vision.patch_px,
                "hidden_act": "gelu_pytorch_tanh",
                "layer_norm_eps": vision.norm_eps,
            },
        }

    @classmethod
    def from_official(cls, fields: dict[str, Any]) -> "HandlensConfig":
        """Read the fields of a ``config.json``.

        Raises:
            ModelError: the file belongs to another kind of model, or a field is missing.
        """
        if fields.get("model_type") != "minicpmv":
            raise ModelError(f"config.json has model_type {fields.get('model_type')!r}; 'minicpmv' is needed")
        try:
            vision, slices = fields["vision_config"], fields["slice_config"]
            return cls(
                family=fields.get("handlens_family", "4.0"),
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
                    num_queries=fields["query_num"],
                    width=fields["hidden_size"],
                    vision_width=vision["hidden_size"],
                ),
                language=LanguageConfig(
                    vocab_size=fields["vocab_size"],
                    width=fields["hidden_size"],
                    mlp_width=fields["intermediate_size"],
                    num_layers=fields["num_hidden_layers"],
                    num_heads=fields["num_attention_heads"],
                    num_kv_heads=fields["num_key_value_heads"],
                    rope_theta=float(fields["rope_theta"]),
                    max_positions=fields["max_position_embeddings"],
                    norm_eps=fields["rms_norm_eps"],
                    tied=bool(fields["tie_word_embeddings"]),
                ),
                slicing=SlicingConfig(
                    side_px=slices.get("scale_resolution", 448),
                    max_slices=slices["max_slice_nums"],
                    patch_px=slices["patch_size"],
                ),
            )
        except KeyError as missing:
            raise ModelError(f"config.json lacks the field {missing}; take it from an official checkpoint") from None
        except (TypeError, ValueError, AttributeError) as cause:
            raise ModelError(
                f"a field of config.json has the wrong type: {cause}; compare it with an official one"
            ) from None
