"""Options that say how an answer is chosen, and the settings that follow from them for a family.

Boundary: click; numbers of a family stand in ``families.py``. A setting that is given overrules the way of choosing.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from handlens.answerer import Token
    from handlens.core.sampling import Sampling

Command = TypeVar("Command", bound=Callable[..., Any])
SHOWN = ("max_tokens", "temperature", "top_k", "top_p", "repetition_penalty", "num_beams", "seed", "stop_loops")
"""Settings that a report names."""


def decoding_options(command: Command) -> Command:
    """Add the options; their values arrive as keywords for ``Decoded.of``."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


OPTIONS = (
    click.option(
        "--decoding",
        default="greedy",
        show_default=True,
        type=click.Choice(["greedy", "released", "sampled", "searched"]),
        help="greedy is repeatable; released is what the makers' chat does; the others are its two ways.",
    ),
    click.option("--max-tokens", type=int, help="Longest answer.  [default: 256, or as released]"),
    click.option("--temperature", type=float, help="0 is greedy, higher is wilder.  [default: 0]"),
    click.option("--top-k", type=int, help="Sample from so many tokens; 0 is all.  [default: 0]"),
    click.option("--top-p", type=float, help="Sample from this share of probability.  [default: 1]"),
    click.option("--repetition-penalty", type=float, help="Above 1 repeats less.  [default: 1]"),
    click.option("--beams", "num_beams", type=int, help="Answers searched side by side.  [default: 1]"),
    click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same answer."),
    click.option("--drop-id-zero/--keep-id-zero", "drops_id_zero", default=None,
                 help="Leave out every token of id 0, as released decoding does.  [default: with released]"),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """How the tokens of an answer are chosen and made text."""

    name: str
    """The way that was asked for."""
    sampling: "Sampling"
    drops_id_zero: bool
    """Id 0 says nothing, also where it is "!"."""

    @classmethod
    def of(cls, family: str, *, decoding: str, drops_id_zero: bool | None, **given: Any) -> "Decoded":
        """Return what the options mean for a family.

        Raises:
            SettingError: a setting is impossible.
        """
        from handlens.families import family_named, sampling_for

        is_released = decoding != "greedy"
        drops = is_released and family_named(family).defaults.drops_id_zero if drops_id_zero is None else drops_id_zero
        return cls(name=decoding, sampling=sampling_for(family, decoding, **given), drops_id_zero=drops)

    def text_of(self, token: "Token") -> str:
        """Return what a token adds to the answer."""
        return "" if self.drops_id_zero and token.id == 0 else token.text

    def whole(self, tokens: "list[Token]") -> str:
        """Return the answer; released decoding strips white space around it."""
        text = "".join(map(self.text_of, tokens))
        return text if self.name == "greedy" else text.strip()

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        settings = asdict(self.sampling)
        return {"name": self.name} | {name: settings[name] for name in SHOWN} | {"drops_id_zero": self.drops_id_zero}
