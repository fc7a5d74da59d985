"""The size of a model: weights, operations and cache per token, of a bundle or of a released version without weights.

Boundary: numbers only; reads headers, loads nothing.
"""

from dataclasses import dataclass
from pathlib import Path

from handlens.config import HandlensConfig
from handlens.core.slicing import SlicePlan
from handlens.errors import ModelError, SettingError, did_you_mean

HEAD_DIM = 128
PROMPT_TEXT_TOKENS = 40
"""Tokens of a question with its template."""


@dataclass(frozen=True, kw_only=True)
class VisionSize:
    """The tower and the resampler."""

    width: int = 1152
    mlp_width: int = 4304
    num_layers: int = 27
    num_heads: int = 16
    patch_px: int = 14
    table_rows: int = 4900


@dataclass(frozen=True, kw_only=True)
class LanguageSize:
    """The decoder."""

    vocab_size: int
    width: int
    mlp_width: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int = HEAD_DIM
    max_positions: int = 32_768

    @property
    def layer_values(self) -> int:
        """Weights of one layer."""
        attention = self.width * self.head_dim * 2 * (self.num_heads + self.num_kv_heads)
        return attention + 3 * self.width * self.mlp_width

    @property
    def table_values(self) -> int:
        """Weights of the embeddings; the output has as many."""
        return self.vocab_size * self.width


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Everything that decides how much memory and time a model takes."""

    name: str
    vision: VisionSize
    language: LanguageSize
    num_queries: int = 64
    side_px: int = 448
    max_slices: int = 9
    vision_kind: str = "int8"
    vision_bytes: int
    """Of the vision file, and of the weights beside it."""
    is_beside: bool = False
    """The weights of the vision half lie in a file beside the graph, which is mapped and not copied."""
    language_kind: str = "Q4_K_M"
    language_bytes: int
    """Of the language file."""
    read_bytes: int
    """Weights that one token of the answer reads: all but the embedding table."""
    is_repacked: bool = True
    """llama.cpp can lay these weights out anew, so they are copied instead of mapped."""
    max_copied_bytes: int = 0
    """The largest tensor, which is held twice while it is copied."""
    folder: Path | None = None
    """The bundle, where there is one."""

    @property
    def kv_bytes_per_token(self) -> int:
        """Keys and values of one token in 16 bits."""
        return 2 * 2 * self.language.num_layers * self.language.num_kv_heads * self.language.head_dim

    @property
    def token_operations(self) -> float:
        """Multiplications and additions of one token without attention."""
        return 2.0 * self.language.num_layers * self.language.layer_values

    @property
    def output_operations(self) -> float:
        """Of the logits of one token."""
        return 2.0 * self.language.table_values

    def slice_operations(self, patches: int) -> float:
        """Of tower and resampler for one slice.

        >>> round(geometry_named("minicpm-v-2").slice_operations(1024) / 1e9)
        968
        """
        vision, width = self.vision, self.language.width
        per_patch = 4 * vision.width**2 + 2 * vision.width * vision.mlp_width
        tower = 2 * vision.num_layers * (patches * per_patch + 2 * patches**2 * vision.width)
        keys = patches * (vision.width * width + 2 * width**2)
        queries = self.num_queries * 3 * width**2 + 2 * self.num_queries * patches * width
        embed = patches * 3 * vision.patch_px**2 * vision.width
        return float(tower + 2 * (keys + queries + embed))

    def visual_tokens(self, plan: SlicePlan) -> int:
        """Visual tokens of one picture."""
        return self.num_queries * plan.num_slices


BITS = {
    "F32": 32.0,
    "F16": 16.0,
    "BF16": 16.0,
    "Q8_0": 8.5,
    "Q6_K": 6.5625,
    "Q5_K_M": 5.68,
    "Q4_K_M": 4.85,
    "Q4_0": 4.5,
}
"""Bits per weight of a language file. Source: llama.cpp's table of mixes; 4.85 and 5.68 are means over layers."""
BITS_AWKWARD = {"Q4_K_M": 5.21, "Q5_K_M": 5.9, "Q6_K": 7.1}
"""The same where the MLP width is no multiple of 256 and its tensors fall back (MiniCPM: 5760)."""
VISION_BYTES = {"fp32": 4.0, "fp16": 2.0, "bf16": 2.0, "int8": 1.03}
"""Bytes per weight of a vision file; int8 keeps scales, norms and tables in 32 bits."""

