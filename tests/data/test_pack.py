"""Rows hold every sample once, within both limits, full, and compute what the samples compute alone."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from handlens.data.formats import read_samples
from handlens.data.pack import Budget, Length, lay_end_to_end, pack, pack_windows
from handlens.data.render import render
from handlens.errors import SettingError


def drawn(seed: int, count: int, num_queries: int = 64) -> list[Length]:
    """Lengths as they come from pictures of one to ten slices and talks of 20 to 300 tokens."""
    rng = np.random.default_rng(seed)
    slices = rng.choice([1, 1, 1, 3, 5, 7, 9, 10], count)
    words = rng.integers(20, 300, count)
    rows = zip(slices.tolist(), words.tolist(), strict=True)
    return [Length(key=str(n), tokens=num_queries * s + w, slices=s) for n, (s, w) in enumerate(rows)]


lengths_of = st.lists(st.tuples(st.integers(1, 2500), st.integers(0, 40)), max_size=60)


@settings(max_examples=60)
@given(lengths_of, st.integers(100, 3000), st.integers(1, 40))
def test_each_sample_is_in_one_row_and_rows_keep_both_limits(pairs, tokens: int, slices: int) -> None:
    lengths = [Length(key=str(n), tokens=t, slices=s) for n, (t, s) in enumerate(pairs)]
    budget = Budget(tokens=tokens, slices=slices)
    packing = pack(lengths, budget)
    placed = sorted([place for row in packing.rows for place in row] + list(packing.too_long))
    assert placed == list(range(len(lengths)))
    for row in packing.rows:
        assert row
        assert sum(lengths[place].tokens for place in row) <= tokens
        assert sum(lengths[place].slices for place in row) <= slices
    assert all(not budget.holds(lengths[place]) for place in packing.too_long)


@pytest.mark.parametrize("seed", range(5))
def test_rows_are_98_percent_full(seed: int) -> None:
    packing = pack(drawn(seed, 5000), Budget(tokens=4096, slices=48))
    assert packing.fill >= 0.98
    assert packing.too_long == ()


def test_a_stream_is_98_percent_full_too() -> None:
    lengths = drawn(9, 5000)
    rows = list(pack_windows(lengths, Budget(tokens=4096, slices=48)))
    assert sorted(length.key for row in rows for length in row) == sorted(length.key for length in lengths)
    assert sum(length.tokens for length in lengths) / (len(rows) * 4096) >= 0.98


def test_slices_are_what_limits_when_they_are_few() -> None:
    packing = pack([Length(key=str(n), tokens=100, slices=4) for n in range(10)], Budget(tokens=2048, slices=8))
    assert [len(row) for row in packing.rows] == [2] * 5
    assert packing.slice_fill == 1.0


def test_a_row_that_holds_nothing_is_refused() -> None:
    with pytest.raises(SettingError, match="a row of 0 tokens and 32 slices holds nothing"):
        Budget(tokens=0)


# ---- what a packed row computes --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(target):
    from handlens.config import HandlensConfig, LanguageConfig, ResamplerConfig, SlicingConfig, VisionConfig
    from handlens.model.vlm import build_model

    torch.manual_seed(2)
    return build_model(
        HandlensConfig(
            vision=VisionConfig(width=64, mlp_width=64, num_layers=1, num_heads=1),
            resampler=ResamplerConfig(num_queries=64, width=128, vision_width=64),
            language=LanguageConfig(
                vocab_size=target.tokenizer.vocab_size, width=128, mlp_width=128, num_layers=2, num_heads=2,
                num_kv_heads=1,
            ),
            slicing=SlicingConfig(side_px=target.family.side_px),
        )
    )  # fmt: skip


def slices_of(samples, target, model):
    """All slices of some samples as the model takes them."""
    from handlens.core.patches import normalise
    from handlens.core.slicing import cut
    from handlens.engine.inputs import slice_inputs
    from handlens.model.vlm import SliceBatch

    config = model.config.typed()
    arrays = [
        slice_inputs(normalise(piece), config)
        for sample in samples
        for image in sample.images
        for piece in cut(image.open().image, target.plan(image.open().image.size))
    ]
    longest = max(len(patches) for patches, _, _ in arrays)

    def padded(array):
        return torch.from_numpy(np.pad(array, ((0, longest - len(array)), *((0, 0),) * (array.ndim - 1))))

    real = torch.tensor([[place < len(patches) for place in range(longest)] for patches, _, _ in arrays])
    return SliceBatch(*(torch.stack([padded(array) for array in column]) for column in zip(*arrays, strict=True)), real)


def summed_loss(model, row, slices):
    """Loss over the targets of a row, added up and not yet divided."""
    from handlens.model import packing

    model.llm.set_attn_implementation(packing.NAME)
    ids, visual = torch.from_numpy(row.ids)[None], torch.from_numpy(row.is_visual)[None]
    hidden = model.llm.model(
        inputs_embeds=model.join(ids, visual, model.see(slices)), position_ids=torch.from_numpy(row.positions)[None],
        use_cache=False, segment_lengths=row.lengths,
    ).last_hidden_state[0]  # fmt: skip
    learned = torch.from_numpy(row.is_target)[1:]
    logits = model.llm.lm_head(hidden[:-1][learned])
    return F.cross_entropy(logits.float(), ids[0, 1:][learned], reduction="sum"), int(learned.sum())


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def test_loss_and_gradients_of_a_row_are_those_of_its_samples(samples, picture, target, tiny) -> None:
    given = [*samples(3)]
    rendered = [render(one.chat, [one.images[0].open().image.size], target) for one in given]
    total, count = summed_loss(tiny, lay_end_to_end(rendered), slices_of(given, target, tiny))
    packed = gradients(tiny, total / count)
    parts = [
        summed_loss(tiny, lay_end_to_end([text]), slices_of([one], target, tiny))
        for one, text in zip(given, rendered, strict=True)
    ]
    alone_loss = sum(loss for loss, _ in parts) / sum(num for _, num in parts)
    alone = gradients(tiny, alone_loss)
    assert float(total.detach() / count) == pytest.approx(float(alone_loss.detach()), abs=1e-5)
    assert packed.keys() == alone.keys()
    for name, slope in packed.items():
        torch.testing.assert_close(slope, alone[name], rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
    assert max(slope.abs().max() for slope in packed.values()) > 1e-2  # something is learned at all


def test_the_command_packs_everything(write, samples, tmp_path) -> None:
    import json

    from click.testing import CliRunner

    from handlens.cli.main import handlens

    folder, out = write(samples(12), "parquet"), tmp_path / "packed"
    done = CliRunner().invoke(handlens, ["data", "pack", str(folder), "--out", str(out), "--tokens", "400", "--json"])
    facts = json.loads(done.stdout)
    assert (facts["packed"], facts["written"], facts["dropped"]) == (12, 12, {})
    rows = [json.loads(line) for line in (out / "_rows.jsonl").read_text().splitlines()]
    assert [key for row in rows for key in row["keys"]] == [sample.key for sample in read_samples(out)]
    assert all(sum(row["tokens"]) <= 400 for row in rows)
