"""The spatial schema and the templates, letter by letter, and the places of visual tokens."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as FastTokenizer

from handlens.core.chat import Shown, Turn, ask, reply
from handlens.core.prompt import build_prompt, expand, markups, picture_markup, read_answer, render, render_turns
from handlens.core.slicing import plan_slices
from handlens.core.tokenizer import SPECIAL_TOKENS, CharacterTokenizer, Tokenizer
from handlens.errors import SettingError
from handlens.families import FAMILIES, family_named

WHOLE = plan_slices(448, 448)
TWO_BY_TWO = plan_slices(800, 600)
FOUR_BY_TWO = plan_slices(1920, 1080)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Bytes and special tokens only: every letter is one id."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: place + len(SPECIAL_TOKENS) for place, letter in enumerate(letters)}
    vocab |= {token: place for place, token in enumerate(SPECIAL_TOKENS)}
    fast = FastTokenizer(models.BPE(vocab=vocab, merges=[]))
    fast.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\n"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    fast.decoder = decoders.ByteLevel()
    fast.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return Tokenizer(fast)


def test_picture_of_one_slice():
    assert picture_markup(WHOLE, family_named("2.5"), 0, 2) == "<image><unk><unk></image>"
    assert picture_markup(WHOLE, family_named("2.6"), 3, 2) == "<image_id>3</image_id><image><unk><unk></image>"


def test_grid_wrapped_schema():
    cell = "<image><unk></image>"
    assert picture_markup(TWO_BY_TWO, family_named("2.0"), 0, 1) == f"{cell}<slice>{cell * 2}\n{cell * 2}</slice>"


def test_slice_wrapped_schema():
    cell = "<slice><unk></slice>"
    assert picture_markup(FOUR_BY_TWO, family_named("4.0"), 1, 1) == (
        f"<image_id>1</image_id><image><unk></image>{cell * 4}\n{cell * 4}"
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_every_slice_gets_as_many_places_as_queries(name):
    family = family_named(name)
    for plan in (WHOLE, TWO_BY_TWO, FOUR_BY_TWO):
        expected = sum(family.num_visual(*patches) for patches in plan.patches)
        assert picture_markup(plan, family, 0).count(family.placeholder) == expected
        if not family.merge:
            assert expected == plan.num_slices * family.num_queries


# One question about one picture of one slice, with one place; U stands for the picture.
TEMPLATES = {
    "2.0": "<s><用户>U\nWhat is it?<AI>",
    "2.5": (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nU\nWhat is it?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "2.6": (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nU\nWhat is it?<|im_end|>\n<|im_start|>assistant\n"
    ),
    "1.0": "<s><用户>U\nWhat is it?<AI>",
    "4.0": "<|im_start|>user\nU\nWhat is it?<|im_end|>\n<|im_start|>assistant\n",
    "4.5": "<|im_start|>user\nU\nWhat is it?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    "4.6": "<|im_start|>user\nU\nWhat is it?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    "4.6-4x": "<|im_start|>user\nU\nWhat is it?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    "nano": "<|im_start|>user\nU\nWhat is it?<|im_end|>\n<|im_start|>assistant\n",
}


@pytest.mark.parametrize("name", FAMILIES)
def test_one_question(name):
    family = family_named(name)
    expected = TEMPLATES[name].replace("U", picture_markup(WHOLE, family, 0, 1))
    assert render(ask("What is it?"), [WHOLE], family, 1) == expected


def test_a_model_that_thinks_opens_its_thought():
    family = family_named("4.5")
    pictures = markups([WHOLE], family, 1)
    assert render_turns(ask("Why?"), pictures, family, thinking=True)[0].endswith("<|im_start|>assistant\n<think>\n")
    assert render_turns(ask("Why?"), pictures, family)[0].endswith("<think>\n\n</think>\n\n")
    plain = family_named("2.6")
    assert render_turns(ask("Why?"), pictures, plain, thinking=True)[0].endswith("<|im_start|>assistant\n")


def test_slices_of_4_6_differ_in_their_number_of_places():
    plan = plan_slices(1920, 1080, multiple_px=56, prefer_rows=True)
    family = family_named("4.6")
    overview, cell = (rows * columns // 16 for rows, columns in (plan.patches[0], plan.patches[1]))
    assert overview != cell
    markup = picture_markup(plan, family, 0)
    assert markup.startswith(f"<image_id>0</image_id><image>{'<|image_pad|>' * overview}</image><slice>")
    assert markup.count("<|image_pad|>") == overview + 8 * cell
    assert picture_markup(plan, family_named("4.6-4x"), 0).count("<|image_pad|>") == 4 * (overview + 8 * cell)


def test_frames_of_a_group_share_one_place():
    family = family_named("4.5")
    pictures = markups([WHOLE] * 4, family, 1, groups=(3, 1), use_image_id=False)
    block = "<image><unk></image>"
    assert pictures == [block, None, None, block]
    text, places = expand("a\n" + "(<image>./</image>)\n" * 4 + "b", pictures)
    assert text == f"a\n{block}\n{block}\nb"
    assert [text[begin:end] for begin, end in places] == [block, block]
    chat = (Turn("user", (*(Shown(index) for index in range(4)), "What happens?")),)
    assert f"user\n{block}\n{block}\nWhat happens?" in render_turns(chat, pictures, family)[0]


def test_picture_marks_and_pictures_are_counted():
    with pytest.raises(SettingError, match=r"the text has 1 picture marks but 2 pictures were given"):
        expand("(<image>./</image>)", ["a", "b"])
    assert expand("<|image_pad|> (<image>./</image>)", ["a", "b"]) == ("a b", [(0, 1), (2, 3)])


# ---- what generated ids say ------------------------------------------------------------------------------------------

TOY = CharacterTokenizer.from_reference(
    {
        "special_ids": {"!": 0, "<bos>": 1, "<eos>": 2, "\n": 5, "<|im_end|>": 8, "<|eot_id|>": 9},
        "other_characters": "128 + (codepoint % 256)",
    }
)


def said(text: str) -> list[int]:
    return TOY.encode(text).tolist()


def test_an_answer_ends_at_its_stop_and_loses_white_space():
    assert read_answer([*said("  yes \n"), 8, *said("no")], family_named("2.6"), TOY) == "yes"
    assert read_answer([1, *said("yes"), 9], family_named("2.5"), TOY) == "yes"
    assert read_answer(said("yes"), family_named("2.5"), TOY) == "yes"


def test_id_zero_is_dropped_where_the_release_drops_it():
    ids = said("no! yes!")
    assert 0 in ids
    assert read_answer(ids, family_named("2.6"), TOY) == "no yes"
    assert read_answer(ids, family_named("2.6"), TOY, drops_id_zero=False) == "no! yes!"
    assert read_answer(ids, family_named("4.6"), TOY) == "no! yes!"


def test_a_conversation_with_a_system_turn():
    chat = (Turn("system", ("Be brief.",)), *reply(ask("What is it?"), "A cat.", "Sure?"))
    assert render(chat, [WHOLE], family_named("2.6"), 1) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\n<image_id>0</image_id><image><unk></image>\nWhat is it?<|im_end|>\n"
        "<|im_start|>assistant\nA cat.<|im_end|>\n"
        "<|im_start|>user\nSure?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_text_with_braces_stays_as_it_is():
    assert "{text} {0}" in render(ask("{text} {0}", 0), [], family_named("nano"))


def test_golden_ids_of_the_markup(tokenizer):
    # Two queries, two slices side by side; ids are places in SPECIAL_TOKENS, checked against its order by hand.
    plan = plan_slices(640, 480)
    prompt = build_prompt(ask("a"), [plan], family_named("nano"), tokenizer, 2)
    specials = [SPECIAL_TOKENS[token] for token in prompt.ids if token < len(SPECIAL_TOKENS)]
    assert "".join(specials) == (
        "<|im_start|><image_id></image_id><image><unk><unk></image>"
        "<slice><unk><unk></slice><slice><unk><unk></slice><|im_end|><|im_start|>"
    )
    assert prompt.num_visual == 6


@given(question=st.text(max_size=30), num_pictures=st.integers(0, 3), queries=st.integers(1, 5))
def test_the_mask_counts_only_places_of_pictures(tokenizer, question, num_pictures, queries):
    plans = [WHOLE, TWO_BY_TWO, FOUR_BY_TWO][:num_pictures]
    prompt = build_prompt(ask(question, num_pictures), plans, family_named("nano"), tokenizer, queries)
    assert prompt.num_visual == queries * sum(plan.num_slices for plan in plans)
    assert np.all(prompt.ids[prompt.is_visual] == tokenizer.id_of("<unk>"))


def test_a_placeholder_that_a_user_typed_is_text(tokenizer):
    chat = (Turn("user", ("<unk> and", Shown(0), "is <unk><unk> here?")),)
    prompt = build_prompt(chat, [WHOLE], family_named("nano"), tokenizer, 4)
    assert prompt.num_visual == 4
    assert int((prompt.ids == tokenizer.id_of("<unk>")).sum()) == 7


def test_markup_that_a_user_typed_is_no_picture(tokenizer):
    prompt = build_prompt(ask("what does <image><unk></image> mean?"), [WHOLE], family_named("nano"), tokenizer, 4)
    assert prompt.num_visual == 4
