"""Text of an answer that arrives token by token is the text of the whole."""

import numpy as np
import pytest

import handlens
from handlens.core.loops import LONGEST_UNIT, MIN_REPEATS, MIN_TOKENS, LoopGuard
from handlens.core.tokenizer import TextStream, Tokenizer


@pytest.fixture(scope="module")
def nano() -> Tokenizer:
    return Tokenizer.from_file(handlens.PACKAGED["nano"] / "tokenizer.json")


@pytest.mark.parametrize("text", ["größer 2,30 €", "漢字 and emoji 🙂\n\n", "  spaces  ", "a\ufffdb"])
def test_the_pieces_are_the_whole_and_split_no_character(nano: Tokenizer, text: str) -> None:
    stream = TextStream(nano)
    pieces = [stream.push(int(token)) for token in nano.encode(text)]
    assert "".join(pieces) == text
    assert all("\ufffd" not in piece for piece in pieces) or "\ufffd" in text


def test_any_ids_give_the_text_that_decoding_all_of_them_gives(nano: Tokenizer) -> None:
    draw = np.random.default_rng(0)
    for _ in range(20):
        ids = draw.integers(0, nano.vocab_size, 60).tolist()
        stream = TextStream(nano)
        said = "".join(map(stream.push, ids))
        whole = nano.decode(ids)
        assert whole.startswith(said) and set(whole[len(said) :]) <= {"\ufffd"}


def test_the_guard_counts_as_its_rule_says() -> None:
    """Against the rule written out, over answers longer than what the guard holds."""
    draw = np.random.default_rng(1)
    for unit in (1, 3, 16, LONGEST_UNIT):
        ids = [*draw.integers(0, 50, 700).tolist(), *draw.integers(0, 50, unit).tolist() * (MIN_TOKENS // unit + 7)]
        guard = LoopGuard()
        found = next(place for place, token in enumerate(ids, 1) if guard.push(token))

        def is_loop(end: int, ids: list[int] = ids) -> bool:
            for length in range(1, LONGEST_UNIT + 1):
                covered = max(MIN_TOKENS, MIN_REPEATS * length)
                last = ids[end - covered : end]
                if covered <= end and all(last[place] == last[place - length] for place in range(length, covered)):
                    return True
            return False

        assert is_loop(found) and not any(is_loop(end) for end in range(found - 140, found))
