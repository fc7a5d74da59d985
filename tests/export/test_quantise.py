"""Fewer bits as llama.cpp gives them: types, sizes and bytes of its own quantiser.

``benchmarks/record_quantised.py`` recorded them.
"""

import json
import platform
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
from tests.export.tiny import SHAPES, summary, tiny_importance, tiny_shape, tiny_weights

from handlens.errors import ModelError, SettingError
from handlens.export.gguf import write_gguf
from handlens.export.importance import Importance, read_importance, write_importance
from handlens.export.mixes import MIXES, Stack, choose_kind
from handlens.export.quantise import describe, quantise_gguf
from handlens.export.stream import Planned, encode

RECORD = json.loads((Path(__file__).parent / "data" / "llama_quantize.json").read_text(encoding="utf-8"))
QUICK = (
    *((name, "Q4_K_M") for name in SHAPES),
    ("llama-8-layers-tied", "Q4_0 weighted"), ("llama-8-layers-tied", "Q4_K_M weighted"),
    ("llama-9-layers", "BF16"), ("llama-9-layers", "F16"), ("llama-9-layers", "Q4_0"),
    ("qwen2-17-layers-480", "Q5_K_M"), ("qwen3-3-layers-tied-128", "Q6_K"), ("qwen3-3-layers-tied-128", "Q4_0"),
    ("minicpm-5-layers-192", "Q8_0"), ("minicpm-5-layers-192", "Q5_K_M weighted"),
)  # fmt: skip
SAME_ARITHMETIC = platform.machine().lower() in ("x86_64", "amd64")
"""Recorded bytes are those of the x86-64 wheel; elsewhere a sum may be rounded in another order."""


def check(name: str, wanted: str, folder: Path) -> Path:
    """Write one model with our writer and compare it with what llama.cpp made."""
    quant, _, weighted = wanted.partition(" ")
    shape = tiny_shape(name)
    importance = tiny_importance(shape) if weighted else None
    out = write_gguf(tiny_weights(shape), shape, None, folder / "a.gguf", quant=quant, importance=importance)
    found, expected = summary(out), dict(RECORD[name][wanted])
    if not SAME_ARITHMETIC:
        found.pop("sha256"), expected.pop("sha256")
    assert found == expected
    return out


