"""The loop: learning, freezing, packing, stopping and going on."""

import copy
import json
import multiprocessing
from dataclasses import replace
from itertools import islice

import pytest
import torch
import torch.nn.functional as F

from handlens.errors import TrainingError
from handlens.recipes import nano
from handlens.train.feed import batches
from handlens.train.learner import PARTS, Learner, token_loss
from handlens.train.loop import summarise, train_phase
from handlens.train.state import read_progress

PHASES = {phase.name: phase for phase in nano.recipe().phases}


def weights_of(model) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def run(model, config, phase, tokenizer, folder, **choice) -> bool:
    return train_phase(model, config, phase, tokenizer, folder, **({"seed": 1, "report": lambda row: None} | choice))


@pytest.fixture
def packed(fresh):
    """A model that reads packed rows, as the loop sets it."""
    model = fresh()
    model.llm.set_attn_implementation("segments")
    return model


@torch.no_grad()
def test_packed_loss_is_that_of_the_conversations_alone(packed, config, sft, tokenizer):
    phase = replace(sft, pictures_per_step=3, slices_per_step=40)
    batch = next(batches(phase, config, tokenizer, seed=3))
    assert len(batch.lengths) == 3
    loss, scores = token_loss(packed, batch)
    visual = packed.see(batch.slices)
    packed.llm.set_attn_implementation("sdpa")
    total, count, done = 0.0, 0, 0
    for ids, is_visual, targets in zip(
        *(row.split(batch.lengths) for row in (batch.ids, batch.is_visual, batch.targets)), strict=True
    ):
        num_slices = int(is_visual.sum()) // 16
        embeddings = packed.join(ids[None], is_visual[None], visual[done : done + num_slices])
        done += num_slices
        logits = packed.llm(inputs_embeds=embeddings).logits[0]
        total += float(F.cross_entropy(logits[:-1], targets[1:], ignore_index=-100, reduction="sum"))
        count += int((targets[1:] != -100).sum())
    assert done == len(batch.slices.patches)
    assert float(loss) == pytest.approx(total / count, abs=1e-5)
    assert sum(value for name, value in scores.items() if name.startswith("count/")) == len(batch.task_names)


def test_one_batch_is_learned_by_heart(packed, config, sft, tokenizer):
    batch = next(batches(replace(sft, pictures_per_step=1), config, tokenizer, seed=1))
    learner = Learner(packed, config, replace(sft, steps=40, warmup_steps=1, rate=4e-3, decay_share=0.1))
    scores = [learner.learn(batch, step) for step in range(25)]
    assert scores[-1]["loss"] < 0.3 * scores[0]["loss"]
    assert scores[-1]["tokens"] > 0.8


def test_streams_go_alone_and_meet_in_the_middle(fresh, config, sft, tokenizer):
    """Local SGD: one stream of two steps is two steps; two streams end at the mean of where each would end."""
    phase = replace(sft, streams=2, pictures_per_step=1, warmup_steps=0, decay_share=0.0, precision="float32")
    ways = [list(islice(batches(phase, config, tokenizer, seed=1, start=start), 4)) for start in (0, 1)]

    def walk(local_steps: int, *steps) -> Learner:
        model = fresh()
        model.llm.set_attn_implementation("segments")
        learner = Learner(model, config, replace(phase, local_steps=local_steps), tokenizer)
        for number, some in enumerate(steps):
            learner.learn(some, number)
        return learner

    ends = [walk(1, *([batch] for batch in way[:2])) for way in ways]
    # The slopes of a step are divided by the targets of all its streams; alone, a stream counts its own.
    once = walk(2, ways[0][:2])
    pairs = zip(once.weights, ends[0].weights, strict=True)
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in pairs)
    both = walk(2, [batch for pair in zip(*(way[:2] for way in ways), strict=True) for batch in pair])
    for met, one, other in zip(both.weights, ends[0].weights, ends[1].weights, strict=True):
        assert torch.allclose(met, (one + other) / 2, atol=1e-6)
        assert one.shape[0] == 1 or not torch.equal(one, other)
    memories = [[value for one in learner.place()[1] for state in one.values() for value in state.values()]
                for learner in (both, *ends)]  # fmt: skip
    for met, one, other in zip(*memories, strict=True):
        assert torch.allclose(met, (one + other) / 2, atol=1e-6)


