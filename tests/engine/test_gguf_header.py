"""Headers of GGUF files against the reader of the gguf package, and against damage."""

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlens.config import HandlensConfig, LanguageConfig, ResamplerConfig
from handlens.engine.belong import check_language, check_room
from handlens.engine.gguf_header import read_header
from handlens.engine.text_rows import TextRows
from handlens.errors import ModelError


@pytest.mark.parametrize("quant", ["F32", "F16", "Q8_0", "Q4_K_M"])
def test_tensors_are_where_the_gguf_package_finds_them(gguf_file: Callable[[str], Path], quant: str) -> None:
    file = gguf_file(quant)
    header, reader = read_header(file), gguf.GGUFReader(file)
    assert header.architecture == "llama"
    assert header.number("embedding_length") == 256
    expected = {t.name: (int(t.tensor_type), int(t.data_offset), int(t.n_bytes)) for t in reader.tensors}
    assert {name: (t.kind, t.offset, t.num_bytes) for name, t in header.tensors.items()} == expected


@pytest.mark.parametrize("quant", ["F32", "F16", "BF16", "Q8_0", "Q4_K_M"])
def test_embedding_rows_are_those_of_the_gguf_package(gguf_file: Callable[[str], Path], quant: str) -> None:
    file = gguf_file(quant)
    rows = TextRows(file, read_header(file))
    table = next(tensor for tensor in gguf.GGUFReader(file).tensors if tensor.name == "token_embd.weight")
    ids = np.array([5, 200, 5, 17])
    expected = gguf.quants.dequantize(table.data, table.tensor_type)[ids]
    np.testing.assert_array_equal(rows[ids], expected)


def test_a_file_that_is_no_gguf(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"hello world")
    with pytest.raises(ModelError, match=r"cannot load .*a\.gguf: it is no GGUF file"):
        read_header(tmp_path / "a.gguf")


@settings(max_examples=30)
@given(share=st.floats(0.01, 0.99))
def test_a_cut_file_is_one_clear_error(gguf_file: Callable[[str], Path], share: float) -> None:
    whole = gguf_file("Q8_0")
    cut = whole.with_name("cut.gguf")
    cut.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
    with pytest.raises(ModelError, match=r"is damaged|is no GGUF file"):
        read_header(cut)


def test_another_architecture_is_named(tmp_path: Path, shape: LanguageConfig) -> None:
    for name, message in (("clip", "that is a vision half"), ("gpt2", "needed is llama, minicpm")):
        writer = gguf.GGUFWriter(tmp_path / "a.gguf", name)
        writer.add_tensor("token_embd.weight", np.zeros((4, 32), dtype=np.float32))
        for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
            step()
        writer.close()
        with pytest.raises(ModelError, match=f"architecture '{name}'; {message}"):
            check_language(tmp_path / "a.gguf", read_header(tmp_path / "a.gguf"), config_of(shape))


def test_halves_of_two_models_are_refused(gguf_file: Callable[[str], Path], shape: LanguageConfig) -> None:
    file = gguf_file("Q8_0")
    check_language(file, read_header(file), config_of(shape))
    wider = config_of(LanguageConfig(width=512, num_layers=shape.num_layers))
    with pytest.raises(ModelError, match=r"width 256, the manifest says 512; these halves do not belong together"):
        check_language(file, read_header(file), wider)
    deeper = config_of(LanguageConfig(width=256, num_layers=9))
    with pytest.raises(ModelError, match="number of layers 2, the manifest says 9"):
        check_language(file, read_header(file), deeper)


def test_more_memory_than_there_is_in_all_is_refused() -> None:
    check_room(1000, "a small half")
    with pytest.raises(ModelError, match=r"a huge half needs about 1000000\.00 GB of memory, there are"):
        check_room(10**15, "a huge half")


def config_of(language: LanguageConfig) -> HandlensConfig:
    return HandlensConfig(language=language, resampler=ResamplerConfig(width=language.width))
