"""From record to batch: what the model sees, what it is to say, and that a run resumes by one number."""

import random
from dataclasses import fields, replace
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image

from handlens.core.chat import Shown, Turn, ask, reply
from handlens.core.patches import normalise, to_patches
from handlens.core.prompt import build_prompt
from handlens.core.slicing import cut
from handlens.data.generate import generate
from handlens.families import family_named
from handlens.train.feed import (
    IGNORED,
    Batch,
    batches,
    build_sample,
    choose_turns,
    collate,
    normalise_bytes,
    picture_text,
)

SCENE = generate("scenes", 3, 4, level=0.3)


@pytest.fixture
def sample(sft, config, tokenizer):
    return build_sample(SCENE, sft, config, tokenizer, 112, random.Random(5))


def chosen(phase):
    """The turns that ``sample`` asks, in its order."""
    return choose_turns(SCENE, phase, random.Random(5))


def test_targets_are_the_answers_with_their_end(sample, sft, tokenizer):
    turns = chosen(sft)
    assert len(turns) > 1
    assert sample.task_names == tuple(turn.task for turn in turns)
    for number, turn in enumerate(turns):
        ids = sample.targets[sample.tasks == number]
        assert ids[-1] == tokenizer.id_of("<|im_end|>")
        assert tokenizer.decode(ids[:-1].tolist()) == turn.answer
    is_target = sample.targets != IGNORED
    assert np.array_equal(is_target, sample.tasks >= 0)
    assert np.array_equal(sample.targets[is_target], sample.ids[is_target])


def test_the_conversation_is_the_one_that_the_device_builds(sample, sft, config, tokenizer):
    """The ids before each answer are those of ``build_prompt`` for the same talk."""
    turns = chosen(sft)
    chat = ask(turns[0].question)
    for number, turn in enumerate(turns):
        prompt = build_prompt(chat, list(sample.plans), family_named("nano"), tokenizer, 16)
        begin = int((sample.tasks == number).argmax())
        assert np.array_equal(sample.ids[:begin], prompt.ids)
        assert np.array_equal(sample.is_visual[:begin], prompt.is_visual)
        chat = reply(chat, turn.answer, turns[number + 1].question) if number + 1 < len(turns) else chat


def test_visual_places_are_slices_times_queries(sample, tokenizer):
    assert sample.plans[0].num_slices > 1
    assert sample.is_visual.sum() == 16 * sample.plans[0].num_slices
    assert set(sample.ids[sample.is_visual].tolist()) == {tokenizer.id_of("<unk>")}
    assert [len(patches) for patches in sample.patches] == [rows * columns for rows, columns in sample.plans[0].patches]


def test_without_slicing_a_picture_is_one_slice(sft, config, tokenizer):
    sample = build_sample(SCENE, replace(sft, slicing=False), config, tokenizer, 112, random.Random(5))
    assert sample.plans[0].num_slices == 1
    assert sample.is_visual.sum() == 16


def test_captions_only(sft, config, tokenizer):
    phase = replace(sft, captions_only=True)
    scenes = [generate("scenes", 3, index, level=0.0) for index in range(12)]
    told = [scene for scene in scenes if any(turn.task == "scenes.describe" for turn in scene.turns)]
    assert told
    for scene in told:
        assert build_sample(scene, phase, config, tokenizer, 112, random.Random(5)).task_names == ("scenes.describe",)


def test_the_blind_phase_reads_words_in_place_of_the_picture(language, config, tokenizer):
    sample = build_sample(SCENE, language, config, tokenizer, 112, random.Random(5))
    assert sample.patches == []
    assert not sample.is_visual.any()
    assert picture_text(SCENE) in tokenizer.decode(sample.ids.tolist())


def test_printed_rows_are_read_from_left_to_right():
    table = generate("tables", 3, 1, level=0.0)
    rows = picture_text(table).split("\n")
    assert table.table is not None
    for cells in table.table:
        assert " ".join(cell for cell in cells if cell) in rows


