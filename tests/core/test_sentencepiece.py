"""A SentencePiece file written by hand, byte by byte, and the tokenizer that it becomes."""

import struct

import pytest

from handlens.core.sentencepiece import BYTE_PAIRS, find_merges, read_pieces
from handlens.core.tokenizer import Tokenizer
from handlens.errors import ModelError


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def piece(text: str, score: float, kind: int = 1) -> bytes:
    inside = field(1, text.encode()) + varint(2 << 3 | 5) + struct.pack("<f", score)
    return field(1, inside + (b"" if kind == 1 else varint(3 << 3) + varint(kind)))


def written(*, kind: int = BYTE_PAIRS, adds_space: bool = False) -> bytes:
    pieces = [piece("<unk>", 0, 2), piece("<s>", 0, 3), piece("</s>", 0, 3), piece("<td>", 0, 4), piece("\n", 0, 4)]
    pieces += [piece(f"<0x{byte:02X}>", 0, 6) for byte in range(256)]
    # Merges in the order of their scores: "ab", "▁ab", "abc"; "bc" is worse than "ab".
    words = [("ab", -1.0), ("▁ab", -2.0), ("abc", -3.0), ("bc", -4.0)]
    words += [(letter, -10.0 - number) for number, letter in enumerate("▁abc")]
    pieces += [piece(text, score) for text, score in words]
    return b"".join(pieces) + field(2, varint(3 << 3) + varint(kind)) + field(3, varint(3 << 3) + varint(adds_space))


FIRST = 5 + 256
"""Id of "ab"."""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(written())
    return tmp_path


def test_pieces_and_merges():
    pieces, adds_space = read_pieces(written())
    assert not adds_space
    assert (pieces[FIRST].text, pieces[FIRST].score, pieces[FIRST].kind) == ("ab", -1.0, 1)
    assert find_merges(pieces) == [("a", "b"), ("▁", "ab"), ("ab", "c"), ("a", "bc"), ("b", "c")]
    assert read_pieces(written(adds_space=True))[1]


def test_text_becomes_the_ids_of_the_file(folder):
    tokenizer = Tokenizer.from_folder(folder)
    a, b, c = FIRST + 5, FIRST + 6, FIRST + 7
    assert tokenizer.encode("abc ab").tolist() == [FIRST + 2, FIRST + 1]
    assert tokenizer.encode("cba").tolist() == [c, b, a]
    assert tokenizer.encode("<s>ab\n<td>é").tolist() == [1, FIRST, 4, 3, 5 + 0xC3, 5 + 0xA9]
    assert tokenizer.decode([1, FIRST, 4, 3, 5 + 0xC3, 5 + 0xA9, 2]) == "ab\n<td>é"
    assert tokenizer.is_special(1)
    assert not tokenizer.is_special(3), "a table cell belongs to an answer"


def test_a_space_is_put_before_text_where_the_file_says_so(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(written(adds_space=True))
    tokenizer = Tokenizer.from_folder(tmp_path)
    assert tokenizer.encode("ab").tolist() == [FIRST + 1]
    assert tokenizer.decode([FIRST + 1]) == "ab"


def test_damaged_files_are_refused(folder):
    file = folder / "tokenizer.model"
    whole = file.read_bytes()
    for data in (whole[:-3], whole[:40], b"\xff\xff", b""):
        file.write_bytes(data)
        with pytest.raises(ModelError, match="the SentencePiece file"):
            Tokenizer.from_folder(folder)
    file.write_bytes(written(kind=1))
    with pytest.raises(ModelError, match=r"has 269 pieces and is of kind 1; byte-pair encoding \(2\) is needed"):
        Tokenizer.from_folder(folder)
    file.unlink()
    with pytest.raises(ModelError, match="no tokenizer"):
        Tokenizer.from_folder(folder)
