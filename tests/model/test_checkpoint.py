"""Model folders: exact round trips, the Auto classes, and what is said about files that do not fit."""

import json
import pickle
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText

from handlens.config import HandlensConfig
from handlens.errors import ModelError
from handlens.model.checkpoint import (
    load_config,
    load_model,
    load_weights,
    save_model,
    save_weights,
    tensor_shapes,
)
from handlens.model.vlm import HandlensModel, MiniCPMVConfig, build_model
from handlens.model.weights import open_weights


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
        f"{folder}/model.safetensors: resampler.query has shape [8, 128]; config.json needs [16, 128] "
        "(query_num 16, hidden_size 128)"
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
    assert re.fullmatch(
        re.escape(str(file)) + r" has [\d,]+ bytes, its tensors need [\d,]+; it is cut or damaged; copy it again",
        refused(folder),
    )
    file.write_bytes(b"")
    assert refused(folder) == f"{file} (0 bytes) is no whole safetensors file; copy it again"
    file.write_bytes(pickle.dumps({"weights": [0.0] * 9}))
    assert refused(folder) == f"{file} is a pickle, which can run code; a safetensors file is needed"
    file.unlink()
    assert refused(folder) == f"cannot read {file}: No such file or directory; give a whole model folder"


def test_a_folder_without_a_configuration(tmp_path):
    assert refused(tmp_path) == (f"no config.json in {tmp_path}; give a folder with config.json and model.safetensors")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not valid JSON"),
        ("[]", "holds a list; an object with the official fields is needed"),
        (
            '{"model_type": "minicpmo"}',
            "has model_type 'minicpmo'; 'minicpmv' is needed; known: minicpmv, minicpmv4_6; nearest: minicpmv",
        ),
        (
            '{"model_type": "minicpmv", "version": 4.7}',
            "config.json has version 4.7, which is unknown; known: 1.0, 2.0, 2.5, 2.6, 4.0, 4.5; nearest: 4.5",
        ),
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


def test_a_pickle_is_refused(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert refused(folder) == (
        f"{folder}/pytorch_model.bin is a pickle, which can run any code when it is opened; handlens reads safetensors "
        "only; take the safetensors form of this model or convert it where you trust the file"
    )


def test_a_config_with_more_layers_than_the_file(folder):
    file = folder / "config.json"
    fields = json.loads(file.read_text())
    file.write_text(json.dumps(fields | {"num_hidden_layers": 3}))
    message = refused(folder)
    assert "lacks the tensor llm.model.layers.2.input_layernorm.weight" in message
    assert message.endswith("(num_hidden_layers 3)")
    file.write_text(json.dumps(fields | {"num_hidden_layers": 1}))
    message = refused(folder)
    assert "has the unknown tensor llm.model.layers.1." in message
    assert message.endswith("(num_hidden_layers 1)")


def test_a_config_that_contradicts_the_file_names_both(folder):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"vocab_size": 91}))
    assert refused(folder).endswith(
        "embed_tokens.weight has shape [90, 128]; config.json needs [91, 128] (vocab_size 91, hidden_size 128)"
    )


def in_shards(folder: Path) -> list[Path]:
    """Cut the file of a folder into two shards and an index, as large releases are."""
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    halves = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for part, inside in halves.items():
        save_file({name: tensors[name] for name in inside}, folder / part, {"format": "pt"})
    places = {name: part for part, inside in halves.items() for name in inside}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    (folder / "model.safetensors").unlink()
    return [folder / part for part in halves]


def test_shards_are_read_and_saved_as_they_were(model, folder, tmp_path):
    shards = in_shards(folder)
    loaded = load_model(folder)
    assert equal(model, loaded)
    save_model(loaded, tmp_path / "again", as_stored=True)
    for file in [*shards, folder / "model.safetensors.index.json", folder / "config.json"]:
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()


def test_a_missing_a_cut_and_a_doubled_shard(folder):
    one, two = in_shards(folder)
    whole = two.read_bytes()
    two.write_bytes(whole[:-10])
    assert refused(folder).startswith(f"{two} has ")
    two.unlink()
    assert refused(folder).startswith(f"cannot read {two}: ")
    two.write_bytes(one.read_bytes())
    assert re.search(r"both hold the tensor llm\.lm_head\.weight; download the folder again", refused(folder))
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../other.safetensors"}}')
    assert "points to '../other.safetensors', outside its folder" in refused(folder)
    (folder / "model.safetensors.index.json").write_text("{}")
    assert "model.safetensors.index.json is damaged (KeyError: 'weight_map'); download the folder again" in refused(
        folder
    )


def test_slicing_of_the_processor_file_counts(folder):
    (folder / "preprocessor_config.json").write_text('{"max_slice_nums": 4, "scale_resolution": 112, "version": 2.6}')
    assert load_model(folder).config.typed().slicing.max_slices == load_config(folder).slicing.max_slices == 4


@pytest.mark.parametrize("version", ["2.0", "2.5", "2.6", "4.5", "4.6"])
def test_an_official_folder_is_saved_bit_by_bit(version, golden, tmp_path):
    """The round trip through float32 ends in the same bytes: weights, configuration and processor."""
    folder = golden(version)
    model = load_model(folder)
    save_model(model, tmp_path / "again", as_stored=True)
    for name in ("model.safetensors", "config.json", "preprocessor_config.json"):
        if (folder / name).exists():
            assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes(), name
    with pytest.raises(ModelError, match="cannot be saved as stored in"):
        save_model(model, folder, as_stored=True)


@pytest.mark.parametrize("version", ["2.0", "2.5", "2.6", "4.5"])
def test_a_written_config_is_read_back(version, golden, tmp_path):
    config = load_config(golden(version))
    fields = config.to_official()
    assert HandlensConfig.from_official(fields) == config
    stored = open_weights(golden(version))
    assert tensor_shapes(config) == stored.shapes
    save_model(load_model(golden(version)), tmp_path)
    assert load_config(tmp_path) == config
    assert "handlens_family" not in json.loads((tmp_path / "config.json").read_text())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rope_scaling": {"rope_type": "yarn"}}, "has rope_scaling of type 'yarn'; known: default, longrope"),
        (
            {
                "rope_scaling": {
                    "type": "longrope", "short_factor": [1.0], "long_factor": [1.0],
                    "original_max_position_embeddings": 64,
                }
            },
            "rope_scaling has 1 short and 1 long factors; heads of 32 channels need 16 of each",
        ),
        ({"version": "four"}, "config.json has version 'four', which is unknown; known: 1.0, 2.0"),
        ({"handlens_family": "nan0"}, "unknown family 'nan0'; did you mean 'nano'?"),
        ({"version": None}, "config.json has neither version nor vision_encoder, so it is of no release; known: 1.0"),
        (
            {"version": None, "vision_encoder": "vit_so400m_patch16"},
            "has the unknown vision_encoder 'vit_so400m_patch16'; known: vit_so400m_patch14_siglip_384.webli",
        ),
    ],
)  # fmt: skip
def test_a_configuration_that_no_release_has(folder, change, message):
    file = folder / "config.json"
    fields = json.loads(file.read_text())
    if "handlens_family" not in change:
        del fields["handlens_family"]
    if "vision_encoder" in change:
        del fields["vision_config"]
    file.write_text(json.dumps(fields | change))
    assert message in refused(folder)
