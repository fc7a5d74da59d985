"""What OpenVINO reads, llama.cpp continues: the same answers, and the state in the library's own form."""

import ctypes
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from handlens.core.prompt import Prompt
from handlens.engine import openvino_prefill
from handlens.engine.gguf_header import Header, read_header
from handlens.engine.language import LlamaCppLanguage, chunk_edges
from handlens.engine.room import Room
from handlens.engine.setup import Setup
from handlens.engine.state import STORED, write_state
from handlens.errors import ModelError, NeedsExtra, SettingError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.fixture
def prompt(vocab: int = 300) -> Prompt:
    """Text, 40 visual places, text, 30 visual places, text."""
    is_visual = np.repeat([False, True, False, True, False], [3, 40, 2, 30, 9])
    ids = np.random.default_rng(2).integers(16, vocab, len(is_visual))
    return Prompt(ids=np.where(is_visual, 0, ids), is_visual=is_visual)


def visual_tokens(prompt: Prompt, width: int = 256) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(prompt.num_visual, width)).astype(np.float32)


def half(file: Path, prompt: Prompt, **fields: object) -> LlamaCppLanguage:
    setup = Setup.from_json(fields)
    return LlamaCppLanguage(file, Room(prompt=len(prompt.ids) + 20, answer=40, beams=2), threads=1, setup=setup)


@pytest.mark.parametrize("fields", [{}, {"flash": True}, {"kv": "f32"}])
def test_the_state_is_what_the_library_writes(
    gguf_file: Callable[[str], Path], prompt: Prompt, fields: dict[str, object]
) -> None:
    ours = half(gguf_file("Q8_0"), prompt, **fields)
    ours.prefill(prompt, visual_tokens(prompt))
    size = ours._lib.llama_state_seq_get_size(ours._context, 0)
    stored = ctypes.create_string_buffer(size)
    assert ours._lib.llama_state_seq_get_data(ours._context, stored, size, 0) == size
    found = bytes(stored)
    count, layers, width = len(prompt.ids), 2, 128
    kind = str(fields.get("kind", fields.get("kv", "f16"))).upper()
    dtype = np.dtype(STORED[kind])
    transposed = not fields.get("flash")
    length = count * width * dtype.itemsize
    at, parts = 4 * (4 + 3 * count + 4), []
    for number in range(2 * layers):
        at += 12
        shape = (width, count) if transposed and number >= layers else (count, width)
        part = np.frombuffer(found[at : at + length], dtype=dtype).reshape(shape)
        parts.append(part.T if transposed and number >= layers else part)
        at += length
    assert write_state(parts[:layers], parts[layers:], kind=kind, transposed=transposed) == found


def test_values_that_llama_cpp_computed_come_back_bit_for_bit(gguf_file: Callable[[str], Path], prompt: Prompt) -> None:
    """The same state given back leaves the next step as it was."""
    ours = half(gguf_file("Q8_0"), prompt)
    ours.prefill(prompt, visual_tokens(prompt))
    expected = ours.step([30], [0])
    ours.forget(1)
    size = ours._lib.llama_state_seq_get_size(ours._context, 0)
    stored = ctypes.create_string_buffer(size)
    ours._lib.llama_state_seq_get_data(ours._context, stored, size, 0)
    ours._lib.llama_memory_seq_rm(ours._memory, 0, -1, -1)
    assert ours._lib.llama_state_seq_set_data(ours._context, bytes(stored), size, 0) == size
    np.testing.assert_array_equal(ours.step([30], [0]), expected)


def test_everything_up_to_the_last_picture_is_one_chunk(prompt: Prompt) -> None:
    assert chunk_edges(prompt, 16)[:2] == (16, 32)
    assert chunk_edges(prompt, 16, whole=True) == (75, 84)


def logits_of(file: Path, prompt: Prompt, prefill: str) -> np.ndarray:
    """Return the logits after the prompt and after each of twelve greedy tokens."""
    language = half(file, prompt, prefill=prefill)
    logits = [language.prefill(prompt, visual_tokens(prompt))]
    for _ in range(12):
        logits.append(language.step([int(logits[-1].argmax())], [0])[0])
    return np.stack(logits)


