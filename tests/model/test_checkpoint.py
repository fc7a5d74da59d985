"""Model folders: exact round trips, the Auto classes, and what is said about files that do not fit."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText

from handlens.errors import ModelError
from handlens.model.checkpoint import load_config, load_model, load_weights, save_model, save_weights
from handlens.model.vlm import HandlensModel, MiniCPMVConfig, build_model


@pytest.fixture
def folder(model, tmp_path) -> Path:
    save_model(model, tmp_path / "saved")
    return tmp_path / "saved"


def equal(one: HandlensModel, other: HandlensModel) -> bool:
    weights = other.state_dict()
    return set(one.state_dict()) == set(weights) and all(
        torch.equal(tensor, weights[name]) for name, tensor in one.state_dict().items()
    )


def test_round_trip_is_exact(model, folder, config):
    loaded = load_model(folder)
    assert equal(model, loaded)
    assert load_config(folder) == config
    assert not loaded.training


@torch.no_grad()
def test_auto_classes_read_the_folder(model, folder, slices):
    ids = torch.randint(0, 90, (1, 60), generator=torch.Generator().manual_seed(0))
    is_visual = torch.zeros(1, 60, dtype=torch.bool)
    is_visual[0, 5:53] = True
    expected = model(ids, is_visual, slices).logits
    assert isinstance(AutoConfig.from_pretrained(folder), MiniCPMVConfig)
    for auto in (AutoModel, AutoModelForImageTextToText):
        loaded = auto.from_pretrained(folder)
        assert isinstance(loaded, HandlensModel)
        assert equal(model, loaded)
        assert torch.equal(loaded.eval()(ids, is_visual, slices).logits, expected)


def test_save_pretrained_is_read_back(model, tmp_path):
    model.save_pretrained(tmp_path)
    assert equal(model, load_model(tmp_path))


def test_half_precision_is_widened_exactly(model, tmp_path):
    save_model(model, tmp_path, dtype=torch.bfloat16)
    stored = load_file(tmp_path / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    loaded = load_model(tmp_path)
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, stored[name].float())
        assert torch.equal(tensor, model.state_dict()[name].bfloat16().float())


def test_tied_weights_are_stored_once(config, tmp_path):
    tied = build_model(replace(config, language=replace(config.language, tied=True)))
    save_model(tied, tmp_path)
    assert "llm.lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    loaded = load_model(tmp_path)
    assert equal(tied, loaded)
    assert loaded.llm.lm_head.weight is loaded.llm.model.embed_tokens.weight
    assert equal(tied, AutoModel.from_pretrained(tmp_path))


def test_the_tokenizer_comes_along(model, tmp_path):
    (tmp_path / "words.json").write_text("{}")
    save_model(model, tmp_path / "saved", tmp_path / "words.json")
    assert (tmp_path / "saved" / "tokenizer.json").read_text() == "{}"
    assert {file.name for file in (tmp_path / "saved").iterdir()} == {
        "config.json", "model.safetensors", "tokenizer.json",
    }  # fmt: skip


# ---- what does not fit -----------------------------------------------------------------------------------------------


def refused(folder: Path) -> str:
    with pytest.raises(ModelError) as error:
        load_model(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def rewrite(folder: Path, **changes: torch.Tensor | None) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file) | {name.replace("__", "."): tensor for name, tensor in changes.items()}
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, file)


def test_a_missing_tensor(folder):
    rewrite(folder, resampler__query=None)
    assert refused(folder) == (
        f"{folder}/model.safetensors lacks the tensor resampler.query; it belongs to another model than its config.json"
    )


def test_an_extra_tensor(folder):
    rewrite(folder, resampler__pos_embed=torch.zeros(16, 128))
    assert refused(folder) == (
        f"{folder}/model.safetensors has the unknown tensor resampler.pos_embed; "
        "it belongs to another model than its config.json"
    )


def test_a_misshapen_tensor(folder):
    rewrite(folder, resampler__query=torch.zeros(8, 128))
    assert refused(folder) == (
        f"{folder}/model.safetensors: resampler.query has shape [8, 128]; config.json needs [16, 128]"
    )


def test_a_refused_file_leaves_the_model_as_it_was(model, folder):
    untouched = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rewrite(folder, llm__lm_head__weight=torch.zeros(90, 128), vpm__post_layernorm__bias=torch.zeros(3))
    with pytest.raises(ModelError, match=r"vpm\.post_layernorm\.bias has shape \[3\]"):
        load_weights(model, folder / "model.safetensors")
    assert all(torch.equal(tensor, untouched[name]) for name, tensor in model.state_dict().items())


def test_a_file_that_was_cut(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert refused(folder).startswith(f"cannot read {file}: ")
    file.write_bytes(b"")
    assert refused(folder).startswith(f"cannot read {file}: ")
    file.unlink()
    assert refused(folder).startswith(f"cannot read {file}: ")


def test_a_folder_without_a_configuration(tmp_path):
    assert refused(tmp_path) == (f"no config.json in {tmp_path}; give a folder with config.json and model.safetensors")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", "holds a list; an object with the official fields is needed"),
        ('{"model_type": "llama"}', "config.json has model_type 'llama'; 'minicpmv' is needed"),
    ],
)
def test_a_configuration_of_another_kind(folder, text, message):
    (folder / "config.json").write_text(text)
    assert message in refused(folder)


def test_a_configuration_with_a_hole_or_a_wrong_type(folder):
    file = folder / "config.json"
    fields = json.loads(file.read_text())
    file.write_text(json.dumps({name: value for name, value in fields.items() if name != "query_num"}))
    assert refused(folder) == "config.json lacks the field 'query_num'; take it from an official checkpoint"
    file.write_text(json.dumps(fields | {"rope_theta": "fast"}))
    assert re.match(r"a field of config\.json has the wrong type: .*'fast'", refused(folder))
    file.write_text(json.dumps(fields | {"vision_config": 3}))
    assert "a field of config.json has the wrong type" in refused(folder)


def test_weights_that_cannot_be_written(model, tmp_path):
    with pytest.raises(
        ModelError, match=r"cannot write .*model\.safetensors: .*; free some space or give another folder"
    ):
        save_weights(model, tmp_path / "missing" / "model.safetensors")
    assert list(tmp_path.iterdir()) == []
