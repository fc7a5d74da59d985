"""A sample exactly as training sees it: token ids, visual places, and which tokens are to be learned.

Boundary: numpy and ``core``; sizes of pictures are enough, no pixel is decoded.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64

from handlens.core.chat import Chat, Shown
from handlens.core.prompt import build_prompt, picture_markup
from handlens.core.slicing import Size, SlicePlan, plan_slices
from handlens.core.tokenizer import Tokenizer
from handlens.data.samples import said
from handlens.errors import DataError
from handlens.families import Family, family_named


@dataclass(frozen=True, kw_only=True)
class Target:
    """The model for which samples are rendered."""

    family: Family
    tokenizer: Tokenizer
    num_queries: int

    def plan(self, size: Size) -> SlicePlan:
        """Return how a picture of (width, height) px is divided."""
        return plan_slices(*size, side_px=self.family.side_px, max_slices=self.family.max_slices)


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """One conversation as the language model reads it."""

    ids: Int64[np.ndarray, "tokens"]
    is_visual: Bool[np.ndarray, "tokens"]
    is_target: Bool[np.ndarray, "tokens"]
    """True where the loss is taken: answers and the mark that ends each."""
    num_slices: int
    num_patches: int


def open_target(model: str | Path = "nano", family: str | None = None) -> Target:
    """Return the target of a model folder, or of the shipped nano.

    ``family`` takes slicing, schema and template of another version; the tokenizer stays.

    Raises:
        ModelError: an unknown family, or a folder without a tokenizer.
    """
    from handlens import PACKAGED

    rules = family_named(family or "nano")
    folder = PACKAGED.get(str(model), Path(model))
    return Target(family=rules, tokenizer=Tokenizer.from_file(folder / "tokenizer.json"), num_queries=rules.num_queries)


def render(chat: Chat, sizes: Sequence[Size], target: Target) -> Rendered:
    """Return the tokens of a whole conversation; ``sizes`` are the pictures' (width, height) in px.

    Raises:
        DataError: the conversation has no answer, does not alternate, or does not show the pictures in order.
    """
    check_roles(chat)
    shown = [part.index for turn in chat for part in turn.content if isinstance(part, Shown)]
    if shown != list(range(len(sizes))):
        raise DataError(f"the conversation shows pictures {shown}; needed are 0 to {len(sizes) - 1}, each once")
    plans = [target.plan(size) for size in sizes]
    template, tokenizer = target.family.template, target.tokenizer
    head, tail = template.assistant.split("{text}")
    assert head == template.opening, "the answer begins where the prompt ends"
    stop = template.stops[0]
    first = next(place for place, turn in enumerate(chat) if turn.role == "assistant")
    opening = chat[:first]
    num_first = sum(isinstance(part, Shown) for turn in opening for part in turn.content)
    prompt = build_prompt(opening, plans[:num_first], target.family, tokenizer, target.num_queries)
    ids, visual, targets = [prompt.ids], [prompt.is_visual], [np.zeros(len(prompt.ids), dtype=bool)]
    for place in range(first, len(chat), 2):
        answer = tokenizer.encode(said(chat[place]) + stop)
        bridge, in_picture = tail.removeprefix(stop), np.zeros(0, dtype=bool)
        spans: list[tuple[int, int]] = []
        if place + 1 < len(chat):
            before, after = template.user.split("{text}")
            bridge += before
            for number, part in enumerate(chat[place + 1].content):
                bridge += "\n" if number else ""
                if isinstance(part, Shown):
                    markup = picture_markup(plans[part.index], target.family, part.index, target.num_queries)
                    spans.append((len(bridge), len(bridge) + len(markup)))
                    bridge += markup
                else:
                    bridge += part
            bridge += after + template.opening
        bridge_ids, starts = tokenizer.encode_with_starts(bridge)
        in_picture = np.zeros(len(bridge_ids), dtype=bool)
        for begin, end in spans:
            in_picture |= (starts >= begin) & (starts < end)
        ids += [answer, bridge_ids]
        visual += [
            np.zeros(len(answer), dtype=bool),
            in_picture & (bridge_ids == tokenizer.id_of(target.family.placeholder)),
        ]
        targets += [np.ones(len(answer), dtype=bool), np.zeros(len(bridge_ids), dtype=bool)]
    return Rendered(
        ids=np.concatenate(ids), is_visual=np.concatenate(visual), is_target=np.concatenate(targets),
        num_slices=sum(plan.num_slices for plan in plans),
        num_patches=sum(rows * columns for plan in plans for rows, columns in plan.patches),
    )  # fmt: skip


def check_roles(chat: Chat) -> None:
    """Raise ``DataError`` unless user and assistant alternate, after at most one system turn, to a last answer."""
    roles = [turn.role for turn in chat]
    talk = roles[1:] if roles[:1] == ["system"] else roles
    if not talk or talk != ["user", "assistant"] * (len(talk) // 2):
        raise DataError(
            f"the turns are {' '.join(roles[:6]) or 'none'}; needed are user and assistant in turn, an answer last"
        )


def show_mask(rendered: Rendered, tokenizer: Tokenizer) -> str:
    """Return the text with what is learned between guillemets; runs of visual places are counted.

    Tokens are decoded run by run, special marks included.
    """
    parts: list[str] = []
    kinds = np.where(rendered.is_visual, 2, np.where(rendered.is_target, 1, 0))
    borders = [0, *(np.flatnonzero(np.diff(kinds)) + 1).tolist(), len(kinds)]
    for begin, end in itertools.pairwise(borders):
        if kinds[begin] == 2:
            parts.append(f"[{end - begin} visual tokens]")
            continue
        text = tokenizer.fast.decode(rendered.ids[begin:end].tolist(), skip_special_tokens=False)
        parts.append(f"«{text}»" if kinds[begin] else text)
    return "".join(parts)
