"""The state of a sequence in llama.cpp's own form, written from keys and values that another engine computed.

Boundary: arrays in, bytes out. The form belongs to the pinned version of the library; a test compares it with what the
library itself writes.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from handlens.engine.llama import GGML_TYPES

MAGIC = 0xAF143CD8
STORED = {"F16": np.float16, "F32": np.float32}
"""Types of keys and values that can be written."""

Rows = Sequence[Float[np.ndarray, "tokens columns"]]


def write_state(keys: Rows, values: Rows, *, kind: str, transposed: bool) -> bytes:
    """Return the state of sequence 0 at positions 0 to ``tokens``, layer by layer.

    Args:
        keys: of every layer, rotated, in the order of channels of the GGUF weights.
        values: of every layer.
        kind: one of ``STORED``, the type of the cache.
        transposed: whether the cache holds values by channel, as it does without flash attention.
    """
    count, stored = len(keys[0]), STORED[kind]
    cells = [number for position in range(count) for number in (position, 1, 0)]  # position, sequences, its name
    parts = [_numbers(MAGIC, 0, 1, count, *cells, int(transposed), len(keys), 0, 0)]
    for rows in keys:
        parts += [_row_head(rows, kind), np.ascontiguousarray(rows, dtype=stored).tobytes()]
    for rows in values:
        if transposed:
            parts.append(_numbers(GGML_TYPES[kind], np.dtype(stored).itemsize, rows.shape[1]))
            rows = rows.T
        else:
            parts.append(_row_head(rows, kind))
        parts.append(np.ascontiguousarray(rows, dtype=stored).tobytes())
    return b"".join(parts)


def _row_head(rows: np.ndarray, kind: str) -> bytes:
    """Return type and bytes of a row, which is a number of 64 bits."""
    return _numbers(GGML_TYPES[kind], rows.shape[1] * np.dtype(STORED[kind]).itemsize, 0)


def _numbers(*values: int) -> bytes:
    return np.array(values, dtype="<u4").tobytes()
