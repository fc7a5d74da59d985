"""The released versions as records: what differs between them is data, never a branch.

Boundary: names and numbers only; ``core/prompt.py`` and ``model/`` read them.
"""

from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast, get_args

from handlens.core.patches import PositionRule
from handlens.core.sampling import Sampling
from handlens.errors import ModelError, SettingError, did_you_mean

Schema = Literal["grid_wrapped", "slice_wrapped"]
"""``grid_wrapped``: one <slice> around all cells (2.0, 2.5). ``slice_wrapped``: one per cell (2.6 and later)."""
Division = Literal["square", "grid", "grid_of_rows"]
"""``square``: no slices, one square picture (1.0). ``grid_of_rows``: of equal grids the one with more rows (4.6)."""
Tower = Literal["siglip", "timm", "native"]
"""Layout of the vision weights: HF SigLIP with tanh GELU, timm with erf GELU, or the class of transformers."""
LanguageKind = Literal["llama", "qwen2", "qwen3", "minicpm", "qwen3_5"]
Decoding = Literal["greedy", "released", "sampled", "searched"]
"""``greedy``: the likeliest token, repeatable. ``sampled``, ``searched``: what the released ``chat`` does with and
without its argument ``sampling``. ``released``: what it does when nothing is said."""
Proof = Literal["official run", "composition", "facts"]
"""How parity is known; docs/families.md says what each means."""


@dataclass(frozen=True, kw_only=True)
class Template:
    """How turns become text; ``{text}`` stands for the content of a turn."""

    user: str
    assistant: str
    opening: str
    """What precedes the answer that is asked for."""
    system: str = ""
    default_system: str | None = None
    begin: str = ""
    stops: tuple[str, ...] = ()
    trims: bool = False
    """Strip white space around the content of a turn."""
    thought: str = ""
    """Follows the opening when the model shall answer without thinking."""
    thinking: str = ""
    """Follows the opening when the model shall think first."""


CHATML = Template(
    system="<|im_start|>system\n{text}<|im_end|>\n",
    user="<|im_start|>user\n{text}<|im_end|>\n",
    assistant="<|im_start|>assistant\n{text}<|im_end|>\n",
    opening="<|im_start|>assistant\n",
    stops=("<|im_end|>",),
)
QWEN_STOPS = ("<|im_end|>", "<|endoftext|>")
NO_THOUGHT = "<think>\n\n</think>\n\n"
MINICPM = Template(
    user="<用户>{text}", assistant="<AI>{text}", opening="<AI>", begin="<s>", stops=("</s>",), trims=True
)
LLAMA3 = Template(
    begin="<|begin_of_text|>",
    system="<|start_header_id|>system<|end_header_id|>\n\n{text}<|eot_id|>",
    user="<|start_header_id|>user<|end_header_id|>\n\n{text}<|eot_id|>",
    assistant="<|start_header_id|>assistant<|end_header_id|>\n\n{text}<|eot_id|>",
    opening="<|start_header_id|>assistant<|end_header_id|>\n\n",
    stops=("<|eot_id|>", "<|end_of_text|>"),
    trims=True,
)


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """How the released ``chat`` chooses tokens when its caller says nothing more."""

    sampled: Sampling
    searched: Sampling
    released: Literal["greedy", "sampled", "searched"] = "sampled"
    """What ``chat`` does when nothing is asked for."""
    max_prompt_tokens: int = 2048
    """A longer prompt is cut at its right end."""
    drops_id_zero: bool = True
    """The released decoding leaves out every id 0, also a real "!" of the Llama 3 and Qwen vocabularies."""

    def sampling(self, decoding: Decoding) -> Sampling:
        """Return the settings of one way of choosing tokens."""
        chosen = self.released if decoding == "released" else decoding
        return {"greedy": Sampling(), "sampled": self.sampled, "searched": self.searched}[chosen]


def _defaults(
    max_tokens: int,
    max_prompt_tokens: int,
    *,
    released: Literal["sampled", "searched"] = "sampled",
    temperature: float = 0.7,
    top_p: float = 0.8,
    top_k: int = 100,
    penalty: float = 1.05,
) -> Defaults:
    # The released code watches no loops.
    return Defaults(
        sampled=Sampling(
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            repetition_penalty=penalty,
            stop_loops=False,
        ),
        searched=Sampling(max_tokens=max_tokens, num_beams=3, repetition_penalty=1.2, stop_loops=False),
        released=released,
        max_prompt_tokens=max_prompt_tokens,
    )


