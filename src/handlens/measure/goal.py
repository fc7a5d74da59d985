"""A goal in plain words: what must hold, and what is then preferred.

Boundary: text in, numbers out; ``tune.py`` searches for it.
"""

import re
from dataclasses import dataclass

from handlens.errors import SettingError

EXAMPLES = '"first word under 5 s", "under 3 GB", "at least 10 tokens/s", "best quality", "fastest"'
UNITS = {"kb": 1e3, "mb": 1e6, "gb": 1e9, "mib": 2**20, "gib": 2**30}


@dataclass(frozen=True, kw_only=True)
class Goal:
    """Limits, and whether quality or speed decides among what keeps them."""

    text: str = "fastest"
    first_word_seconds: float = float("inf")
    peak_bytes: float = float("inf")
    tokens_per_second: float = 0.0
    prefers_quality: bool = False

    @property
    def has_limits(self) -> bool:
        """True when something must hold."""
        return self != Goal(text=self.text, prefers_quality=self.prefers_quality)


def parse_goal(text: str) -> Goal:
    """Return the goal that a sentence states; parts are joined by ``and`` or commas.

    With limits alone, the best quality within them is preferred, then speed.

    Raises:
        SettingError: a part is not understood.

    >>> parse_goal("first word under 5 s and under 3 GB").peak_bytes
    3000000000.0
    """
    fields: dict[str, float | bool | str] = {"text": text.strip() or "fastest"}
    wants_speed = False
    for part in filter(None, (part.strip() for part in re.split(r",|;|\band\b", text.lower()))):
        if found := re.search(r"first (?:word|token).*?([\d.]+)\s*(ms|s\b|sec)", part):
            fields["first_word_seconds"] = _number(found[1], text) * (1e-3 if found[2] == "ms" else 1)
        elif found := re.search(r"([\d.]+)\s*(?:tok\w*)\s*(?:/|per)\s*s", part):
            fields["tokens_per_second"] = _number(found[1], text)
        elif found := re.search(r"([\d.]+)\s*(kb|mb|gb|mib|gib)\b", part):
            fields["peak_bytes"] = _number(found[1], text) * UNITS[found[2]]
        elif "quality" in part:
            fields["prefers_quality"] = True
        elif re.search(r"fast|speed|quick", part):
            wants_speed = True
        else:
            raise SettingError(f"the goal '{part}' is not understood; say for example {EXAMPLES}")
    goal = Goal(**fields)  # type: ignore[arg-type]
    if goal.has_limits and not wants_speed:
        return Goal(**{**fields, "prefers_quality": True})  # type: ignore[arg-type]
    return goal


def _number(digits: str, text: str) -> float:
    try:
        value = float(digits)
    except ValueError:
        value = 0.0
    if value <= 0:
        raise SettingError(f"the goal '{text}' has a limit that is not above zero; say for example {EXAMPLES}")
    return value
