"""The embedding rows of text tokens, read from the GGUF file itself.

Boundary: token ids in, rows out. With them a prompt is one array of embeddings, text and visual tokens alike, and
llama.cpp reads it in full batches instead of one small batch per slice.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from handlens.engine import llama
from handlens.engine.gguf_header import Header
from handlens.errors import ModelError

TABLE = "token_embd.weight"


class TextRows:
    """Reads rows of the embedding table; the file is mapped, so only the pages of these rows are touched."""

    def __init__(self, file: Path, header: Header) -> None:
        if TABLE not in header.tensors:
            raise ModelError(f"{file} has no tensor '{TABLE}'; it is no language half; export the bundle again")
        fact = header.tensors[TABLE]
        self._kind, (rows, self.width) = fact.kind, fact.shape
        shape = (rows, fact.num_bytes // rows)
        self._table = np.memmap(file, dtype=np.uint8, mode="r", offset=fact.offset, shape=shape)

    def __getitem__(self, ids: Int64[np.ndarray, "tokens"]) -> Float32[np.ndarray, "tokens dim"]:
        """Return the embeddings of token ids."""
        kinds, places = np.unique(ids, return_inverse=True)
        return llama.dequantise_rows(self._table[kinds], self._kind, self.width)[places]