_MINICPM = LanguageSize(
    vocab_size=122_753, width=2304, mlp_width=5760, num_layers=40, num_heads=36, num_kv_heads=36, head_dim=64,
    max_positions=4096,
)  # fmt: skip
_LLAMA3 = LanguageSize(
    vocab_size=128_256, width=4096, mlp_width=14_336, num_layers=32, num_heads=32, num_kv_heads=8, max_positions=8192
)
_QWEN2 = LanguageSize(vocab_size=151_666, width=3584, mlp_width=18_944, num_layers=28, num_heads=28, num_kv_heads=4)
_MINICPM4 = LanguageSize(vocab_size=73_448, width=2560, mlp_width=10_240, num_layers=32, num_heads=32, num_kv_heads=2)
_QWEN3 = LanguageSize(
    vocab_size=151_748, width=4096, mlp_width=12_288, num_layers=36, num_heads=32, num_kv_heads=8, max_positions=40_960
)
RELEASED = {
    "minicpm-v": (_MINICPM, 64, 26),
    "minicpm-v-2": (_MINICPM, 64, 26),
    "minicpm-llama3-v-2.5": (_LLAMA3, 96, 27),
    "minicpm-v-2.6": (_QWEN2, 64, 27),
    "minicpm-v-4": (_MINICPM4, 64, 27),
    "minicpm-v-4.5": (_QWEN3, 64, 27),
}
"""Name -> decoder, queries, layers of the tower. Source: the released config.json files."""
SHORT = {
    "1.0": "minicpm-v", "2.0": "minicpm-v-2", "minicpm-v-2.0": "minicpm-v-2", "2.5": "minicpm-llama3-v-2.5",
    "minicpm-llama3-v-2_5": "minicpm-llama3-v-2.5", "2.6": "minicpm-v-2.6", "minicpm-v-2_6": "minicpm-v-2.6",
    "4.0": "minicpm-v-4", "minicpm-v-4.0": "minicpm-v-4", "4.5": "minicpm-v-4.5", "minicpm-v-4_5": "minicpm-v-4.5",
}  # fmt: skip


def geometry_named(name: str, *, quant: str = "Q4_K_M", vision: str = "int8") -> Geometry:
    """Return the size of a released version as this quantisation would store it.

    Raises:
        ModelError: the name is unknown.
        SettingError: the quantisation is unknown.
    """
    key = name.strip().lower().removeprefix("openbmb/")
    key = SHORT.get(key, key)
    if key not in RELEASED:
        raise ModelError(
            f"unknown model '{name}'{did_you_mean(key, ['nano', *RELEASED])}; or give the folder of a bundle"
        )
    for kind, known in ((quant, BITS), (vision, VISION_BYTES)):
        if kind not in known:
            raise SettingError(f"unknown quantisation '{kind}'{did_you_mean(kind, known)}")
    language, queries, layers = RELEASED[key]
    tower = VisionSize(num_layers=layers, table_rows=729 if layers == 26 else 4900)
    bits = BITS[quant] if not language.mlp_width % 256 else BITS_AWKWARD.get(quant, BITS[quant])
    values = language.num_layers * language.layer_values + 2 * language.table_values
    table_bits = {"Q4_K_M": 4.5, "Q5_K_M": 5.5}.get(quant, bits)
    total = int(values * bits / 8) + 8_000_000  # the vocabulary
    return Geometry(
        name=key,
        vision=tower,
        language=language,
        num_queries=queries,
        vision_kind=vision,
        vision_bytes=int(vision_values(tower, language.width, queries) * VISION_BYTES[vision]),
        language_kind=quant,
        language_bytes=total,
        read_bytes=total - int(language.table_values * table_bits / 8),
        is_repacked=quant in ("Q4_K_M", "Q4_0", "Q5_K_M", "Q6_K"),
        max_copied_bytes=int(language.table_values * 6.5625 / 8),
    )