def test_bytes_become_the_numbers_of_the_device():
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = Image.fromarray(np.stack([grey] * 3, axis=-1)).crop((0, 0, 14, 14))
    (ours,) = normalise_bytes(to_patches(np.asarray(image).transpose(2, 0, 1))[None])
    assert np.array_equal(ours, to_patches(normalise(image)))


def test_pixels_of_a_batch_are_those_of_the_device(sample, config):
    batch = collate([sample], config, 1)
    views = cut(SCENE.picture, sample.plans[0])
    assert len(views) == len(batch.slices.patches)
    for number, view in enumerate(views):
        expected = torch.from_numpy(to_patches(normalise(view)))
        assert torch.equal(batch.slices.patches[number, : len(expected)], expected)


def test_slices_of_other_shapes_are_padded_and_marked(sft, config, tokenizer):
    phase = replace(sft, slicing=False)
    label = next(
        one
        for index in range(9)
        if (one := generate("labels", 3, index, level=0.0)).picture.width > 1.3 * one.picture.height
    )
    samples = [build_sample(one, phase, config, tokenizer, 112, random.Random(1)) for one in (SCENE, label)]
    counts = [len(one.patches[0]) for one in samples]
    assert counts[0] != counts[1]
    batch = collate(samples, config, 2)
    assert batch.slices.is_real.sum(1).tolist() == counts
    assert batch.lengths == tuple(len(one.ids) for one in samples)
    assert batch.positions.tolist() == [place for length in batch.lengths for place in range(length)]
    assert batch.tasks.max() == len(batch.task_names) - 1
    # A lone shape needs no mask.
    assert collate(samples[:1], config, 1).slices.is_real is None


def equal(one: Batch, other: Batch) -> bool:
    """True when two batches hold the same numbers."""

    def flat(batch: Batch) -> list:
        parts = [getattr(batch, field.name) for field in fields(Batch)]
        slices = batch.slices
        return parts[1:] + (
            [slices.patches, slices.position_ids, slices.key_positions, slices.is_real] if slices else []
        )

    return all(
        torch.equal(mine, yours) if isinstance(mine, torch.Tensor) else mine == yours
        for mine, yours in zip(flat(one), flat(other), strict=True)
    )


@pytest.mark.parametrize("name", ["sft", "vision", "language"])
def test_going_on_from_a_number_gives_the_same_batches(request, name, config, tokenizer):
    phase = request.getfixturevalue(name)
    straight = list(islice(batches(phase, config, tokenizer, seed=1), 3))
    resumed = list(islice(batches(phase, config, tokenizer, seed=1, start=straight[0].next_index), 2))
    assert all(equal(one, other) for one, other in zip(straight[1:], resumed, strict=True))
    assert not equal(straight[0], straight[1])
    indices = [batch.next_index for batch in straight]
    assert indices == list(np.cumsum([len(batch.lengths) for batch in straight]))


def test_seed_and_split_decide_what_is_drawn(sft, config, tokenizer):
    def first(**choice) -> Batch:
        return next(batches(sft, config, tokenizer, **({"seed": 1} | choice)))

    assert equal(first(), first())
    for other in ({"seed": 2}, {"split": "validation"}, {"split": "heldout"}):
        assert not equal(first(), first(**other))


def test_a_batch_keeps_its_limits(sft, config, tokenizer):
    phase = replace(sft, slices_per_step=7, pictures_per_step=3)
    for batch in islice(batches(phase, config, tokenizer, seed=4), 6):
        assert 1 <= len(batch.lengths) <= 3
        assert len(batch.slices.patches) <= 7 or len(batch.lengths) == 1


def test_the_user_turn_begins_with_the_picture(sample, sft, tokenizer):
    question = chosen(sft)[0].question
    chat = (Turn("user", (Shown(0), question)),)
    prompt = build_prompt(chat, list(sample.plans), family_named("nano"), tokenizer, 16)
    text = tokenizer.fast.decode(prompt.ids.tolist(), skip_special_tokens=False)
    assert text.startswith("<|im_start|>user\n<image_id>0</image_id><image><unk>")
    assert text.endswith(f"{question}<|im_end|>\n<|im_start|>assistant\n")
