"""Build the prompt: chat template, spatial schema, and the places where visual tokens stand.

Boundary: slice plans and text in, token ids and a mask out; no pixels, no model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int64

from handlens.core.chat import Chat, Shown, check
from handlens.core.slicing import SlicePlan
from handlens.core.tokenizer import Tokenizer
from handlens.families import Family

PLACEHOLDER = "<unk>"


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """Token ids with the places that visual tokens take."""

    ids: Int64[np.ndarray, "tokens"]
    is_visual: Bool[np.ndarray, "tokens"]
    """True where a visual token replaces the placeholder, in the order the slices are encoded."""

    @property
    def num_visual(self) -> int:
        """Visual tokens in the prompt."""
        return int(self.is_visual.sum())


def picture_markup(plan: SlicePlan, family: Family, index: int, num_queries: int | None = None) -> str:
    """Return the spatial schema of one picture: overview first, then rows of slices joined by newlines.

    Source: arXiv 2408.01800, section 3.2, in the two forms of the released code.
    """
    visual = PLACEHOLDER * (num_queries or family.num_queries)
    overview = f"<image>{visual}</image>"
    if family.uses_image_id:
        overview = f"<image_id>{index}</image_id>{overview}"
    if plan.grid is None:
        return overview
    cell = f"<image>{visual}</image>" if family.schema == "grid_wrapped" else f"<slice>{visual}</slice>"
    rows = "\n".join([cell * plan.grid.columns] * plan.grid.rows)
    return overview + (f"<slice>{rows}</slice>" if family.schema == "grid_wrapped" else rows)


def render(chat: Chat, plans: Sequence[SlicePlan], family: Family, num_queries: int | None = None) -> str:
    """Return the whole prompt as text, ending where the answer begins.

    Parts of a turn are joined by newlines, as the released ``chat`` does.
    """
    return _render(chat, plans, family, num_queries)[0]


def build_prompt(
    chat: Chat, plans: Sequence[SlicePlan], family: Family, tokenizer: Tokenizer, num_queries: int | None = None
) -> Prompt:
    """Return token ids and the mask of visual places for a conversation.

    Placeholders and marks typed by a user are text: only the places of the pictures themselves count.
    """
    text, pictures = _render(chat, plans, family, num_queries)
    ids, starts = tokenizer.encode_with_starts(text)
    in_picture = np.zeros(len(ids), dtype=bool)
    for begin, end in pictures:
        in_picture |= (starts >= begin) & (starts < end)
    return Prompt(ids=ids, is_visual=in_picture & (ids == tokenizer.id_of(PLACEHOLDER)))


def _render(
    chat: Chat, plans: Sequence[SlicePlan], family: Family, num_queries: int | None
) -> tuple[str, list[tuple[int, int]]]:
    """Return the text of the prompt and where in it (from, to) each picture stands."""
    check(chat, len(plans))
    template = family.template
    prompt, pictures = template.begin, []
    if template.default_system is not None and chat[0].role != "system":
        prompt += template.system.format(text=template.default_system)
    for turn in chat:
        text, inside = "", []
        for place, part in enumerate(turn.content):
            text += "\n" if place else ""
            if isinstance(part, Shown):
                markup = picture_markup(plans[part.index], family, part.index, num_queries)
                inside.append((len(text), len(text) + len(markup)))
            text += markup if isinstance(part, Shown) else part
        num_trimmed = len(text) - len(text.lstrip()) if template.trims else 0
        form = {"system": template.system, "user": template.user, "assistant": template.assistant}[turn.role]
        shift = len(prompt) + form.index("{text}") - num_trimmed
        pictures += [(begin + shift, end + shift) for begin, end in inside]
        prompt += form.replace("{text}", text.strip() if template.trims else text)
    return prompt + template.opening, pictures