def test_the_answer_is_that_of_llama_cpp(gguf_file: Callable[[str], Path], prompt: Prompt) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed: pip install 'handlens[openvino]'")
    theirs, ours = (logits_of(gguf_file("F32"), prompt, prefill) for prefill in ("llama.cpp", "openvino"))
    assert np.std(theirs) > 0.5, "flat logits would prove nothing"
    np.testing.assert_array_equal(ours.argmax(axis=1), theirs.argmax(axis=1))
    np.testing.assert_allclose(ours, theirs, atol=2e-3)


@pytest.mark.parametrize("quant", ["Q8_0", "Q4_K_M"])
def test_8_bits_cost_no_more_than_in_llama_cpp(gguf_file: Callable[[str], Path], prompt: Prompt, quant: str) -> None:
    """Both round inputs to 8 bits, in groups of their own; what counts is the way from the exact weights."""
    pytest.importorskip("openvino", reason="openvino is not installed: pip install 'handlens[openvino]'")
    exact = logits_of(gguf_file("F32"), prompt, "llama.cpp")[0]
    theirs, ours = (logits_of(gguf_file(quant), prompt, prefill)[0] - exact for prefill in ("llama.cpp", "openvino"))
    assert np.sqrt(np.mean(ours**2)) <= 1.5 * np.sqrt(np.mean(theirs**2))


def test_a_second_question_reads_its_own_words_only(gguf_file: Callable[[str], Path], prompt: Prompt) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed: pip install 'handlens[openvino]'")
    tokens = visual_tokens(prompt)
    other = Prompt(
        ids=np.append(prompt.ids[:-4], [40, 41, 42]), is_visual=np.append(prompt.is_visual[:-4], [False] * 3)
    )
    language = half(gguf_file("Q8_0"), prompt, prefill="openvino")
    language.prefill(prompt, tokens)
    language.step([20, 21], [0, 0])
    second = language.prefill(other, tokens)
    assert language.num_reused == 75
    np.testing.assert_array_equal(half(gguf_file("Q8_0"), prompt, prefill="openvino").prefill(other, tokens), second)


def test_the_layers_are_stored_once(gguf_file: Callable[[str], Path], prompt: Prompt) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed: pip install 'handlens[openvino]'")
    file = gguf_file("Q8_0")
    half(file, prompt, prefill="openvino").prefill(prompt, visual_tokens(prompt))
    layers = openvino_prefill.stored_layers(file)
    stamps = {layer.name: layer.stat().st_mtime_ns for layer in layers.iterdir()}
    assert sorted(stamps) == ["0.bin", "0.xml", "1.bin", "1.xml"]
    half(file, prompt, prefill="openvino").prefill(prompt, visual_tokens(prompt))
    assert {layer.name: layer.stat().st_mtime_ns for layer in layers.iterdir()} == stamps


def test_bad_settings_are_refused(gguf_file: Callable[[str], Path], prompt: Prompt) -> None:
    with pytest.raises(SettingError, match=r"unknown prefill 'openvin'; did you mean 'openvino'"):
        Setup(prefill="openvin")
    with pytest.raises(SettingError, match="kv is q8_0; set kv to f16"):
        half(gguf_file("F32"), prompt, prefill="openvino", kv="q8_0", flash=True)


def test_a_model_with_more_than_a_llama_is_refused(gguf_file: Callable[[str], Path]) -> None:
    header = read_header(gguf_file("F32"))
    openvino_prefill.check_plain(header)
    fact = next(iter(header.tensors.values()))
    wider = Header(values=header.values, tensors=header.tensors | {"blk.0.attn_q.bias": fact})
    with pytest.raises(ModelError, match=r"the tensor blk\.0\.attn_q\.bias; OpenVINO reads prompts of plain Llama"):
        openvino_prefill.check_plain(wider)
    with pytest.raises(ModelError, match="architecture 'qwen2'"):
        openvino_prefill.check_plain(Header(values={"general.architecture": "qwen2"}, tensors=header.tensors))


def test_without_the_package_one_line_says_what_to_install(
    gguf_file: Callable[[str], Path], prompt: Prompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    with pytest.raises(NeedsExtra, match="openvino"):
        half(gguf_file("F32"), prompt, prefill="openvino")
