"""How sure a choice was."""

import numpy as np
from jaxtyping import Float32


def margins_of(logits: Float32[np.ndarray, "rows vocab"]) -> list[float]:
    """Return the likeliest minus the second likeliest logit of every row.

    >>> margins_of(np.array([[1.0, 4.0, 3.5], [2.0, 0.0, 2.0]], dtype=np.float32))
    [0.5, 0.0]
    """
    top = np.partition(logits, -2, axis=-1)[:, -2:]
    return [float(gap) for gap in top[:, 1] - top[:, 0]]
