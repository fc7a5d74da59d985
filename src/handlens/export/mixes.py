"""Which type each weight matrix is stored in: the mixes of llama.cpp.

Boundary: names and shapes in, names of types out; reads no weights.

Source: llama.cpp, ``llama_tensor_get_type``, for language models without experts.
"""

from dataclasses import dataclass

from handlens.engine.llama import ROW_BLOCKS
from handlens.errors import SettingError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Mix:
    """One way to store a language model."""

    number: int
    """Of ``enum llama_ftype``."""
    kind: str
    """Type of most matrices."""
    sensitive: str = ""
    """Type of the matrices that suffer most; empty where all are alike."""

    @property
    def has_blocks(self) -> bool:
        """True for types of few bits, false for floats."""
        return self.kind in ROW_BLOCKS


MIXES = {
    "F32": Mix(number=0, kind="F32"),
    "F16": Mix(number=1, kind="F16"),
    "BF16": Mix(number=32, kind="BF16"),
    "Q8_0": Mix(number=7, kind="Q8_0"),
    "Q6_K": Mix(number=18, kind="Q6_K"),
    "Q5_K_M": Mix(number=17, kind="Q5_K", sensitive="Q6_K"),
    "Q4_K_M": Mix(number=15, kind="Q4_K", sensitive="Q6_K"),
    "Q4_0": Mix(number=2, kind="Q4_0"),
}
"""Names a user can ask for, from most bits to fewest."""
FALLBACK = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
"""Types for rows that are no multiple of 256 values -> the type with blocks of 32 that stands in."""
LARGEST_LLAMA_LAYERS = 80


@dataclass(frozen=True, kw_only=True)
class Stack:
    """What the rules need to know of a model."""

    num_layers: int
    is_tied: bool
    """The embeddings are the output matrix too."""
    is_largest_llama: bool = False
    is_weighted: bool = False
    """There is an importance matrix."""


def is_largest_llama(architecture: str, num_layers: int, num_heads: int, num_kv_heads: int) -> bool:
    """True for what llama.cpp calls the 70B, which has a rule of its own."""
    shares_keys = num_heads != num_kv_heads or architecture == "qwen2"
    return num_layers == LARGEST_LLAMA_LAYERS and architecture in ("llama", "qwen2") and shares_keys


def check_quant(quant: str) -> Mix:
    """Return the mix of a name.

    Raises:
        SettingError: it is none of ``MIXES``.
    """
    if quant not in MIXES:
        raise SettingError(f"unknown quantisation '{quant}'{did_you_mean(quant, MIXES)}")
    return MIXES[quant]


def choose_kind(name: str, shape: tuple[int, ...], mix: Mix, stack: Stack) -> str:
    """Return the type in which a tensor is stored: vectors in 32 bits, matrices as the mix says.

    >>> stack = Stack(num_layers=8, is_tied=False)
    >>> [choose_kind(f"blk.{layer}.ffn_down.weight", (512, 512), MIXES["Q4_K_M"], stack) for layer in range(4)]
    ['Q6_K', 'Q4_K', 'Q4_K', 'Q6_K']
    """
    if len(shape) == 1:
        return "F32"
    return fit_row(_wanted(name, shape[-1], mix, stack), shape[-1]) if mix.has_blocks else mix.kind


def _wanted(name: str, columns: int, mix: Mix, stack: Stack) -> str:
    """Return the type before it is known whether it fits."""
    part = name.removesuffix(".weight").rpartition(".")[2]
    if part == "output" or (part == "token_embd" and stack.is_tied):
        if columns % ROW_BLOCKS[mix.kind][0]:
            return "Q8_0"
        return mix.kind if mix.kind == "Q8_0" else "Q6_K"
    if part not in ("attn_v", "ffn_down"):
        return mix.kind
    layer, layers = int(name.split(".")[1]), stack.num_layers
    is_early, is_late = layer < layers // 8, layer >= 7 * layers // 8
    if mix.sensitive and (is_early or is_late or (layer - layers // 8) % 3 == 2):
        return mix.sensitive
    if part == "attn_v" and stack.is_largest_llama and mix.kind == "Q4_K":
        return "Q5_K"
    # With weighted rounding the first of these matrices go wrong in Q4_0.
    return "Q4_1" if part == "ffn_down" and mix.kind == "Q4_0" and stack.is_weighted and is_early else mix.kind


def fit_row(kind: str, columns: int) -> str:
    """Return the type, or the one llama.cpp falls back to where rows do not fill its blocks.

    Rows that fill no block of 32 are stored in F16; llama.cpp does so for K types and refuses the others.

    >>> fit_row("Q4_K", 512), fit_row("Q4_K", 96), fit_row("Q6_K", 96), fit_row("Q8_0", 40)
    ('Q4_K', 'Q5_0', 'Q8_0', 'F16')
    """
    if columns % ROW_BLOCKS[kind][0] == 0:
        return kind
    smaller = FALLBACK.get(kind, kind)
    return smaller if columns % ROW_BLOCKS[smaller][0] == 0 else "F16"
