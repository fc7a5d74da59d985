"""Record what llama.cpp's own quantiser makes of the models of ``tiny.py``.

python benchmarks/record_quantised.py --library libquantise.so

The wheel does not export ``llama_model_quantize``. Its source is one file of the source distribution of that version;
built as a library that finds everything else in the wheel, it is llama.cpp's code and the wheel's arithmetic:

    pip download --no-deps --no-binary :all: xllamacpp==2026.10.11549 && tar xf xllamacpp-*.tar.gz
    cd xllamacpp-*/thirdparty/llama.cpp
    g++ -shared -fPIC -O2 -std=c++17 -D_GLIBCXX_USE_CXX11_ABI=0 -I include -I ggml/include -I src -I common
        src/llama-quant.cpp -o libquantise.so
"""

import argparse
import ctypes
import json
import sys
import tempfile
from collections.abc import Mapping
from ctypes import POINTER, byref, c_bool, c_char_p, c_float, c_int, c_int32, c_size_t, c_uint32, c_void_p
from pathlib import Path

import numpy as np

from handlens.engine import llama
from handlens.export.gguf import write_gguf
from handlens.export.mixes import MIXES

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))
from tests.export.tiny import SHAPES, summary, tiny_importance, tiny_shape, tiny_weights  # noqa: E402

RECORD = ROOT / "tests" / "export" / "data" / "llama_quantize.json"


class Entry(ctypes.Structure):
    """``struct llama_model_imatrix_data``."""

    _fields_ = (("name", c_char_p), ("data", POINTER(c_float)), ("size", c_size_t))


class Params(ctypes.Structure):
    """``struct llama_model_quantize_params``."""

    _fields_ = (
        ("nthread", c_int32), ("ftype", c_int), ("output_tensor_type", c_int), ("token_embedding_type", c_int),
        ("allow_requantize", c_bool), ("quantize_output_tensor", c_bool), ("only_copy", c_bool), ("pure", c_bool),
        ("keep_split", c_bool), ("dry_run", c_bool), ("imatrix", c_void_p), ("kv_overrides", c_void_p),
        ("tt_overrides", c_void_p), ("prune_layers", c_void_p), ("max_buf_size", c_size_t),
    )  # fmt: skip


def open_library(file: Path) -> ctypes.CDLL:
    """Return the library; the wheel has to be there first, because it holds all else."""
    ctypes.CDLL(str(llama.library_file()), mode=ctypes.RTLD_GLOBAL)
    llama.library()
    lib = ctypes.CDLL(str(file.resolve()), mode=ctypes.RTLD_GLOBAL)
    lib.llama_model_quantize_default_params.restype = Params
    lib.llama_model_quantize.argtypes = [c_char_p, c_char_p, POINTER(Params)]
    lib.llama_model_quantize.restype = c_uint32
    return lib


def quantise(lib: ctypes.CDLL, source: Path, out: Path, number: int, sums: Mapping[str, np.ndarray]) -> None:
    """Let llama.cpp write ``out``."""
    params = lib.llama_model_quantize_default_params()
    params.ftype, params.nthread = number, 1
    entries = (Entry * (len(sums) + 1))()
    for place, (name, values) in enumerate(sums.items()):
        entries[place] = Entry(name.encode(), values.ctypes.data_as(POINTER(c_float)), values.size)
    if sums:
        params.imatrix = ctypes.cast(entries, c_void_p)
    code = lib.llama_model_quantize(str(source).encode(), str(out).encode(), byref(params))
    assert code == 0, llama.last_complaint()


def main() -> None:
    """Write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=Path, required=True)
    lib = open_library(parser.parse_args().library)
    found: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "source.gguf", Path(folder) / "out.gguf"
        for name in SHAPES:
            shape = tiny_shape(name)
            write_gguf(tiny_weights(shape), shape, None, source, quant="F32")
            for quant, mix in MIXES.items():
                for ending, sums in (("", {}), (" weighted", tiny_importance(shape).sums)):
                    quantise(lib, source, out, mix.number, sums)
                    found.setdefault(name, {})[quant + ending] = summary(out)
    RECORD.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
