"""Turn a SentencePiece file into a tokenizer: 1.0 and 2.0 were released with nothing else.

Boundary: reads the bytes of one ``tokenizer.model``; needs neither the sentencepiece library nor protobuf.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tokenizers import AddedToken, decoders, models, normalizers
from tokenizers import Tokenizer as FastTokenizer

from handlens.errors import ModelError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4
"""Kinds of pieces, numbered as in the format (sentencepiece_model.proto)."""
BYTE_PAIRS = 2
"""The kind of model that merges pairs."""
SPACE = "▁"
MARKS = {
    0: "<unk>", 1: "<s>", 2: "</s>", 101: "<image>", 102: "</image>", 103: "<ref>", 104: "</ref>", 105: "<box>",
    106: "</box>", 107: "<quad>", 108: "</quad>", 109: "<point>", 110: "</point>", 111: "<slice>", 112: "</slice>",
}  # fmt: skip
"""Special tokens of 1.0 and 2.0 by id; four of them rename reserved pieces of the file."""


@dataclass(frozen=True)
class Piece:
    """One entry of the vocabulary; its place is its id."""

    text: str
    score: float
    kind: int


def read_pieces(data: bytes) -> tuple[list[Piece], bool]:
    """Return the vocabulary, and whether a space is put before every text.

    Raises:
        ModelError: the bytes are no SentencePiece file, or one of another kind than byte-pair encoding.
    """
    pieces: list[Piece] = []
    kind, adds_space = 1, True
    try:
        for number, value in _fields(data):
            if number not in (1, 2, 3) or not isinstance(value, bytes):
                continue
            inside = dict(_fields(value))
            if number == 1:
                pieces.append(_piece(inside))
            elif number == 2:
                kind = _whole(inside.get(3, 1))
            else:
                adds_space = bool(_whole(inside.get(3, 1)))
    except (IndexError, KeyError, ValueError, struct.error) as cause:
        raise ModelError(
            f"the SentencePiece file is damaged ({type(cause).__name__}: {cause}); copy it again"
        ) from None
    if kind != BYTE_PAIRS or not pieces:
        raise ModelError(
            f"the SentencePiece file has {len(pieces)} pieces and is of kind {kind}; byte-pair encoding (2) is needed"
        )
    return pieces, adds_space


def _piece(inside: dict[int, int | bytes]) -> Piece:
    text, score = inside[1], inside.get(2, b"\0\0\0\0")
    if not isinstance(text, bytes) or not isinstance(score, bytes):
        raise ValueError("a piece without text or score")
    return Piece(text.decode("utf-8"), struct.unpack("<f", score)[0], _whole(inside.get(3, NORMAL)))


def _whole(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise ValueError("bytes where a number is expected")
    return value


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and value of each field of a protobuf message."""
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = data[place]
            place += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    while place < len(data):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
            continue
        if key & 7 not in (1, 2, 5):
            raise ValueError(f"unknown wire type {key & 7}")
        length = varint() if key & 7 == 2 else {1: 8, 5: 4}[key & 7]
        if place + length > len(data):
            raise ValueError(f"a field of {length} bytes ends beyond the file")
        yield key >> 3, data[place : place + length]
        place += length


def find_merges(pieces: list[Piece]) -> list[tuple[str, str]]:
    """Return the pairs to merge, first what has the best score."""
    ids = {piece.text: place for place, piece in enumerate(pieces)}
    found: list[tuple[float, str, str]] = []
    for piece in pieces:
        if piece.kind != NORMAL or len(piece.text) < 2:
            continue
        cuts = ((piece.text[:place], piece.text[place:]) for place in range(1, len(piece.text)))
        pairs = [(left, right) for left, right in cuts if left in ids and right in ids]
        pairs.sort(key=lambda pair: (ids[pair[0]], ids[pair[1]]))
        found += [(piece.score, left, right) for left, right in pairs]
    found.sort(key=lambda merge: -merge[0])
    return [(left, right) for _, left, right in found]


def convert_sentencepiece(data: bytes, marks: Mapping[int, str] = MARKS) -> FastTokenizer:
    """Return a tokenizer with the same ids.

    ``marks`` are the special tokens by id; pieces of these ids are renamed. Other user-defined pieces, for example
    ``<td>``, are tokens of their own but ordinary text.

    Raises:
        ModelError: see ``read_pieces``.
    """
    pieces, adds_space = read_pieces(data)
    return tokenizer_of(pieces, adds_space=adds_space, marks=marks)


def tokenizer_of(pieces: list[Piece], *, adds_space: bool, marks: Mapping[int, str]) -> FastTokenizer:
    """Return the tokenizer of a vocabulary; see ``convert_sentencepiece``."""
    pieces = [Piece(marks.get(place, piece.text), piece.score, piece.kind) for place, piece in enumerate(pieces)]
    fast = FastTokenizer(
        models.BPE(
            vocab={piece.text: place for place, piece in enumerate(pieces)},
            merges=find_merges(pieces),
            unk_token=next((piece.text for piece in pieces if piece.kind == UNKNOWN), None),
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    before = [normalizers.Prepend(SPACE)] if adds_space else []
    after = [decoders.Strip(" ", 1, 0)] if adds_space else []
    fast.normalizer = normalizers.Sequence([*before, normalizers.Replace(" ", SPACE)])
    fast.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *after])
    is_special = {place: place in marks or piece.kind in (UNKNOWN, CONTROL) for place, piece in enumerate(pieces)}
    added = [
        (place, piece.text) for place, piece in enumerate(pieces) if is_special[place] or piece.kind == USER_DEFINED
    ]
    fast.add_special_tokens(
        [AddedToken(text, special=True, normalized=False) for place, text in added if is_special[place]]
    )
    fast.add_tokens([AddedToken(text, normalized=False) for place, text in added if not is_special[place]])
    return fast
