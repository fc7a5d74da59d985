"""Text to token ids and back, through the ``tokenizers`` library.

Boundary: reads one ``tokenizer.json``; knows no prompt and no picture.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64
from tokenizers import Tokenizer as FastTokenizer

from handlens.errors import ModelError, SettingError

SPECIAL_TOKENS = (
    "<unk>", "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "</image>", "<slice>", "</slice>",
    "<image_id>", "</image_id>", "<ref>", "</ref>", "<box>", "</box>", "<quad>", "</quad>",
)  # fmt: skip
"""Special tokens of nano; a token's id is its place in this tuple."""


@runtime_checkable
class AnyTokenizer(Protocol):
    """What asking a model needs of a tokenizer."""

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        ...

    def id_of(self, token: str) -> int:
        """Return the id of one token."""
        ...

    def known_ids(self, tokens: Collection[str]) -> set[int]:
        """Return the ids of those tokens that the vocabulary has."""
        ...

    def encode(self, text: str) -> Int64[np.ndarray, "tokens"]:
        """Return ids."""
        ...

    def encode_with_starts(self, text: str) -> tuple[Int64[np.ndarray, "tokens"], Int64[np.ndarray, "tokens"]]:
        """Return ids and where in the text each begins."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Return text without special tokens."""
        ...

    def is_special(self, token_id: int) -> bool:
        """True for marks that never belong to an answer."""
        ...


