"""A merged adapter computes what the adapter beside the model computes, and leaves the other weights bit by bit."""

from pathlib import Path

import pytest
import torch

import handlens
from handlens.config import HandlensConfig, LanguageConfig, ResamplerConfig, VisionConfig
from handlens.errors import ModelError
from handlens.model.checkpoint import load_model, save_model
from handlens.model.vlm import HandlensModel, build_model
from handlens.models.adapter import merge_adapter
from handlens.train.lora import Lora, add_lora, save_adapter


def small(width: int = 128, *, tied: bool = False) -> HandlensModel:
    return build_model(
        HandlensConfig(
            vision=VisionConfig(width=96, mlp_width=96, num_layers=1, num_heads=3, table_side=8),
            resampler=ResamplerConfig(num_queries=4, width=width, vision_width=96),
            language=LanguageConfig(
                vocab_size=60, width=width, mlp_width=128, num_layers=1, num_heads=2, num_kv_heads=2, tied=tied
            ),
        )
    ).eval()


@pytest.mark.parametrize("tied", [False, True])
def test_a_merged_adapter_computes_the_same(tied: bool, tmp_path: Path) -> None:
    save_model(small(tied=tied), tmp_path / "model")
    (tmp_path / "model" / "manifest.json").write_text("{}", encoding="utf-8")  # as beside the weights that ship
    model = load_model(tmp_path / "model")
    plain = {name: values.clone() for name, values in model.state_dict().items()}
    wrapped = add_lora(model, Lora(saved=())).eval()
    with torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if "lora_B" in name:
                weight.normal_(0.0, 0.1, generator=torch.Generator().manual_seed(1))
    save_adapter(wrapped, tmp_path / "adapter")
    ids = torch.arange(1, 9)[None]
    with torch.inference_mode():
        expected = wrapped(input_ids=ids).logits
    merged = load_model(merge_adapter(tmp_path / "model", tmp_path / "adapter", tmp_path / "merged"))
    with torch.inference_mode():
        torch.testing.assert_close(merged(input_ids=ids).logits, expected, atol=1e-5, rtol=1e-5)
    assert not (tmp_path / "merged" / "manifest.json").exists(), "what was written anew is no bundle"
    changed = {name for name, values in merged.state_dict().items() if not torch.equal(values, plain[name])}
    assert changed and all("_proj.weight" in name and name.startswith("llm.") for name in changed)


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    save_model(small(), tmp_path / "model")
    save_model(small(256), tmp_path / "other")
    save_adapter(add_lora(load_model(tmp_path / "other"), Lora(saved=())), tmp_path / "adapter")
    with pytest.raises(ModelError, match=r"does not fit .*; merge it with its own model"):
        merge_adapter(tmp_path / "model", tmp_path / "adapter", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    with pytest.raises(ModelError, match=r"is an adapter; `handlens models merge MODEL"):
        handlens.load(tmp_path / "adapter")
    with pytest.raises(ModelError, match=r"has no adapter_config\.json"):
        merge_adapter(tmp_path / "model", tmp_path / "model", tmp_path / "merged")
