"""Configuration of a model as frozen dataclasses, read from and written to the official ``config.json``.

Boundary: no framework, no file access; ``official.py`` knows the field names, ``model/`` and ``export/`` turn these
into weights and graphs.
"""

from dataclasses import dataclass, field
from typing import Any

from handlens.errors import SettingError
from handlens.families import LanguageKind, family_named


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
    """One cross-attention layer: learned queries read the patches of one slice.

    4.6 merges squares of patches instead; there only the widths count.
    """

    num_queries: int = 64
    """Visual tokens that one slice becomes."""
    width: int = 256
    """Channels of a visual token; equals the language width."""
    vision_width: int = 192
    query_positions: bool = False
    """Add a stored sin-cos table to the queries (1.0 and 2.0 do, 2.5 and later do not)."""
    stored_keys: bool = False
    """Key positions are that stored table, enlarged to the slice (1.0)."""
    norm_eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.width % 128:
            raise SettingError(f"resampler width {self.width} is not a multiple of 128, the size of one head")

    @property
    def num_heads(self) -> int:
        """Heads of 128 channels (arXiv 2408.01800 releases: width // 128)."""
        return self.width // 128


@dataclass(frozen=True, kw_only=True)
class LongRope:
    """Rotary frequencies divided by one factor each (4.0), for short and for long prompts."""

    short: tuple[float, ...]
    long: tuple[float, ...]
    original_positions: int
    """Prompts longer than this use the long factors."""
    factor: float | None = None


@dataclass(frozen=True, kw_only=True)
class LanguageConfig:
    """A decoder of the Llama, Qwen or MiniCPM kind."""

    kind: LanguageKind = "llama"
    vocab_size: int = 1024
    width: int = 256
    mlp_width: int = 768
    num_layers: int = 4
    num_heads: int = 4
    num_kv_heads: int = 2
    head_size: int | None = None
    """Channels of one attention head where it is not ``width / num_heads``."""
    rope_theta: float = 10_000.0
    long_rope: LongRope | None = None
    max_positions: int = 4096
    norm_eps: float = 1e-6
    tied: bool = False
    """Output weights are the input embeddings."""
    scale_emb: float = 1.0
    """Word embeddings are multiplied by this (MiniCPM: 12)."""
    scale_depth: float | None = None
    """Residual branches are multiplied by ``scale_depth / sqrt(num_layers)`` (MiniCPM: 1.4)."""
    dim_model_base: int | None = None
    """The last hidden state is divided by ``width / dim_model_base`` (MiniCPM: 256)."""

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.head_size or self.width // self.num_heads

    @property
    def residual_scale(self) -> float:
        """Factor of every residual branch."""
        return 1.0 if self.scale_depth is None else self.scale_depth / self.num_layers**0.5

    @property
    def logit_divisor(self) -> float:
        """What the last hidden state is divided by."""
        return 1.0 if self.dim_model_base is None else self.width / self.dim_model_base


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
    native: dict[str, Any] | None = field(default=None, repr=False, compare=False)
    """Fields of a config.json whose class is part of transformers (4.6), as they are in the file."""

    def __post_init__(self) -> None:
        if self.language.kind != (kind := family_named(self.family).language):
            raise SettingError(f"family {self.family} has a language model of kind {kind}, not {self.language.kind}")
        if self.resampler.width != self.language.width:
            raise SettingError(
                f"resampler width {self.resampler.width} must equal language width {self.language.width}"
            )
        if self.resampler.vision_width != self.vision.width:
            raise SettingError(
                f"resampler vision_width {self.resampler.vision_width} must equal vision width {self.vision.width}"
            )

    def to_official(self) -> dict[str, Any]:
        """Return the fields of the official ``config.json`` of this family.

        Raises:
            ModelError: a config of 4.6 that was not read from a file; only transformers knows its other fields.
        """
        from handlens.official import write_fields

        return write_fields(self)

    @classmethod
    def from_official(cls, fields: dict[str, Any]) -> "HandlensConfig":
        """Read the fields of a ``config.json``.

        Raises:
            ModelError: an unknown kind or version of model, a missing field, or one of the wrong type.
        """
        from handlens.official import read_fields

        return read_fields(fields)