def _byte_characters() -> dict[str, int]:
    """Return the characters in which byte-level vocabularies write bytes: printable ones mean themselves.

    Source: the byte table of the GPT-2 tokenizer; the other bytes take the code points from 256 on, in order.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTE_OF = _byte_characters()


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

    @classmethod
    def from_folder(cls, folder: Path) -> "Tokenizer":
        """Read the tokenizer of a model folder: ``tokenizer.json``, or ``tokenizer.model`` of 1.0 and 2.0.

        Raises:
            ModelError: there is none, or it is damaged.
        """
        file, sentencepiece = Path(folder) / "tokenizer.json", Path(folder) / "tokenizer.model"
        if file.is_file():
            return cls.from_file(file)
        if not sentencepiece.is_file():
            raise ModelError(f"no tokenizer.json in {folder}; copy it from the release that the model belongs to")
        from handlens.core.sentencepiece import convert_sentencepiece

        return cls(convert_sentencepiece(sentencepiece.read_bytes()))

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

    def known_ids(self, tokens: Collection[str]) -> set[int]:
        """Return the ids of those tokens that the vocabulary has."""
        return {found for token in tokens if (found := self.fast.token_to_id(token)) is not None}

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

    def bytes_of(self, token_id: int) -> bytes:
        """Return the bytes that a token stands for; none for a special token.

        Raises:
            SettingError: the vocabulary is not of the byte-level kind.
        """
        if self.is_special(token_id):
            return b""
        token = self.fast.id_to_token(token_id)
        try:
            return bytes(_BYTE_OF[character] for character in token or "")
        except KeyError:
            raise SettingError(
                f"token {token_id} ({token!r}) is no byte string; a byte-level BPE vocabulary is needed here"
            ) from None

    def is_special(self, token_id: int) -> bool:
        """True for marks such as ``<image>`` that never belong to an answer."""
        return token_id in self._specials


class CharacterTokenizer:
    r"""One id per character, and per special token: the toy tokenizer that recorded references describe.

    >>> toy = CharacterTokenizer({"<unk>": 0, "\n": 5})
    >>> toy.encode("<unk>\nA").tolist(), toy.decode([193, 5, 194])
    ([0, 5, 193], 'A\nB')
    """

    def __init__(self, special_ids: Mapping[str, int], *, first: int = 128, count: int = 256) -> None:
        self._special_ids = dict(special_ids)
        self._first, self._count = first, count
        self._names = {token_id: name for name, token_id in reversed(self._special_ids.items())}
        names = sorted(self._special_ids, key=len, reverse=True)
        self._pieces = re.compile("|".join([*map(re.escape, names), "."]), re.DOTALL)

    @classmethod
    def from_reference(cls, described: Mapping[str, Any]) -> "CharacterTokenizer":
        """Read the field ``toy_tokenizer`` of a recorded reference; its <bos> and <eos> answer to all real names.

        Raises:
            ModelError: the description is of another kind.
        """
        try:
            ids = {str(name): int(token_id) for name, token_id in described["special_ids"].items()}
            first, count = re.fullmatch(r"(\d+) \+ \(codepoint % (\d+)\)", described["other_characters"]).groups()  # type: ignore[union-attr]
        except (KeyError, TypeError, ValueError, AttributeError) as cause:
            raise ModelError(
                f"toy_tokenizer is not understood ({type(cause).__name__}: {cause}); it needs special_ids and "
                "other_characters such as '128 + (codepoint % 256)'"
            ) from None
        for toy, real in (
            ("<bos>", ("<|begin_of_text|>", "<s>")),
            ("<eos>", ("<|end_of_text|>", "<|endoftext|>", "</s>")),
        ):
            ids |= {name: ids[toy] for name in real if toy in ids and name not in ids}
        return cls(ids, first=int(first), count=int(count))

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return max(self._first + self._count, *(token_id + 1 for token_id in self._names))

    def id_of(self, token: str) -> int:
        """Return the id of one special token.

        Raises:
            ModelError: there is none of this name.
        """
        if token not in self._special_ids:
            raise ModelError(f"the tokenizer lacks the token {token!r}; this tokenizer belongs to another model")
        return self._special_ids[token]

    def known_ids(self, tokens: Collection[str]) -> set[int]:
        """Return the ids of those special tokens that exist."""
        return {self._special_ids[token] for token in tokens if token in self._special_ids}

    def encode(self, text: str) -> Int64[np.ndarray, "tokens"]:
        """Return ids; special tokens written in the text become their single ids."""
        return self.encode_with_starts(text)[0]

    def encode_with_starts(self, text: str) -> tuple[Int64[np.ndarray, "tokens"], Int64[np.ndarray, "tokens"]]:
        """Return ids and the place in the text where each token starts, counted in characters."""
        found = list(self._pieces.finditer(text))
        ids = [
            self._special_ids.get(piece.group(), self._first + ord(piece.group()[0]) % self._count) for piece in found
        ]
        return np.asarray(ids, dtype=np.int64), np.asarray([piece.start() for piece in found], dtype=np.int64)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the characters; other ids than those of characters and newlines say nothing."""
        text = ""
        for token_id in map(int, ids):
            name = self._names.get(token_id, "")
            if self.is_special(token_id) or not name:
                inside = self._first <= token_id < self._first + self._count and not name
                text += chr(token_id - self._first) if inside else ""
            else:
                text += name
        return text

    def is_special(self, token_id: int) -> bool:
        """True for marks such as ``<image>`` that never belong to an answer."""
        return len(self._names.get(token_id, "")) > 1


class TextStream:
    """Turns ids that arrive one by one into text that never splits a character.

    Only ids since the last whole character are decoded, behind those just before them: some vocabularies write a
    word otherwise where nothing stands before it.
    """

    def __init__(self, tokenizer: AnyTokenizer) -> None:
        self._tokenizer = tokenizer
        self._before: list[int] = []
        self._new: list[int] = []
        self._sent = ""
        """Text of ``_before``."""

    def push(self, token_id: int) -> str:
        """Return the new text; empty while a multi-byte character is incomplete."""
        self._new.append(token_id)
        text = self._tokenizer.decode([*self._before, *self._new])
        said = text[len(self._sent) :]
        if not said or text.endswith("\ufffd"):
            return ""
        self._before, self._new = self._new, []
        self._sent = self._tokenizer.decode(self._before)
        return said
