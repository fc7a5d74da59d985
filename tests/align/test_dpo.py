"""The loss and its slopes are those of TRL, with the vision tower run once instead of twice."""

import random
from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from handlens.align.asks import drawn_asks
from handlens.align.dpo import Dpo, preference_loss, segment_weights, word_logprobs
from handlens.align.pairs import Pair
from handlens.align.preferences import Preferences, adapters_off, pair_logprobs, reference_logprobs
from handlens.config import HandlensConfig, LanguageConfig, ResamplerConfig, SlicingConfig, VisionConfig
from handlens.core.tokenizer import Tokenizer
from handlens.errors import DataError, SettingError
from handlens.model import packing
from handlens.model.vlm import build_model
from handlens.train.feed import IGNORED, batches
from handlens.train.learner import Learner
from handlens.train.lora import Lora, add_lora
from handlens.train.phases import Phase
from handlens.train.vocabulary import save_vocabulary, train_vocabulary

TEXTS = ["A small red ring at the top, a large blue star at the bottom.", "What do you see? Describe the picture."] * 4
PHASE = Phase(
    name="align", trains=("vision", "resampler", "language"), objective="preferences", sides_px=(112,), slicing=True,
    mixture={"pairs": 1.0}, steps=4, rate=1e-3, slices_per_step=1000, pictures_per_step=3, warmup_steps=1,
    optimiser="adamw", precision="float32",
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    file = tmp_path_factory.mktemp("vocabulary") / "tokenizer.json"
    save_vocabulary(train_vocabulary(TEXTS, 300), file)
    return Tokenizer.from_file(file)


@pytest.fixture(scope="module")
def config(tokenizer):
    return HandlensConfig(
        vision=VisionConfig(width=96, mlp_width=128, num_layers=1, num_heads=2),
        resampler=ResamplerConfig(num_queries=16, width=128, vision_width=96),
        language=LanguageConfig(vocab_size=tokenizer.vocab_size, width=128, mlp_width=192, num_layers=2, num_heads=2,
                                num_kv_heads=1, tied=True),
        slicing=SlicingConfig(side_px=112, max_slices=4),
    )  # fmt: skip


def model_of(config, seed: int = 3):
    torch.manual_seed(seed)
    model = build_model(config)
    model.llm.set_attn_implementation(packing.NAME)
    return model


ASKS = {one.id: one for one in drawn_asks(3, level=0.0)}
ANSWERS = (
    ("A red ring.", "A large blue star at the bottom, a red ring."),
    ("A blue star.", "A red star."),
    ("A large ring at the top, a small star.", "A ring."),
)
PAIRS = [
    Pair(id=f"{ask}#0", question=one.question, chosen=chosen, rejected=rejected, chosen_score=0, rejected_score=-1)
    for (ask, one), (chosen, rejected) in zip(ASKS.items(), ANSWERS, strict=True)
]


@pytest.fixture(scope="module")
def stored(config, tokenizer):
    """The reference's log-probabilities: those of another model."""
    plain = Preferences(PAIRS, ASKS, config, tokenizer, Dpo())
    return {pair.id: reference_logprobs(model_of(config, 4), plain, pair) for pair in PAIRS}


def batch_of(config, tokenizer, how, stored):
    preferences = Preferences(PAIRS, ASKS, config, tokenizer, how, reference=stored)
    return preferences.collate([preferences.build(pair) for pair in PAIRS], config, 3)


def trl_loss(model, reference, batch, how, names, weights):
    """The loss as TRL computes it from a padded batch, every conversation alone and its pictures seen anew."""
    from trl.trainer.dpo_trainer import DPOTrainer

    rows, counts, at, blocks = [], [], 0, []
    starts = np.cumsum([0, *batch.lengths])
    for number, length in enumerate(batch.lengths):
        rows.append(slice(starts[number], starts[number] + length))
        num_visual = int(batch.is_visual[rows[-1]].sum()) // 16
        blocks.append(batch.order[at : at + num_visual])
        at += num_visual
        counts.append(length)
    longest = max(counts)
    order = [*range(0, len(rows), 2), *range(1, len(rows), 2)]  # TRL: all chosen, then all rejected
    ids = torch.stack([F.pad(batch.ids[rows[n]], (0, longest - counts[n])) for n in order])
    mask = torch.stack([F.pad((batch.targets[rows[n]] != IGNORED).long(), (0, longest - counts[n])) for n in order])

    def logprobs_of(any_model):
        found = []
        for n in order:
            visual = any_model.see(batch.slices)[blocks[n]]
            joined = any_model.join(batch.ids[rows[n]][None], batch.is_visual[rows[n]][None], visual)
            hidden = any_model.llm.model(
                inputs_embeds=joined, use_cache=False, segment_lengths=(counts[n],),
                position_ids=torch.arange(counts[n])[None],
            ).last_hidden_state  # fmt: skip
            told = any_model.llm.lm_head(hidden)[0, :-1].log_softmax(-1)
            told = told.gather(-1, batch.ids[rows[n]][1:, None])[:, 0]
            found.append(F.pad(told, (0, longest - counts[n])))
        return torch.stack(found) * mask[:, 1:]

    def forward(input_ids, attention_mask, labels, fused_lm_head, use_cache):
        logprobs = logprobs_of(model)
        nothing = torch.zeros_like(logprobs)
        return SimpleNamespace(log_probs=logprobs, entropy=nothing, mean_logits=nothing, is_top1=nothing.bool())

    with torch.no_grad():
        before = logprobs_of(reference).sum(1)
    same = SimpleNamespace(gather_for_metrics=lambda value: value, gather=lambda value: value, device="cpu")
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True), accelerator=same, aux_loss_enabled=False, ld_alpha=None, _tp_size=1,
        precompute_ref_logps=True, f_divergence_type="reverse_kl", loss_types=names, loss_weights=weights,
        beta=how.beta, use_weighting=False, _metrics={"train": defaultdict(list)}, _total_train_tokens=0,
    )  # fmt: skip
    inputs = {
        "input_ids": ids, "attention_mask": torch.ones_like(ids), "completion_mask": mask,
        "ref_chosen_logps": before[: len(PAIRS)], "ref_rejected_logps": before[len(PAIRS) :],
    }  # fmt: skip
    return DPOTrainer._compute_loss(trainer, forward, inputs, False), trainer._metrics["train"]