def test_a_stream_that_fails_alone_moves_nothing(fresh, config, sft, tokenizer):
    phase = replace(sft, streams=1, pictures_per_step=1, local_steps=2, warmup_steps=0)
    good, bad = islice(batches(phase, config, tokenizer, seed=1), 2)
    model = fresh()
    model.llm.set_attn_implementation("segments")
    before = weights_of(model)
    learner = Learner(model, config, phase, tokenizer)
    blank = replace(bad.slices, patches=torch.full_like(bad.slices.patches, torch.nan))
    with pytest.raises(TrainingError, match="the loss of step 0 is nan"):
        learner.learn([good, replace(bad, slices=blank)], 0)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert all(not optimiser.state for optimiser in learner.optimisers.values())


def test_layers_computed_again_give_the_same_slopes(fresh, config, sft, tokenizer):
    batch = next(batches(sft, config, tokenizer, seed=1))
    found = []
    for recompute in (False, True):
        model = fresh()
        model.llm.set_attn_implementation("segments")
        learner = Learner(model, config, replace(sft, recompute=recompute), tokenizer)
        asked = []
        handle = model.llm.model.layers[0].mlp.register_forward_pre_hook(lambda *_, seen=asked: seen.append(1))
        loss, _ = learner.slopes([batch])
        handle.remove()
        assert len(asked) == 1 + recompute  # it really ran twice
        found.append((loss, [weight.grad for weight in learner.weights]))
    assert found[0][0] == found[1][0]
    assert len(found[0][1]) == len(found[1][1]) > 20
    assert all(torch.equal(one, other) for one, other in zip(found[0][1], found[1][1], strict=True))


def test_reading_is_learned_by_heart(packed, config, vision):
    batch = next(batches(replace(vision, mixture={"labels": 1.0}), config, None, seed=1))
    learner = Learner(packed, config, replace(vision, steps=40, warmup_steps=1, rate=4e-3, decay_share=0.1))
    scores = [learner.learn(batch, step) for step in range(25)]
    assert scores[-1]["loss"] < 0.6 * scores[0]["loss"]


@pytest.mark.parametrize("name", PHASES)
def test_frozen_parts_do_not_move_and_every_other_weight_does(packed, config, tokenizer, name):
    """Each phase of the recipe that ships, two steps on a small model."""
    phase = replace(
        PHASES[name], local_steps=1, sides_px=(112,), slices_per_step=5, pictures_per_step=2, warmup_steps=1
    )
    before = weights_of(packed)
    learner = Learner(packed, config, phase)
    for step, batch in enumerate(islice(batches(phase, config, tokenizer, seed=1), 2)):
        learner.learn(batch, step)
    for part, attribute in PARTS.items():
        own = [key for key in before if key.startswith(f"{attribute}.")]
        still = {key for key in own if torch.equal(packed.state_dict()[key], before[key])}
        if part in phase.trains:
            # Rows of a table that no patch or word of this batch uses may rest; a whole tensor may not.
            assert not still, f"{name} trains {part}"
        else:
            assert still == set(own), f"{name} must not touch {part}"


def test_stopped_and_resumed_is_bit_identical(fresh, config, sft, tokenizer, tmp_path):
    straight = fresh()
    assert run(straight, config, sft, tokenizer, tmp_path / "straight") is True
    halved, calls = fresh(), iter([False, True])
    assert run(halved, config, sft, tokenizer, tmp_path / "halved", stop=lambda: next(calls)) is False
    assert [path.name for path in (tmp_path / "halved" / "state").iterdir()] == ["step-00000002"]
    resumed = fresh()
    assert run(resumed, config, sft, tokenizer, tmp_path / "halved") is True
    assert all(torch.equal(weight, resumed.state_dict()[name]) for name, weight in straight.state_dict().items())
    assert not torch.equal(straight.resampler.query, fresh().resampler.query)
    progress = [
        json.loads((tmp_path / run_name / "state" / "step-00000004" / "progress.json").read_text())
        for run_name in ("straight", "halved")
    ]
    assert [row.pop("sessions") for row in progress] == [1, 2]
    for row in progress:
        for measured in ("seconds", "processor_seconds", "joules"):
            assert row.pop(measured) > 0
    assert progress[0] == progress[1]
    assert progress[0]["step"] == 4
    assert straight.llm.config._attn_implementation == "sdpa"


def test_the_throw_away_head_is_resumed_too(fresh, config, vision, tmp_path):
    straight, halved, resumed = fresh(), fresh(), fresh()
    run(straight, config, vision, None, tmp_path / "straight")
    stops = iter([True])
    run(halved, config, vision, None, tmp_path / "halved", stop=lambda: next(stops))
    run(resumed, config, vision, None, tmp_path / "halved")
    assert all(torch.equal(weight, resumed.state_dict()[name]) for name, weight in straight.state_dict().items())