@dataclass(frozen=True, kw_only=True)
class Family:
    """One released version: everything about it that is not a weight."""

    name: str
    schema: Schema
    position_rule: PositionRule
    uses_image_id: bool
    template: Template
    num_queries: int = 64
    side_px: int = 448
    max_slices: int = 9
    language: LanguageKind = "llama"
    tower: Tower = "siglip"
    division: Division = "grid"
    placeholder: str = "<unk>"
    """Stands in the prompt where a visual token goes."""
    merge: int = 0
    """Side of the square of patches that becomes one visual token; 0: a resampler makes ``num_queries``."""
    attends_padding: bool = False
    """The slices of a prompt are one padded batch whose padding is read (2.5)."""
    groups_frames: bool = False
    """Frames of a video share one block of visual tokens (4.5)."""
    numbers_frames: bool = False
    """Frames of a video have image ids, too."""
    query_positions: bool = False
    """A stored table is added to the queries (1.0, 2.0)."""
    stored_keys: bool = False
    """Key positions are that stored table, enlarged (1.0)."""
    defaults: Defaults = field(default_factory=lambda: _defaults(2048, 8192))
    thinking_defaults: Defaults | None = None
    """Used when the model is asked to think first."""
    proof: Proof = "official run"

    @property
    def multiple_px(self) -> int:
        """Sides of slices are multiples of this, for patches of 14 px."""
        return 14 * max(1, self.merge)

    def num_visual(self, rows: int, columns: int, num_queries: int | None = None) -> int:
        """Return how many visual tokens a slice of this many patches becomes."""
        return rows * columns // self.merge**2 if self.merge else num_queries or self.num_queries


V20 = Family(
    name="2.0", schema="grid_wrapped", position_rule="resized", uses_image_id=False, template=MINICPM,
    language="minicpm", tower="timm", query_positions=True, defaults=_defaults(1024, 2048),
)  # fmt: skip
V25 = Family(
    name="2.5", schema="grid_wrapped", position_rule="row", uses_image_id=False, template=LLAMA3,
    num_queries=96, attends_padding=True, defaults=_defaults(1024, 2048),
)  # fmt: skip
V26 = Family(
    name="2.6", schema="slice_wrapped", position_rule="bucketised", uses_image_id=True, language="qwen2",
    template=replace(CHATML, default_system="You are a helpful assistant.", stops=QWEN_STOPS),
)  # fmt: skip
V40 = replace(
    V26, name="4.0", language="llama", template=replace(CHATML, stops=("<|im_end|>", "</s>")), proof="composition"
)
V45 = replace(
    V26, name="4.5", language="qwen3", groups_frames=True,
    template=replace(CHATML, stops=QWEN_STOPS, thought=NO_THOUGHT, thinking="<think>\n"),
    defaults=_defaults(2048, 16_384, penalty=1.03),
    thinking_defaults=_defaults(2048, 16_384, top_p=1.0, top_k=0, penalty=1.0),
)  # fmt: skip
V46 = replace(
    V26, name="4.6", language="qwen3_5", tower="native", position_rule="floor", division="grid_of_rows", merge=4,
    placeholder="<|image_pad|>", template=V45.template,
    defaults=replace(_defaults(2048, 16_384, top_p=1.0, top_k=0, penalty=1.0), drops_id_zero=False),
)  # fmt: skip

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        replace(
            V20, name="1.0", division="square", stored_keys=True, proof="facts",
            defaults=_defaults(2048, 2048, released="searched", temperature=0.6, penalty=1.0),
        ),
        V20, V25, V26, V40, V45, V46,
        replace(V46, name="4.6-4x", merge=2),
        replace(
            V40, name="nano", side_px=224, template=CHATML, numbers_frames=True,
            defaults=replace(V40.defaults, released="greedy", drops_id_zero=False),
        ),
    )
}  # fmt: skip


def family_named(name: str) -> Family:
    """Return the record of a version.

    Raises:
        ModelError: the name is unknown.
    """
    if name not in FAMILIES:
        raise ModelError(f"unknown family '{name}'{did_you_mean(name, FAMILIES)}")
    return FAMILIES[name]


def sampling_for(family: str, decoding: str = "greedy", **given: Any) -> Sampling:
    """Return how a version chooses tokens; ``given`` settings that are not None overrule its own.

    >>> sampling_for("2.0", "released").temperature, sampling_for("2.0", "released", temperature=0.3).top_p
    (0.7, 0.8)

    Raises:
        ModelError: the family is unknown.
        SettingError: the way of choosing is unknown, or a setting is impossible.
    """
    if decoding not in get_args(Decoding):
        raise SettingError(f"unknown decoding '{decoding}'{did_you_mean(decoding, get_args(Decoding))}")
    own = family_named(family).defaults.sampling(cast("Decoding", decoding))
    return replace(own, **{name: value for name, value in given.items() if value is not None})