@pytest.mark.parametrize(
    ("how", "names", "weights"),
    [
        (Dpo(), ["sigmoid"], [1.0]),
        (Dpo(form="ipo", beta=0.3), ["ipo"], [1.0]),
        (Dpo(form="length", beta=2.0, sft=0.7), ["sigmoid_norm", "sft"], [1.0, 0.7]),
    ],
)
def test_loss_and_slopes_are_those_of_trl(config, tokenizer, stored, how, names, weights):
    ours, theirs = model_of(config), model_of(config)
    batch = batch_of(config, tokenizer, how, stored)
    looks = []
    ours.vpm.register_forward_hook(lambda *_: looks.append(1))
    loss, scores = batch.loss(ours, batch.divisor)
    loss.backward()
    assert len(looks) == 1
    expected, metrics = trl_loss(theirs, model_of(config, 4), batch, how, names, weights)
    expected.backward()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert scores["right"] == pytest.approx(metrics["rewards/accuracies"][0])
    if how.form == "sigmoid":
        assert scores["margin"] == pytest.approx(metrics["rewards/margins"][0], abs=1e-5)
    slopes = dict(theirs.named_parameters())
    for name, weight in ours.named_parameters():
        if slopes[name].grad is not None:
            torch.testing.assert_close(weight.grad, slopes[name].grad, rtol=1e-3, atol=1e-6, msg=name)


def test_pictures_looked_at_once_give_the_same_loss_and_slopes(config, tokenizer, stored):
    model = model_of(config)
    for weight in (*model.vpm.parameters(), *model.resampler.parameters()):
        weight.requires_grad_(False)
    preferences = Preferences(PAIRS, ASKS, config, tokenizer, Dpo(), reference=stored)
    told = []
    for _ in range(2):
        model.zero_grad()
        batch = preferences.collate([preferences.build(pair) for pair in PAIRS], config, 3)
        loss, _ = batch.loss(model, batch.divisor)
        loss.backward()
        slopes = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
        told.append((batch.slices is None, float(loss.detach()), slopes))
        preferences.look_once(model)
        preferences.asks = {}  # no picture is opened again
    assert [is_seen for is_seen, _, _ in told] == [False, True] and told[0][1] == pytest.approx(told[1][1], rel=1e-6)
    for name, slope in told[0][2].items():
        torch.testing.assert_close(slope, told[1][2][name], rtol=1e-4, atol=1e-6, msg=name)


def test_more_visual_tokens_than_fit_are_not_kept(config, tokenizer, stored, monkeypatch):
    monkeypatch.setattr("handlens.align.preferences.MOST_KEPT", 1)
    preferences = Preferences(PAIRS, ASKS, config, tokenizer, Dpo(), reference=stored)
    preferences.look_once(model_of(config))
    assert not preferences.seen and preferences.build(PAIRS[0]).patches


def test_before_the_first_step_nothing_is_preferred(config, tokenizer):
    model = model_of(config)
    plain = Preferences(PAIRS, ASKS, config, tokenizer, Dpo())
    own = {pair.id: reference_logprobs(model, plain, pair) for pair in PAIRS}
    loss, scores = batch_of(config, tokenizer, Dpo(), own).loss(model, 3)
    assert float(loss.detach()) == pytest.approx(np.log(2), abs=1e-5) and abs(scores["margin"]) < 1e-4


