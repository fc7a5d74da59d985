"""A sample is rendered exactly as training and the device build it."""

import random

import numpy as np
import pytest

from handlens.core.chat import Shown, Turn
from handlens.core.prompt import build_prompt
from handlens.data.generate import generate
from handlens.data.render import open_target, render, show_mask
from handlens.data.samples import talk
from handlens.errors import DataError


def test_rendering_is_that_of_training(target) -> None:
    from handlens.config import HandlensConfig
    from handlens.train.feed import IGNORED, build_sample
    from handlens.train.phases import Phase

    phase = Phase(
        name="sft", trains=("language",), objective="answers", sides_px=(224,), slicing=True, mixture={"labels": 1.0},
        steps=1, rate=1e-3, slices_per_step=4, pictures_per_step=1, turns_per_picture=99,
    )  # fmt: skip
    for index in range(4):
        record = generate("labels", 7, index)
        sample = build_sample(record, phase, HandlensConfig(), target.tokenizer, 224, random.Random(3))
        turns = list(record.turns)
        random.Random(3).shuffle(turns)  # as choose_turns draws them
        rendered = render(talk([(t.question, t.answer) for t in turns]), [record.picture.size], target)
        assert np.array_equal(rendered.ids, sample.ids)
        assert np.array_equal(rendered.is_visual, sample.is_visual)
        assert np.array_equal(rendered.is_target, sample.targets != IGNORED)


@pytest.mark.parametrize("family", ["nano", "2.5", "2.6"])
def test_each_answer_follows_the_prompt_that_the_device_reads(family: str) -> None:
    target = open_target("nano", family)
    sizes = [(900, 700), (60, 50)]
    chat = (
        Turn("user", (Shown(0), "What is it?")), Turn("assistant", ("A plate.",)),
        Turn("user", ("And this?", Shown(1))), Turn("assistant", ("A cup.",)),
    )  # fmt: skip
    rendered = render(chat, sizes, target)
    plans = [target.plan(size) for size in sizes]
    decode = target.tokenizer.fast.decode
    for end in (1, 3):
        prompt = build_prompt(chat[:end], plans[: end // 2 + 1], target.family, target.tokenizer, target.num_queries)
        given = decode(prompt.ids.tolist(), skip_special_tokens=False)
        whole = decode(rendered.ids.tolist(), skip_special_tokens=False)
        assert whole.startswith(given)
        assert whole[len(given) :].startswith(("A plate.", "A cup.")[end // 2] + target.family.template.stops[0])
    assert rendered.is_visual.sum() == rendered.num_slices * target.num_queries
    assert not (rendered.is_visual & rendered.is_target).any()
    learned = decode(rendered.ids[rendered.is_target].tolist(), skip_special_tokens=False)
    assert learned == "A plate.{0}A cup.{0}".format(target.family.template.stops[0])


def test_the_mask_can_be_seen(target) -> None:
    shown = show_mask(render(talk([("What?", "red")]), [(56, 56)], target), target.tokenizer)
    assert shown == (
        "<|im_start|>user\n<image_id>0</image_id><image>[64 visual tokens]</image>\nWhat?<|im_end|>\n"
        "<|im_start|>assistant\n«red<|im_end|>»\n"
    )


@pytest.mark.parametrize(("chat", "message"), [((), "the turns are none"), (talk([("Q", "A")])[:1], "are user;")])
def test_a_talk_without_an_answer_is_refused(target, chat, message: str) -> None:
    with pytest.raises(DataError, match=message):
        render(chat, [(56, 56)], target)
