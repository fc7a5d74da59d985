"""The vocabulary: what is one token, what is never one, and that no text is lost."""

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as FastTokenizer

from handlens.core.tokenizer import SPECIAL_TOKENS, Tokenizer
from handlens.train.vocabulary import train_vocabulary

TEXTS = ["the total is 2024.50 and 2024 again", "2024-05-06 the  total", "größer als über 1,90 €"] * 4
FAST = train_vocabulary(TEXTS, 330)
TOKENIZER = Tokenizer(FAST)


def test_special_tokens_come_first_and_are_single_ids():
    for token_id, token in enumerate(SPECIAL_TOKENS):
        assert TOKENIZER.id_of(token) == token_id
        assert TOKENIZER.encode(token).tolist() == [token_id]
        assert TOKENIZER.encode(f"a{token}b").tolist().count(token_id) == 1
        assert TOKENIZER.is_special(token_id)
    assert not TOKENIZER.is_special(len(SPECIAL_TOKENS))


def test_a_token_is_never_more_than_a_character():
    assert [TOKENIZER.decode([token_id]) for token_id in TOKENIZER.encode("größer 1,90 €").tolist()] == list(
        "größer 1,90 €"
    )
    for token, token_id in FAST.get_vocab().items():
        assert token in SPECIAL_TOKENS or len(TOKENIZER.decode([token_id])) == 1, token


@given(st.integers(0, 10**12))
def test_a_number_is_read_digit_by_digit(number):
    ids = TOKENIZER.encode(str(number)).tolist()
    assert [TOKENIZER.decode([token_id]) for token_id in ids] == list(str(number))


@given(st.text(max_size=60))
def test_no_text_is_lost(text):
    assert TOKENIZER.decode(TOKENIZER.encode(text).tolist()) == text


@given(st.text(alphabet=" \t\n\r'sĂéß0123.,😀", max_size=40))
def test_no_space_or_mark_is_lost(text):
    assert TOKENIZER.decode(TOKENIZER.encode(text).tolist()) == text


def test_size_is_a_limit_and_the_result_repeats():
    assert TOKENIZER.vocab_size <= 330
    assert train_vocabulary(TEXTS, 330).to_str() == FAST.to_str()


def test_the_file_reads_back_as_it_was():
    again = Tokenizer(FastTokenizer.from_str(FAST.to_str()))
    for text in TEXTS:
        assert again.encode(text).tolist() == TOKENIZER.encode(text).tolist()
