"""The loop: learning, freezing, packing, stopping and going on."""

import contextlib
import copy
import json
import multiprocessing
from dataclasses import replace
from itertools import islice

import pytest
import torch
import torch.nn.functional as F

from handlens.errors import TrainingError
from handlens.families import family_named
from handlens.model.vlm import build_model
from handlens.recipes import nano
from handlens.train import loop
from handlens.train.distributed import ALONE, layers_of
from handlens.train.feed import batches
from handlens.train.learner import PARTS, Learner, token_loss
from handlens.train.loop import HeldOut, summarise, train_phase
from handlens.train.pause import OutOfTime, Pause
from handlens.train.source import draw_generated
from handlens.train.state import read_progress
from handlens.train.warmstart import place_codes

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
    learner = Learner(packed, config, phase, tokenizer)
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
        for measured in ("seconds", "device_seconds", "processor_seconds", "joules"):
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


@pytest.mark.parametrize("trains", [("vision",), ("resampler",), ("vision", "language")])
def test_a_batch_without_pictures_gives_every_weight_that_learns_a_slope(packed, config, sft, tokenizer, trains):
    words = next(batches(replace(sft, objective="text"), config, tokenizer, seed=3))
    assert words.slices is None
    learner = Learner(packed, config, replace(sft, trains=trains), tokenizer)
    learner.learn(words, 0)
    assert all(weight.grad is not None for weight in learner.weights)


@pytest.mark.parametrize("family", ["1.0", "2.0", "2.5", "2.6", "4.0", "4.5"])
@pytest.mark.parametrize("recompute", [False, True])
def test_every_family_learns_with_and_without_pictures(config, sft, tokenizer, family, recompute):
    language = replace(config.language, kind=family_named(family).language)
    if language.kind == "minicpm":
        language = replace(language, scale_emb=12.0, scale_depth=1.4, dim_model_base=64)
    other = replace(config, family=family, language=language)
    torch.manual_seed(1)
    model = build_model(other)
    model.llm.set_attn_implementation("segments")
    phase = replace(sft, recompute=recompute, warmup_steps=1)
    learner = Learner(model, other, phase, tokenizer)
    before = weights_of(model)
    shown = next(batches(phase, other, tokenizer, seed=3))
    told = next(batches(replace(phase, objective="text"), other, tokenizer, seed=3))
    for step, batch in enumerate((shown, told)):
        learner.learn(batch, step)
    rest = {name for name, weight in model.state_dict().items() if torch.equal(weight, before[name])}
    # The towers of 1.0 and 2.0 learn their places; the places of the resampler are computed.
    assert rest <= {"resampler.pos_embed"}
    assert len(layers_of(model.vpm)) == other.vision.num_layers


class LateFor(Pause):
    """The alarm rings when something that must be whole is done for the ``number``-th time."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.left = number

    @contextlib.contextmanager
    def hold(self):
        with super().hold():
            yield
            self.left -= 1
            self._is_late = self.left == 0


def test_a_look_that_was_cut_is_made_up_for(fresh, config, sft, tokenizer, tmp_path):
    """Whenever the step or the look is the last thing there is time for, the run ends with the same rows and best."""
    phase = replace(sft, steps=3)
    seen = list(islice(batches(replace(phase, name="seen"), config, tokenizer, seed=9), 1))
    held_out = HeldOut(batches=seen, every=1, patience=0)
    reached = {}
    for number in range(8):
        folder, model = tmp_path / str(number), fresh()
        whole = False
        with contextlib.suppress(OutOfTime):  # the last checkpoint is nobody's to give up but the caller's
            whole = run(
                model, config, phase, tokenizer, folder, held_out=held_out, stop=LateFor(number), window=1,
                seconds_between_checkpoints=1e9,
            )  # fmt: skip
        assert whole is (number == 0)
        if not whole:
            model = fresh()
            assert run(model, config, phase, tokenizer, folder, held_out=held_out, window=1)
        rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        for row in rows:
            row.pop("seconds", None)
        progress = read_progress(folder / "state" / "step-00000003")
        reached[number] = (rows, progress.best_step, progress.best_loss, progress.looked_step)
    assert len(reached[0][0]) == 6 and reached[0][3] == 3
    assert all(one == reached[0] for one in reached.values())


def test_checkpoints_of_which_none_can_be_read_are_told(fresh, config, sft, tokenizer, tmp_path):
    run(fresh(), config, replace(sft, steps=2), tokenizer, tmp_path)
    for step in (tmp_path / "state").glob("step-*"):
        (step / "state.pt").write_bytes(b"")
    with pytest.raises(TrainingError, match=r"^none of the checkpoints in .*state can be read; move that folder away"):
        run(fresh(), config, sft, tokenizer, tmp_path)
    assert list((tmp_path / "state").glob("step-*"))


def test_batches_are_made_on_the_cpu_wherever_the_model_learns(config, sft, tokenizer):
    """A device that computes nothing stands for a GPU: what is made there by mistake has no numbers."""
    with torch.device("meta"), loop._stream(sft, config, tokenizer, 1, (), ALONE, draw_generated) as stream:
        batch = loop._next(stream)[0]
    assert batch.ids.device.type == batch.slices.patches.device.type == "cpu"
    with torch.device("meta"):
        codes = place_codes(batch.slices, config.vision.table_side, 4)
    assert codes.device.type == "cpu" and codes.isfinite().all()