def test_a_finished_phase_stays_finished(fresh, config, vision, tmp_path):
    model = fresh()
    run(model, config, vision, None, tmp_path)
    before = weights_of(model)
    assert run(model, config, vision, None, tmp_path) is True
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_only_what_is_said_counts_as_tokens(fresh, config, vision, sft, tokenizer, tmp_path):
    counted = []
    for phase in (vision, sft):
        phase = replace(phase, steps=1, pictures_per_step=1)
        assert run(fresh(), config, phase, tokenizer, tmp_path / phase.name)
        counted.append(read_progress(tmp_path / phase.name / "state" / "step-00000001").tokens)
    assert counted[0] == 0 and counted[1] > 16


def test_reports_are_told_and_logged(fresh, config, vision, tmp_path):
    told = []
    run(fresh(), config, vision, None, tmp_path / "new", report=told.append, window=1)
    assert [row["step"] for row in told] == [1, 2]
    assert {"phase", "step", "of", "pictures", "slices", "seconds", "loss", "norm"} <= set(told[0])
    assert [json.loads(line) for line in (tmp_path / "new" / "log.jsonl").read_text().splitlines()] == told


def test_an_absurd_rate_is_told_and_keeps_the_last_good_weights(packed, config, sft, tokenizer):
    phase = replace(sft, rate=1e25, warmup_steps=1)
    batch = next(batches(phase, config, tokenizer, seed=1))
    learner = Learner(packed, config, phase)
    with pytest.raises(TrainingError) as error:
        for step in range(4):
            before = weights_of(packed)
            learner.learn(batch, step)
    assert "\n" not in str(error.value)
    for words in (
        "phase sft: the ",
        f"records before {batch.next_index}",
        "lower sft.rate (it is 1e+25) and run again",
    ):
        assert words in str(error.value)
    assert all(torch.equal(weight, before[name]) for name, weight in packed.state_dict().items())


def test_a_gradient_that_is_not_a_number_moves_nothing(packed, config, vision):
    learner = Learner(packed, config, vision)
    batch = next(batches(vision, config, None, seed=1))
    before = weights_of(packed)
    learner.weights[-1].register_hook(lambda slope: slope * torch.nan)
    with pytest.raises(
        TrainingError, match=r"^phase vision: the gradient of step 3 is nan \(the \d+ records before \d+\); "
    ):
        learner.learn(batch, 3)
    assert all(torch.equal(weight, before[name]) for name, weight in packed.state_dict().items())


def test_a_checkpoint_that_cannot_be_written(fresh, config, vision, tmp_path):
    (tmp_path / "state").write_text("in the way")
    model = fresh()
    with pytest.raises(TrainingError, match=r"^cannot write the checkpoint of step 2 to .*; free some space and run"):
        run(model, config, vision, None, tmp_path)
    assert model.llm.config._attn_implementation == "sdpa"


def test_a_log_that_cannot_be_written(fresh, config, vision, tmp_path):
    (tmp_path / "log.jsonl").mkdir()
    with pytest.raises(TrainingError, match=r"^cannot write .*log\.jsonl: Is a directory; free some space and run"):
        run(fresh(), config, vision, None, tmp_path)


def test_a_window_of_scores_by_hand():
    window = [
        {"loss": 2.0, "exact/a": 1.0, "count/a": 2.0},
        {"loss": 4.0, "exact/a": 2.0, "count/a": 2.0, "exact/b": 0.0, "count/b": 1.0},
    ]
    # 3 of 4 answers of a, and not the mean of 1/2 and 2/2 weighted alike by accident.
    assert summarise([*window, {"loss": 6.0, "exact/a": 0.0, "count/a": 4.0}]) == {
        "loss": 4.0, "exact/a": 0.375, "exact/b": 0.0,
    }  # fmt: skip


def test_rate_follows_the_phase(packed, config, vision):
    phase = replace(vision, steps=10, warmup_steps=5, rate=1e-3)
    learner = Learner(packed, config, phase)
    batch = next(batches(phase, config, None, seed=1))
    learner.learn(batch, 2)
    rates = {group["lr"] for optimiser in learner.optimisers.values() for group in optimiser.param_groups}
    assert list(rates) == [pytest.approx(6e-4)]
    assert copy.deepcopy(learner.modules).keys() == {"model", "muon", "adamw", "head"}


def test_a_failed_phase_leaves_no_process(fresh, config, sft, tokenizer, tmp_path):
    with pytest.raises(TrainingError) as kept:  # what is raised holds every frame of the run
        run(fresh(), config, replace(sft, rate=1e25), tokenizer, tmp_path)
    assert "lower sft.rate" in str(kept.value)
    for child in multiprocessing.active_children():
        child.join(5)
    assert not multiprocessing.active_children()
