"""Scores of single answers and intervals of their means; no model, no framework."""

import math


def edit_distance(one: str, two: str) -> int:
    """Return the fewest insertions, deletions and substitutions that turn one text into the other.

    >>> edit_distance("kitten", "sitting")
    3
    """
    row = list(range(len(two) + 1))
    for i, left in enumerate(one, 1):
        diagonal, row[0] = row[0], i
        for j, right in enumerate(two, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (left != right))
    return row[-1]


def character_error_rate(pairs: list[tuple[str, str]]) -> float:
    """Return edits per true character over (truth, answer) pairs, so long texts weigh more.

    >>> character_error_rate([("abcd", "abxd"), ("ab", "ab")])
    0.16666666666666666
    """
    return sum(edit_distance(truth, answer) for truth, answer in pairs) / max(sum(len(truth) for truth, _ in pairs), 1)


def wilson(hits: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson score interval, E. B. Wilson 1927).

    >>> [round(bound, 3) for bound in wilson(8, 10)]
    [0.49, 0.943]
    """
    if count == 0:
        return 0.0, 1.0
    share = hits / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return max(0.0, centre - half), min(1.0, centre + half)
