"""Build the prompt: chat template, spatial schema, and the places where visual tokens stand.

Boundary: slice plans and text in, token ids and a mask out; no pixels, no model.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int64

from handlens.core.chat import Chat, Shown, Turn, check
from handlens.core.slicing import SlicePlan
from handlens.errors import SettingError
from handlens.families import Family

PLACEHOLDER = "<unk>"
"""Where a visual token goes, in all families but 4.6."""
MARKS = re.compile(re.escape("(<image>./</image>)") + "|" + re.escape("<|image_pad|>"))
"""What stands for a picture in a text of the released ``chat``: one form up to 4.5, the other in 4.6."""


@runtime_checkable
class Encoder(Protocol):
    """What a prompt needs of a tokenizer."""

    def encode_with_starts(self, text: str) -> tuple[Int64[np.ndarray, "tokens"], Int64[np.ndarray, "tokens"]]:
        """Return ids and where in the text each begins."""
        ...

    def id_of(self, token: str) -> int:
        """Return the id of one token."""
        ...

    def known_ids(self, tokens: Collection[str]) -> set[int]:
        """Return the ids of those tokens that the vocabulary has."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Return text without special tokens."""
        ...


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


def picture_markup(
    plan: SlicePlan, family: Family, index: int, num_queries: int | None = None, *, use_image_id: bool | None = None
) -> str:
    """Return the spatial schema of one picture: overview first, then rows of slices joined by newlines.

    ``use_image_id`` overrules the family; the released code leaves the id out for frames of a video.

    Source: arXiv 2408.01800, section 3.2, in the two forms of the released code.
    """
    visual = [family.placeholder * family.num_visual(*patches, num_queries) for patches in plan.patches]
    overview = f"<image>{visual[0]}</image>"
    if family.uses_image_id if use_image_id is None else use_image_id:
        overview = f"<image_id>{index}</image_id>{overview}"
    if plan.grid is None:
        return overview
    wrapped = family.schema == "grid_wrapped"
    cell = f"<image>{visual[1]}</image>" if wrapped else f"<slice>{visual[1]}</slice>"
    rows = "\n".join([cell * plan.grid.columns] * plan.grid.rows)
    return overview + (f"<slice>{rows}</slice>" if wrapped else rows)


def markups(
    plans: Sequence[SlicePlan],
    family: Family,
    num_queries: int | None = None,
    *,
    groups: Sequence[int] | None = None,
    use_image_id: bool | None = None,
) -> list[str | None]:
    """Return what each picture becomes in the prompt.

    ``groups`` counts the frames that share one block of visual tokens (4.5); only the first of them has a place.
    """
    starts = range(len(plans)) if groups is None else [sum(groups[:place]) for place in range(len(groups))]
    found: list[str | None] = [None] * len(plans)
    for index, start in enumerate(starts):
        found[start] = picture_markup(plans[start], family, index, num_queries, use_image_id=use_image_id)
    return found


def expand(text: str, pictures: Sequence[str | None]) -> tuple[str, list[tuple[int, int]]]:
    """Put the markup of pictures in the place of their marks; return the text and where in it each stands.

    The mark is that of the released ``chat``. A frame without a place of its own (None) takes its newline along.

    Raises:
        SettingError: the text has more or fewer marks than there are pictures.
    """
    pieces = MARKS.split(text)
    if len(pieces) != len(pictures) + 1:
        raise SettingError(
            f"the text has {len(pieces) - 1} picture marks but {len(pictures)} pictures were given; "
            "write (<image>./</image>) once per picture"
        )
    whole, places = pieces[0], []
    for markup, piece in zip(pictures, pieces[1:], strict=True):
        if markup is None:
            whole = whole.removesuffix("\n") + piece
            continue
        places.append((len(whole), len(whole) + len(markup)))
        whole += markup + piece
    return whole, places


def encode_prompt(text: str, pictures: Sequence[tuple[int, int]], family: Family, tokenizer: Encoder) -> Prompt:
    """Return token ids and the mask of visual places of an expanded text.

    Placeholders and marks typed by a user are text: only the places of the pictures themselves count.
    """
    ids, starts = tokenizer.encode_with_starts(text)
    in_picture = np.zeros(len(ids), dtype=bool)
    for begin, end in pictures:
        in_picture |= (starts >= begin) & (starts < end)
    if not pictures:
        return Prompt(ids=ids, is_visual=in_picture)
    return Prompt(ids=ids, is_visual=in_picture & (ids == tokenizer.id_of(family.placeholder)))


def render(chat: Chat, plans: Sequence[SlicePlan], family: Family, num_queries: int | None = None) -> str:
    """Return the whole prompt as text, ending where the answer begins.

    Parts of a turn are joined by newlines, as the released ``chat`` does.
    """
    return render_turns(chat, markups(plans, family, num_queries), family)[0]


def build_prompt(
    chat: Chat,
    plans: Sequence[SlicePlan],
    family: Family,
    tokenizer: Encoder,
    num_queries: int | None = None,
    *,
    use_image_id: bool | None = None,
) -> Prompt:
    """Return token ids and the mask of visual places for a conversation."""
    text, pictures = render_turns(chat, markups(plans, family, num_queries, use_image_id=use_image_id), family)
    return encode_prompt(text, pictures, family, tokenizer)


def render_turns(
    chat: Chat, pictures: Sequence[str | None], family: Family, *, thinking: bool = False
) -> tuple[str, list[tuple[int, int]]]:
    """Return the text of the prompt and where in it (from, to) each picture stands.

    ``thinking`` lets models that can (4.5, 4.6) think before they answer; else their thought is written as empty.
    """
    check(chat, len(pictures))
    template = family.template
    prompt, places = template.begin, []
    if template.default_system is not None and chat[0].role != "system":
        prompt += template.system.format(text=template.default_system)
    for turn in chat:
        text, inside = _join_parts(turn, pictures)
        num_trimmed = len(text) - len(text.lstrip()) if template.trims else 0
        form = {"system": template.system, "user": template.user, "assistant": template.assistant}[turn.role]
        shift = len(prompt) + form.index("{text}") - num_trimmed
        places += [(begin + shift, end + shift) for begin, end in inside]
        prompt += form.replace("{text}", text.strip() if template.trims else text)
    return prompt + template.opening + (template.thinking if thinking else template.thought), places


def _join_parts(turn: Turn, pictures: Sequence[str | None]) -> tuple[str, list[tuple[int, int]]]:
    """Return the text of a turn and where in it each picture stands."""
    text, inside, is_first = "", [], True
    for part in turn.content:
        piece = pictures[part.index] if isinstance(part, Shown) else part
        if piece is None:
            continue
        text += "" if is_first else "\n"
        is_first = False
        if isinstance(part, Shown):
            inside.append((len(text), len(text) + len(piece)))
        text += piece
    return text, inside


def read_answer(ids: Sequence[int], family: Family, tokenizer: Encoder, *, drops_id_zero: bool | None = None) -> str:
    """Return the text of generated ids: what follows the first stop is left out, white space around it stripped.

    ``drops_id_zero`` overrules the family; True leaves out id 0 as the released decoding does, also where it is "!".
    """
    drops = family.defaults.drops_id_zero if drops_id_zero is None else drops_id_zero
    stops = tokenizer.known_ids(family.template.stops)
    begin = tokenizer.known_ids((family.template.begin,)) if family.template.begin else set()
    kept: list[int] = []
    for place, token in enumerate(int(token) for token in ids):
        if token in stops:
            break
        if not (drops and token == 0) and not (place == 0 and token in begin):
            kept.append(token)
    return tokenizer.decode(kept).strip()
