"""How much a language half must hold."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Room:
    """What a language half is opened for.

    >>> Room(prompt=200, answer=50, beams=3).cells
    350
    """

    prompt: int
    """Tokens of the prompt, visual tokens included."""
    answer: int
    """Tokens of the longest answer."""
    beams: int = 1
    """Answers that are followed side by side; they share the prompt."""

    @property
    def positions(self) -> int:
        """Length of the longest sequence."""
        return self.prompt + self.answer

    @property
    def cells(self) -> int:
        """Keys and values that are kept."""
        return self.prompt + self.beams * self.answer

    def holds(self, other: "Room") -> bool:
        """True when a half opened for this can be used for ``other``."""
        return self.prompt >= other.prompt and self.answer >= other.answer and self.beams >= other.beams

    def grown(self, other: "Room") -> "Room":
        """Return the smallest room that holds both.

        >>> Room(prompt=200, answer=50).grown(Room(prompt=90, answer=60))
        Room(prompt=200, answer=60, beams=1)
        """
        return Room(
            prompt=max(self.prompt, other.prompt),
            answer=max(self.answer, other.answer),
            beams=max(self.beams, other.beams),
        )
