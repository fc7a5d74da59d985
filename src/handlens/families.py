"""The released versions as records: what differs between them is data, never a branch.

Boundary: names and numbers only; ``core/prompt.py`` and ``model/`` read them.
"""

from dataclasses import dataclass
from typing import Literal

from handlens.core.patches import PositionRule
from handlens.errors import ModelError, did_you_mean

Schema = Literal["grid_wrapped", "slice_wrapped"]
"""``grid_wrapped``: one <slice> around all cells (2.0, 2.5). ``slice_wrapped``: one per cell (2.6 and later)."""


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


CHATML = Template(
    system="<|im_start|>system\n{text}<|im_end|>\n",
    user="<|im_start|>user\n{text}<|im_end|>\n",
    assistant="<|im_start|>assistant\n{text}<|im_end|>\n",
    opening="<|im_start|>assistant\n",
    stops=("<|im_end|>",),
)


@dataclass(frozen=True, kw_only=True)
class Family:
    """One released version: everything about it that is not a weight."""

    name: str
    schema: Schema
    num_queries: int
    side_px: int
    max_slices: int
    position_rule: PositionRule
    uses_image_id: bool
    template: Template


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            name="2.0",
            schema="grid_wrapped",
            num_queries=64,
            side_px=448,
            max_slices=9,
            position_rule="floor",
            uses_image_id=False,
            template=Template(
                user="<用户>{text}", assistant="<AI>{text}", opening="<AI>", begin="<s>", stops=("</s>",), trims=True
            ),
        ),
        Family(
            name="2.5",
            schema="grid_wrapped",
            num_queries=96,
            side_px=448,
            max_slices=9,
            position_rule="bucketised",
            uses_image_id=False,
            template=Template(
                begin="<|begin_of_text|>",
                system="<|start_header_id|>system<|end_header_id|>\n\n{text}<|eot_id|>",
                user="<|start_header_id|>user<|end_header_id|>\n\n{text}<|eot_id|>",
                assistant="<|start_header_id|>assistant<|end_header_id|>\n\n{text}<|eot_id|>",
                opening="<|start_header_id|>assistant<|end_header_id|>\n\n",
                stops=("<|eot_id|>", "<|end_of_text|>"),
                trims=True,
            ),
        ),
        Family(
            name="2.6",
            schema="slice_wrapped",
            num_queries=64,
            side_px=448,
            max_slices=9,
            position_rule="bucketised",
            uses_image_id=True,
            template=Template(
                system=CHATML.system,
                user=CHATML.user,
                assistant=CHATML.assistant,
                opening=CHATML.opening,
                default_system="You are a helpful assistant.",
                stops=("<|im_end|>", "<|endoftext|>"),
            ),
        ),
        Family(
            name="4.0",
            schema="slice_wrapped",
            num_queries=64,
            side_px=448,
            max_slices=9,
            position_rule="bucketised",
            uses_image_id=True,
            template=CHATML,
        ),
        Family(
            name="nano",
            schema="slice_wrapped",
            num_queries=64,
            side_px=224,
            max_slices=9,
            position_rule="bucketised",
            uses_image_id=True,
            template=CHATML,
        ),
    )
}


def family_named(name: str) -> Family:
    """Return the record of a version.

    Raises:
        ModelError: the name is unknown.
    """
    if name not in FAMILIES:
        raise ModelError(f"unknown family '{name}'{did_you_mean(name, FAMILIES)}")
    return FAMILIES[name]