@pytest.mark.parametrize(("name", "wanted"), QUICK)
def test_types_sizes_and_bytes_are_those_of_llama_quantize(name: str, wanted: str, tmp_path: Path) -> None:
    check(name, wanted, tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", SHAPES)
def test_every_recorded_mix_is_equal(name: str, tmp_path: Path) -> None:
    assert len(RECORD[name]) == 2 * len(MIXES)
    for wanted in RECORD[name]:
        check(name, wanted, tmp_path)


@pytest.mark.parametrize("floats", ["F32", "F16", "BF16"])
def test_a_gguf_file_becomes_what_its_weights_become(floats: str, tmp_path: Path) -> None:
    shape = tiny_shape("minicpm-5-layers-192")
    weights = tiny_weights(shape)
    source = write_gguf(weights, shape, None, tmp_path / "source.gguf", quant=floats, name="tiny")
    narrow = {"F16": np.float16, "F32": np.float32}.get(floats)
    if floats == "BF16":  # what is left of a number after its last 16 bits are rounded away
        bits = {name: gguf.quants.quantize(values, gguf.GGMLQuantizationType.BF16) for name, values in weights.items()}
        kept = {name: gguf.quants.dequantize(part, gguf.GGMLQuantizationType.BF16) for name, part in bits.items()}
    else:
        kept = {name: values.astype(narrow).astype(np.float32) for name, values in weights.items()}
    rounded = {name: kept[name] if values.ndim > 1 else values for name, values in weights.items()}
    importance = tiny_importance(shape)
    direct = write_gguf(
        rounded, shape, None, tmp_path / "direct.gguf", quant="Q5_K_M", name="tiny", importance=importance
    )
    out = quantise_gguf(source, tmp_path / "out.gguf", quant="Q5_K_M", importance=importance)
    assert summary(out) == summary(direct)
    ours, theirs = (
        {name: field.contents() for name, field in gguf.GGUFReader(file).fields.items()} for file in (out, direct)
    )
    assert ours == theirs and ours["quantize.imatrix.dataset"] == "drawn"


def test_what_a_file_is_made_of_is_told(tmp_path: Path) -> None:
    shape = tiny_shape("minicpm-5-layers-192")
    stored = describe(write_gguf(tiny_weights(shape), shape, None, tmp_path / "a.gguf", quant="Q4_K_M"))
    # Rows of 192 and 320 fill no block of 256: Q4_K becomes Q5_0 (5.5 bits), Q6_K becomes Q8_0 (8.5 bits).
    assert set(stored.kinds) == {"F32", "Q5_0", "Q8_0"} and stored.fallbacks == {}
    assert 5.5 < stored.bits_per_weight < 8.5 and stored.num_bytes == (tmp_path / "a.gguf").stat().st_size
    shape = tiny_shape("qwen3-3-layers-tied-128")
    stored = describe(write_gguf(tiny_weights(shape), shape, None, tmp_path / "b.gguf", quant="Q4_K_M"))
    assert stored.fallbacks["blk.0.attn_q.weight"] == "Q5_0" and "blk.0.ffn_down.weight" not in stored.fallbacks


def test_rows_that_fill_no_block_of_32_stay_in_16_bits() -> None:
    stack = Stack(num_layers=2, is_tied=False)
    assert {choose_kind("blk.0.attn_q.weight", (8, 40), mix, stack) for mix in MIXES.values()} == {"F32", "F16", "BF16"}


# ---- memory ----------------------------------------------------------------------------------------------------------


def test_only_some_rows_are_asked_for_at_a_time() -> None:
    class Endless:
        """A matrix of 40 GB that exists nowhere."""

        shape = (2_000_000, 5_120)
        largest = 0

        def __getitem__(self, rows: slice) -> np.ndarray:
            count = len(range(*rows.indices(self.shape[0])))
            self.largest = max(self.largest, count)
            return np.zeros((count, 5_120), dtype=np.float32)

    rows = Endless()
    parts = encode(Planned("token_embd.weight", rows.shape, "Q4_K", lambda: rows))
    for _ in range(2):
        assert next(parts).nbytes == rows.largest * 5_120 // 256 * 144
    assert rows.largest * 5_120 * 4 <= 1 << 24


WHOLE = """
import json, sys
from pathlib import Path
from handlens.config import LanguageConfig
from handlens.engine.memory import peak_bytes
from handlens.export.gguf import write_gguf, tensor_names
from handlens.export.tensor_file import StoredRows, TensorFolder
folder, layers = Path(sys.argv[1]), int(sys.argv[2])
shape = LanguageConfig(kind="llama", vocab_size=128256, width=4096, mlp_width=14336, num_layers=layers, num_heads=32,
                       num_kv_heads=8, max_positions=8192)
fields, begin = {}, 0
for _, name, size in tensor_names(shape):
    count = 2
    for side in size:
        count *= side
    fields["llm." + name] = {"dtype": "BF16", "shape": list(size), "data_offsets": [begin, begin + count]}
    begin += count
header = json.dumps(fields).encode()
with (folder / "model.safetensors").open("wb") as stream:
    stream.write(len(header).to_bytes(8, "little") + header)
    stream.truncate(8 + len(header) + begin)  # zeros that take no room on the disk
out = write_gguf(StoredRows(TensorFolder.open(folder), "llm."), shape, None, folder / "out.gguf", quant=sys.argv[3])
print(begin, out.stat().st_size, peak_bytes())
"""


@pytest.mark.soak
@pytest.mark.timeout(3000)
def test_a_model_of_8b_width_is_converted_in_little_memory(tmp_path: Path) -> None:
    # Three layers and both large matrices of 8B: a deeper model repeats what is here.
    done = subprocess.run(
        [sys.executable, "-c", WHOLE, str(tmp_path), "3", "Q4_K_M"], capture_output=True, text=True, timeout=2800,
        cwd=Path(__file__).parents[2] / "src", check=True,
    )  # fmt: skip
    read, written, peak = map(int, done.stdout.split())
    assert read > 3e9 and written > 0.8e9 and peak < 1 << 30, (read, written, peak)


# ---- the importance matrix -------------------------------------------------------------------------------------------


def test_an_importance_matrix_is_read_as_it_was_written(tmp_path: Path) -> None:
    sums = {"blk.0.attn_q.weight": np.array([8.0, 2.0], np.float32), "blk.0.ffn_up.weight": np.ones(3, np.float32)}
    first = Importance(
        sums=sums, counts={"blk.0.attn_q.weight": 4.0, "blk.0.ffn_up.weight": 0.0}, dataset="text", chunks=2
    )
    read = read_importance(write_importance(first, tmp_path / "i.gguf", chunk_tokens=512))
    assert (read.dataset, read.chunks, read.file) == ("text", 2, "i.gguf")
    weights = read.of("blk.0.attn_q.weight", (5, 2))
    assert weights is not None and weights.tolist() == [2.0, 0.5]
    # Nothing was counted, so all columns count alike.
    unseen = read.of("blk.0.ffn_up.weight", (5, 3))
    assert unseen is not None and unseen.tolist() == [1.0, 1.0, 1.0]
    assert read.of("output.weight", (5, 2)) is None and read.of("blk.0.attn_norm.weight", (2,)) is None


def test_weighted_rounding_is_closer_where_it_counts(tmp_path: Path) -> None:
    shape = tiny_shape("qwen3-3-layers-tied-128")
    weights = tiny_weights(shape)
    importance = tiny_importance(shape)
    gaps = []
    for given in (None, importance):
        out = write_gguf(weights, shape, None, tmp_path / "a.gguf", quant="Q4_K_M", importance=given)
        stored = next(part for part in gguf.GGUFReader(out).tensors if part.name == "blk.1.ffn_up.weight")
        back = gguf.quants.dequantize(stored.data, stored.tensor_type)
        counts = importance.of("blk.1.ffn_up.weight", (1, shape.width))
        gaps.append(float((np.square(back - weights["model.layers.1.mlp.up_proj.weight"]) * counts).sum()))
    assert gaps[1] < 0.98 * gaps[0]


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def coarse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shape = tiny_shape("qwen3-3-layers-tied-128")
    return write_gguf(tiny_weights(shape), shape, None, tmp_path_factory.mktemp("c") / "c.gguf", quant="Q8_0")


def test_few_bits_are_rounded_again_only_where_asked(coarse: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"c.gguf is stored in Q8_0 already, .* or give --requantise"):
        quantise_gguf(coarse, tmp_path / "a.gguf", quant="Q4_K_M")
    out = quantise_gguf(coarse, tmp_path / "a.gguf", quant="Q4_K_M", again=True)
    assert describe(out).kinds == RECORD["qwen3-3-layers-tied-128"]["Q4_K_M"]["kinds"]


def test_wrong_sources_are_one_line(coarse: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="unknown quantisation 'Q4'"):
        quantise_gguf(coarse, tmp_path / "a", quant="Q4")
    with pytest.raises(SettingError, match="is the file that is read"):
        quantise_gguf(coarse, coarse, quant="Q8_0", again=True)
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(coarse.read_bytes()[:-64])
    with pytest.raises(ModelError, match="it is damaged"):
        quantise_gguf(cut, tmp_path / "a", quant="Q8_0")
    other = tmp_path / "clip.gguf"
    writer = gguf.GGUFWriter(other, "clip")
    writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_ti_data_to_file(), writer.close()
    with pytest.raises(ModelError, match="is a GGUF of kind 'clip'"):
        quantise_gguf(other, tmp_path / "a", quant="Q8_0")
    with pytest.raises(ModelError, match="holds no importance matrix"):
        read_importance(coarse)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["clip.gguf", "cut.gguf"]


def test_an_importance_matrix_of_another_model_is_refused(tmp_path: Path) -> None:
    shape = tiny_shape("llama-9-layers")
    importance = tiny_importance(tiny_shape("minicpm-5-layers-192"))
    with pytest.raises(ModelError, match=r"has 192 columns, the matrix has 256; .* was measured on another model"):
        write_gguf(tiny_weights(shape), shape, None, tmp_path / "a.gguf", quant="Q4_0", importance=importance)


@pytest.mark.parametrize(
    ("value", "quant", "message"),
    [
        (np.nan, "Q4_K_M", "attn_q.weight holds values that are not numbers"),
        (np.inf, "F16", "attn_q.weight holds values that are not numbers"),
        (70_000.0, "F16", "attn_q.weight holds 70000, beyond the 65504 of F16; take --quant BF16"),
    ],
)
def test_values_without_a_place_are_refused(value: float, quant: str, message: str, tmp_path: Path) -> None:
    shape = tiny_shape("qwen3-3-layers-tied-128")
    weights = tiny_weights(shape)
    weights["model.layers.1.self_attn.q_proj.weight"][2, 3] = value
    with pytest.raises(ModelError, match=message):
        write_gguf(weights, shape, None, tmp_path / "a.gguf", quant=quant)
    assert not list(tmp_path.iterdir())