def test_a_few_steps_prefer_the_preferred(config, tokenizer, stored):
    preferences = Preferences(PAIRS, ASKS, config, tokenizer, Dpo(), reference=stored)
    learner = Learner(model_of(config), config, PHASE, tokenizer)
    stream = batches(PHASE, config, tokenizer, seed=1, draw=preferences)
    told = [learner.learn(next(stream), step) for step in range(4)]
    assert told[-1]["preference"] < told[0]["preference"]
    assert told[-1]["margin"] > told[0]["margin"] and told[-1]["right"] == 1.0


def test_the_reference_of_an_adapter_is_the_model_without_it(config, tokenizer):
    model = model_of(config)
    plain = Preferences(PAIRS, ASKS, config, tokenizer, Dpo())
    own = {pair.id: reference_logprobs(model, plain, pair) for pair in PAIRS}
    add_lora(model, Lora(rank=2, alpha=4))
    for name, weight in model.named_parameters():
        if "lora_B" in name or ("modules_to_save" in name and weight.ndim == 2):
            torch.nn.init.normal_(weight, std=0.02)
    batch = batch_of(config, tokenizer, Dpo(reference="adapter"), {})
    told = batch_of(config, tokenizer, Dpo(), own)
    assert torch.isnan(batch.reference[batch.targets != IGNORED]).all()
    learning = [name for name, weight in model.named_parameters() if weight.requires_grad]
    with adapters_off(model):
        values = pair_logprobs(model, batch)
    torch.testing.assert_close(values, told.reference[1:][told.targets[1:] != IGNORED], rtol=1e-4, atol=1e-4)
    loss, _ = batch.loss(model, 3)
    stored_loss, _ = told.loss(model, 3)
    assert float(loss.detach()) == pytest.approx(float(stored_loss.detach()), rel=1e-5)
    assert float(loss.detach()) != pytest.approx(np.log(2), abs=1e-4)
    assert [name for name, weight in model.named_parameters() if weight.requires_grad] == learning
    with pytest.raises(DataError, match="adapters off, and it has none; use --lora"):
        batch.loss(model_of(config), 3)


def test_a_corrected_segment_weighs_more(config, tokenizer, stored):
    """RLHF-V, equation 4, by hand: weighted mean log-probabilities of both answers."""
    how = Dpo(form="length", beta=0.5, segment_weight=5.0)
    model, batch = model_of(config), batch_of(config, tokenizer, how, stored)
    loss, _ = batch.loss(model, 3)
    expected = []
    for pair in PAIRS:
        single = Preferences([pair], ASKS, config, tokenizer, how, reference=stored)
        values = pair_logprobs(model, single.collate([single.build(pair)], config, 0)).detach().numpy()
        chosen, rejected = (tokenizer.encode(text + "<|im_end|>") for text in (pair.chosen, pair.rejected))
        first, second = segment_weights(np.asarray(chosen), np.asarray(rejected), 5.0)
        assert {*first, *second} <= {1.0, 5.0}
        ratio = values - np.concatenate([np.asarray(part) for part in stored[pair.id]])
        mean = [(ratio[: len(first)] * first).sum() / first.sum(), (ratio[len(first) :] * second).sum() / second.sum()]
        expected.append(-np.log(1 / (1 + np.exp(-0.5 * (mean[0] - mean[1])))))
    assert float(loss.detach()) == pytest.approx(float(np.mean(expected)), rel=1e-4)


def test_pieces_of_logits_change_nothing():
    torch.manual_seed(0)
    head, hidden = torch.nn.Linear(8, 30), torch.randn(17, 8, requires_grad=True)
    words = torch.randint(30, (17,))
    whole, pieces = word_logprobs(head, hidden, words), word_logprobs(head, hidden, words, piece=90)
    torch.testing.assert_close(whole, pieces)
    torch.testing.assert_close(
        torch.autograd.grad(whole.sum(), hidden)[0], torch.autograd.grad(pieces.sum(), hidden)[0]
    )


def test_damaged_references_and_settings_are_refused(config, tokenizer, stored):
    cut = {name: (first[:-1], second) for name, (first, second) in stored.items()}
    with pytest.raises(DataError, match=r"remove references.jsonl and run the same command again"):
        batch_of(config, tokenizer, Dpo(), cut)
    with pytest.raises(SettingError, match="beta is 0; it must be above 0"):
        Dpo(beta=0)
    shapes = torch.zeros(2, 1)
    assert float(preference_loss(shapes, shapes, shapes + 1, Dpo())) == pytest.approx(np.log(2))


def test_order_depends_on_the_index_alone(config, tokenizer, stored):
    preferences = Preferences(PAIRS, ASKS, config, tokenizer, Dpo(), reference=stored)
    own = random.Random(0)
    first = [preferences(PHASE, own, index, "train").ids.tolist() for index in range(6)]
    again = Preferences(PAIRS, ASKS, config, tokenizer, replace(Dpo(), beta=0.2), reference=stored)
    assert first[4] == again(PHASE, own, 4, "train").ids.tolist()
    assert sorted(first[:3]) == sorted(first[3:])