def vision_values(vision: VisionSize, width: int, queries: int) -> int:
    """Return how many weights tower and resampler have."""
    layer = 4 * vision.width**2 + 2 * vision.width * vision.mlp_width
    tower = vision.num_layers * layer + (3 * vision.patch_px**2 + vision.table_rows) * vision.width
    return tower + vision.width * width + 5 * width**2 + queries * width


def geometry_of_bundle(folder: Path, *, vision_file: str = "", language_file: str = "") -> Geometry:
    """Return the size of a bundle from its manifest and the header of its language file.

    Raises:
        ModelError: the folder is no whole bundle.
    """
    from handlens.engine.bundle import Bundle
    from handlens.engine.gguf_header import read_header
    from handlens.engine.language import REPACKED_KINDS

    bundle = Bundle.open(folder)
    vision_file, language_file = vision_file or bundle.vision, language_file or bundle.language
    beside = [name for name in bundle.manifest["files"] if name.startswith(vision_file + ".")]
    header = read_header(folder / language_file)
    shape, config = bundle.config.language, bundle.config
    table = header.tensors["token_embd.weight"]
    has_output = "output.weight" in header.tensors
    weights = sum(fact.num_bytes for fact in header.tensors.values())
    return Geometry(
        name=bundle.info.name,
        vision=_vision_size(config),
        language=LanguageSize(
            vocab_size=shape.vocab_size, width=shape.width, mlp_width=shape.mlp_width, num_layers=shape.num_layers,
            num_heads=shape.num_heads, num_kv_heads=shape.num_kv_heads,
            head_dim=header.number("attention.key_length", shape.width // shape.num_heads),
            max_positions=shape.max_positions,
        ),
        num_queries=config.resampler.num_queries,
        side_px=config.slicing.side_px,
        max_slices=config.slicing.max_slices,
        vision_kind="int8" if "int8" in vision_file else "fp32",
        vision_bytes=sum((folder / name).stat().st_size for name in (vision_file, *beside)),
        is_beside=bool(beside),
        language_kind=language_file.removeprefix("language-").removesuffix(".gguf"),
        language_bytes=(folder / language_file).stat().st_size,
        read_bytes=weights - (table.num_bytes if has_output else 0),
        is_repacked=any(fact.kind in REPACKED_KINDS for fact in header.tensors.values()),
        max_copied_bytes=max(fact.num_bytes for fact in header.tensors.values()),
        folder=folder,
    )  # fmt: skip


def _vision_size(config: HandlensConfig) -> VisionSize:
    vision = config.vision
    return VisionSize(
        width=vision.width, mlp_width=vision.mlp_width, num_layers=vision.num_layers, num_heads=vision.num_heads,
        patch_px=vision.patch_px, table_rows=vision.table_side**2,
    )  # fmt: skip


def geometry_for(model: str, *, quant: str = "", vision: str = "") -> Geometry:
    """Return the size of ``nano``, of a bundle folder, or of a released version by name."""
    import handlens

    folder = handlens.PACKAGED.get(model, Path(model))
    if (folder / "manifest.json").is_file():
        if quant or vision:
            raise SettingError(f"{model} is a bundle and has its quantisation; --quant and --vision are for names")
        return geometry_of_bundle(folder)
    if folder.is_dir():
        raise ModelError(f"{folder} is a folder without manifest.json; plan needs a bundle, or the name of a version")
    return geometry_named(model, quant=quant or "Q4_K_M", vision=vision or "int8")
