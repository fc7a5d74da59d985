"""What a phase needs once, before its first step."""

import pytest
import torch
from safetensors.torch import save_file

from handlens.model.vlm import build_model
from handlens.recipes import smoke
from handlens.train.cells import EYES, CellTables
from handlens.train.prepare import prepare


@pytest.mark.parametrize(("name", "is_joined"), [("join", True), ("sft", False)])
def test_the_phase_join_turns_what_is_seen_into_what_layout_taught(tmp_path, name, is_joined):
    torch.manual_seed(0)
    config = smoke.model(300)
    model = build_model(config)
    save_file(CellTables(config.resampler.width).state_dict(), str(tmp_path / EYES))
    before = model.resampler.proj.detach().clone()
    told = []
    phase = smoke.recipe().only(name).phases[0]
    prepare(model, config, smoke.recipe(), phase, tmp_path / EYES, told.append)
    assert torch.equal(model.resampler.proj, before) != is_joined
    assert [row["phase"] for row in told if "eyes_r2" in row] == [name] * is_joined
