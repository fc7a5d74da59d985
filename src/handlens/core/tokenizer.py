"""Text to token ids and back, through the ``tokenizers`` library.

Boundary: reads one ``tokenizer.json``; knows no prompt and no picture.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int64
from tokenizers import Tokenizer as FastTokenizer

from handlens.errors import ModelError

SPECIAL_TOKENS = (
    "<unk>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "</image>", "<slice>", "</slice>",
    "<image_id>", "</image_id>", "<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>",
)  # fmt: skip
"""Special tokens of nano; a token's id is its place in this tuple."""


class Tokenizer:
    """A byte-level BPE whose special tokens are single ids."""

    def __init__(self, fast: FastTokenizer) -> None:
        self.fast = fast
        self._specials = {token_id for token_id, added in fast.get_added_tokens_decoder().items() if added.special}

    @classmethod
    def from_file(cls, path: Path) -> "Tokenizer":
        """Read a ``tokenizer.json``.

        Raises:
            ModelError: the file is missing or damaged.
        """
        try:
            return cls(FastTokenizer.from_file(str(path)))
        except Exception as cause:  # the library raises plain Exception
            raise ModelError(f"cannot read the tokenizer {path}: {cause}") from None

    @property
    def vocab_size(self) -> int:
        """Number of ids, special tokens included."""
        return self.fast.get_vocab_size()

    def id_of(self, token: str) -> int:
        """Return the id of one token.

        Raises:
            ModelError: the vocabulary lacks it.
        """
        token_id = self.fast.token_to_id(token)
        if token_id is None:
            raise ModelError(f"the tokenizer lacks the token {token!r}; this tokenizer belongs to another model")
        return token_id

    def encode(self, text: str) -> Int64[np.ndarray, "tokens"]:
        """Return ids; special tokens written in the text become their single ids."""
        return np.asarray(self.fast.encode(text, add_special_tokens=False).ids, dtype=np.int64)

    def encode_with_starts(self, text: str) -> tuple[Int64[np.ndarray, "tokens"], Int64[np.ndarray, "tokens"]]:
        """Return ids and the place in the text where each token starts, counted in characters."""
        encoded = self.fast.encode(text, add_special_tokens=False)
        starts = [begin for begin, _ in encoded.offsets]
        return np.asarray(encoded.ids, dtype=np.int64), np.asarray(starts, dtype=np.int64)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text without special tokens; broken UTF-8 becomes U+FFFD."""
        return self.fast.decode([int(token_id) for token_id in ids], skip_special_tokens=True)

    def is_special(self, token_id: int) -> bool:
        """True for marks such as ``<image>`` that never belong to an answer."""
        return token_id in self._specials


class TextStream:
    """Turns ids that arrive one by one into text that never splits a character."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._sent = ""

    def push(self, token_id: int) -> str:
        """Return the new text; empty while a multi-byte character is incomplete."""
        self._ids.append(token_id)
        text = self._tokenizer.decode(self._ids)
        if text.endswith("\ufffd"):
            return ""
        new, self._sent = text[len(self._sent) :], text
        return new
