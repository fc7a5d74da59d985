from collections import deque

import gguf
import numpy as np
import pytest

from handlens.engine import llama
from handlens.errors import ModelError, SettingError


def test_another_version_is_refused_before_anything_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda _: "2025.1.1")
    with pytest.raises(ModelError, match=r"^xllamacpp 2025\.1\.1 is installed; this release calls .*pip install"):
        llama.library_file()


def test_a_layout_that_is_off_by_one_field_is_seen() -> None:
    params = llama.library().llama_context_default_params()
    llama.check_layout(params, llama.CONTEXT_DEFAULTS)

    class Shifted(llama.ctypes.Structure):
        _fields_ = (("extra", llama.c_uint32), *llama.ContextParams._fields_)

    shifted = Shifted.from_buffer_copy(bytes(params) + bytes(16))
    with pytest.raises(ModelError, match=r"Shifted\.n_ctx = 2048; 512 is needed"):
        llama.check_layout(shifted, llama.CONTEXT_DEFAULTS)


def test_a_cause_counts_more_than_what_follows_from_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama, "complaints", deque(maxlen=20))
    assert llama.last_complaint() == "llama.cpp gave no reason"
    llama._listen(llama.LOG_WARN, b"a key is unknown\n", None)
    assert llama.last_complaint() == "a key is unknown"
    llama._listen(llama.LOG_ERROR, b"llama_model_load: error loading model: missing tensor 'x'\n", None)
    llama._listen(llama.LOG_ERROR, b"llama_model_load_from_file_impl: failed to load model\n", None)
    assert llama.last_complaint() == "llama_model_load: error loading model: missing tensor 'x'"


@pytest.mark.parametrize("kind", llama.ROW_BLOCKS)
def test_type_numbers_and_blocks_are_those_of_the_format(kind: str) -> None:
    number = gguf.GGMLQuantizationType[kind]
    assert number.value == llama.GGML_TYPES[kind]
    assert gguf.GGML_QUANT_SIZES[number] == llama.ROW_BLOCKS[kind]


def test_q8_0_equals_the_format_library_bit_by_bit() -> None:
    values = np.random.default_rng(0).normal(size=(3, 512)).astype(np.float32)
    expected = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q8_0)
    np.testing.assert_array_equal(llama.quantise_rows(values, "Q8_0"), expected)


@pytest.mark.parametrize(
    ("kind", "bits"), [("Q4_0", 4), ("Q5_0", 5), ("Q8_0", 8), ("Q4_K", 4), ("Q5_K", 5), ("Q6_K", 6)]
)
def test_a_quantised_value_is_at_most_a_step_away(kind: str, bits: int) -> None:
    values = np.random.default_rng(1).uniform(-1, 1, (2, 512)).astype(np.float32)
    back = gguf.quants.dequantize(llama.quantise_rows(values, kind), gguf.GGMLQuantizationType[kind])
    # A block spans at most 2 and has 2**bits levels; K-quants round their scales too, hence one whole step.
    assert np.abs(back - values).max() <= 2 / 2**bits


def test_rows_that_do_not_fill_blocks_are_refused() -> None:
    with pytest.raises(SettingError, match="rows of 96 values cannot become Q4_K; a multiple of 256 is needed"):
        llama.quantise_rows(np.zeros((1, 96), dtype=np.float32), "Q4_K")


def test_a_processor_without_the_needed_instructions_is_told_what_it_lacks() -> None:
    llama.check_instructions(None)
    llama.check_instructions(frozenset({"avx", "avx2", "fma", "f16c", "sse4_2"}))
    with pytest.raises(ModelError, match=r"this processor lacks avx2, fma, which the prebuilt xllamacpp wheel needs"):
        llama.check_instructions(frozenset({"avx", "f16c", "sse4_2"}))
