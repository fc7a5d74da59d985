from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from handlens.errors import ModelError
from handlens.export.tensor_file import TensorFolder, read_tensors, write_tensors


def test_half_types_are_widened_exactly(tmp_path: Path) -> None:
    values = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    kinds = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
    stored = {name: values.to(kind) for name, kind in kinds.items()}
    save_file(stored, str(tmp_path / "model.safetensors"))
    opened = TensorFolder.open(tmp_path)
    for name, tensor in stored.items():
        np.testing.assert_array_equal(opened[name], tensor.float().numpy())


def test_what_is_written_is_read_by_safetensors(tmp_path: Path) -> None:
    arrays = {
        "a.b": np.arange(6, dtype=np.int64).reshape(2, 3),
        "c": np.float32([1.5]),
        "d": np.zeros((0, 3), np.float32),
    }
    write_tensors(arrays, tmp_path / "x.safetensors")
    theirs = load_file(str(tmp_path / "x.safetensors"))
    assert theirs.keys() == arrays.keys()
    for name, values in arrays.items():
        np.testing.assert_array_equal(theirs[name].numpy(), values)
        np.testing.assert_array_equal(read_tensors(tmp_path / "x.safetensors")[name], values)


@pytest.mark.parametrize("kept", [0, 4, 9, 60, -1])
def test_a_cut_file_is_refused_before_a_value_is_read(tmp_path: Path, kept: int) -> None:
    file = tmp_path / "model.safetensors"
    write_tensors({"a": np.arange(40, dtype=np.float32)}, file)
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ModelError, match="copy it again"):
        TensorFolder.open(tmp_path)


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="is a pickle, which can run code"):
        TensorFolder.open(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"only pytorch_model\.bin, a pickle"):
        TensorFolder.open(tmp_path)


def test_a_shard_outside_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../secret.safetensors"}}')
    with pytest.raises(ModelError, match="no file of its folder"):
        TensorFolder.open(tmp_path)
