"""The C interface of llama.cpp, called with ctypes in the shared library of the ``xllamacpp`` wheel.

Boundary: pointers and numpy arrays; knows no prompt and no picture. The struct layouts below belong to one
version of the wheel, so another version is refused before anything is called.
"""

import ctypes
import functools
import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections import deque
from collections.abc import Mapping
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int, c_int8, c_int32, c_int64, c_size_t, c_uint32, c_void_p
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from handlens.errors import ModelError, SettingError

XLLAMACPP_VERSION = "2026.10.11549"
"""The wheel whose ``llama.h`` the layouts follow; ``pyproject.toml`` pins the same."""

GGML_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q4_K": 12, "Q5_K": 13,
              "Q6_K": 14, "BF16": 30}  # fmt: skip
"""Numbers of ``enum ggml_type``."""
ROW_BLOCKS = {"Q4_0": (32, 18), "Q4_1": (32, 20), "Q5_0": (32, 22), "Q5_1": (32, 24), "Q8_0": (32, 34),
              "Q4_K": (256, 144), "Q5_K": (256, 176), "Q6_K": (256, 210)}  # fmt: skip
"""Values per block and bytes per block of the quantised types."""

NEEDED_FLAGS = frozenset({"avx", "avx2", "fma", "f16c"})
"""Instruction sets that the x86-64 wheel was built for, as Linux names them."""

FLASH_ATTENTION_OFF, FLASH_ATTENTION_ON = 0, 1
LOAD_COPIED, LOAD_MAPPED = 0, 1
"""Values of ``enum llama_load_mode``: the weights are read into memory, or the file is mapped."""
LOG_WARN, LOG_ERROR, LOG_CONTINUED = 3, 4, 5


class ModelParams(ctypes.Structure):
    """``struct llama_model_params``."""

    _fields_ = (
        ("devices", c_void_p),
        ("tensor_buft_overrides", c_void_p),
        ("n_gpu_layers", c_int32),
        ("split_mode", c_int),
        ("load_mode", c_int),
        ("lazy_mode", c_int),
        ("main_gpu", c_int32),
        ("tensor_split", c_void_p),
        ("progress_callback", c_void_p),
        ("progress_callback_user_data", c_void_p),
        ("kv_overrides", c_void_p),
        ("vocab_only", c_bool),
        ("check_tensors", c_bool),
        ("use_extra_bufts", c_bool),
        ("no_host", c_bool),
        ("no_alloc", c_bool),
        ("load_mtp", c_bool),
    )


class ContextParams(ctypes.Structure):
    """``struct llama_context_params``."""

    _fields_ = (
        ("n_ctx", c_uint32),
        ("n_batch", c_uint32),
        ("n_ubatch", c_uint32),
        ("n_seq_max", c_uint32),
        ("n_rs_seq", c_uint32),
        ("n_outputs_max", c_uint32),
        ("n_outputs_max_per_seq", c_uint32),
        ("n_threads", c_int32),
        ("n_threads_batch", c_int32),
        ("ctx_type", c_int),
        ("rope_scaling_type", c_int),
        ("pooling_type", c_int),
        ("attention_type", c_int),
        ("flash_attn_type", c_int),
        ("rope_freq_base", c_float),
        ("rope_freq_scale", c_float),
        ("yarn_ext_factor", c_float),
        ("yarn_attn_factor", c_float),
        ("yarn_beta_fast", c_float),
        ("yarn_beta_slow", c_float),
        ("yarn_orig_ctx", c_uint32),
        ("defrag_thold", c_float),
        ("cb_eval", c_void_p),
        ("cb_eval_user_data", c_void_p),
        ("type_k", c_int),
        ("type_v", c_int),
        ("moe_cache_size", c_size_t),
        ("abort_callback", c_void_p),
        ("abort_callback_data", c_void_p),
        ("embeddings", c_bool),
        ("offload_kqv", c_bool),
        ("no_perf", c_bool),
        ("op_offload", c_bool),
        ("swa_full", c_bool),
        ("kv_unified", c_bool),
        ("samplers", c_void_p),
        ("n_samplers", c_size_t),
        ("ctx_other", c_void_p),
    )


class Batch(ctypes.Structure):
    """``struct llama_batch``: either ``token`` or ``embd`` is set."""

    _fields_ = (
        ("n_tokens", c_int32),
        ("token", POINTER(c_int32)),
        ("embd", POINTER(c_float)),
        ("pos", POINTER(c_int32)),
        ("n_seq_id", POINTER(c_int32)),
        ("seq_id", POINTER(POINTER(c_int32))),
        ("logits", POINTER(c_int8)),
    )


class TypeTraits(ctypes.Structure):
    """``struct ggml_type_traits``, as far as it is read here."""

    _fields_ = (
        ("type_name", c_char_p),
        ("blck_size", c_int64),
        ("blck_size_interleave", c_int64),
        ("type_size", c_size_t),
        ("is_quantized", c_bool),
        ("to_float", c_void_p),
    )


MODEL_DEFAULTS = {"n_gpu_layers": -1, "split_mode": 1, "load_mode": -1, "lazy_mode": 1, "use_extra_bufts": True,
                  "vocab_only": False, "no_alloc": False, "load_mtp": False}  # fmt: skip
CONTEXT_DEFAULTS = {"n_ctx": 512, "n_batch": 2048, "n_ubatch": 512, "n_seq_max": 1, "n_outputs_max_per_seq": 1,
                    "pooling_type": -1, "flash_attn_type": -1, "yarn_ext_factor": -1.0, "defrag_thold": -1.0,
                    "type_k": 1, "type_v": 1, "embeddings": False, "offload_kqv": True, "no_perf": True,
                    "op_offload": True, "swa_full": True, "kv_unified": False, "ctx_other": None}  # fmt: skip
"""Values that the library itself fills in; fields from first to last, so a shifted layout shows."""

_LOG_CALLBACK = ctypes.CFUNCTYPE(None, c_int, c_char_p, c_void_p)
_SIGNATURES = {
    "llama_backend_init": (None, []),
    "llama_model_default_params": (ModelParams, []),
    "llama_context_default_params": (ContextParams, []),
    "llama_model_load_from_file": (c_void_p, [c_char_p, ModelParams]),
    "llama_model_free": (None, [c_void_p]),
    "llama_init_from_model": (c_void_p, [c_void_p, ContextParams]),
    "llama_free": (None, [c_void_p]),
    "llama_model_get_vocab": (c_void_p, [c_void_p]),
    "llama_vocab_n_tokens": (c_int32, [c_void_p]),
    "llama_model_n_embd": (c_int32, [c_void_p]),
    "llama_model_ftype": (c_int, [c_void_p]),
    "llama_model_n_ctx_train": (c_int32, [c_void_p]),
    "llama_model_meta_val_str": (c_int32, [c_void_p, c_char_p, c_char_p, c_size_t]),
    "llama_n_ctx": (c_uint32, [c_void_p]),
    "llama_set_n_threads": (None, [c_void_p, c_int32, c_int32]),
    "llama_get_memory": (c_void_p, [c_void_p]),
    "llama_memory_clear": (None, [c_void_p, c_bool]),
    "llama_memory_seq_cp": (None, [c_void_p, c_int32, c_int32, c_int32, c_int32]),
    "llama_memory_seq_rm": (c_bool, [c_void_p, c_int32, c_int32, c_int32]),
    "llama_state_seq_set_data": (c_size_t, [c_void_p, c_char_p, c_size_t, c_int32]),
    "llama_state_seq_get_size": (c_size_t, [c_void_p, c_int32]),
    "llama_state_seq_get_data": (c_size_t, [c_void_p, c_void_p, c_size_t, c_int32]),
    "llama_decode": (c_int32, [c_void_p, Batch]),
    "llama_get_logits_ith": (POINTER(c_float), [c_void_p, c_int32]),
    "llama_tokenize": (c_int32, [c_void_p, c_char_p, c_int32, POINTER(c_int32), c_int32, c_bool, c_bool]),
    "llama_log_set": (None, [_LOG_CALLBACK, c_void_p]),
    "ggml_log_set": (None, [_LOG_CALLBACK, c_void_p]),
    "ggml_get_type_traits": (POINTER(TypeTraits), [c_int]),
    "ggml_quantize_chunk": (
        c_size_t,
        [c_int, POINTER(c_float), c_void_p, c_int64, c_int64, c_int64, POINTER(c_float)],
    ),
}

complaints: deque[str] = deque(maxlen=20)
"""The latest warnings and errors of the library; its log goes nowhere else unless HANDLENS_DEBUG=1."""


def _listen(level: int, text: bytes, _: object) -> None:
    line = text.decode("utf-8", "replace")
    if os.environ.get("HANDLENS_DEBUG") == "1":
        sys.stderr.write(line)
    if level in (LOG_WARN, LOG_ERROR) and line.strip():
        complaints.append(line.strip())


_LISTENER = _LOG_CALLBACK(_listen)
"""Held here, because the library keeps only a pointer."""


@functools.cache
def library() -> ctypes.CDLL:
    """Return the loaded library with checked layouts.

    Raises:
        ModelError: the wheel is missing, has another version, was built for another layout, or this processor
            lacks instructions that it was built for.
    """
    check_instructions(processor_flags())
    lib = ctypes.CDLL(str(library_file()))
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    lib.llama_log_set(_LISTENER, None)
    lib.ggml_log_set(_LISTENER, None)
    check_layout(lib.llama_model_default_params(), MODEL_DEFAULTS)
    check_layout(lib.llama_context_default_params(), CONTEXT_DEFAULTS)
    lib.llama_backend_init()
    return lib


def check_instructions(flags: frozenset[str] | None) -> None:
    """Raise ``ModelError`` where the wheel would die of an illegal instruction; None is an unknown processor.

    >>> check_instructions(frozenset({"avx", "avx2", "fma", "f16c"}))
    """
    missing = sorted(NEEDED_FLAGS - flags) if flags is not None else []
    if missing:
        raise ModelError(
            f"this processor lacks {', '.join(missing)}, which the prebuilt xllamacpp wheel needs; use a newer "
            "processor, or build xllamacpp from source on this machine: pip install --no-binary xllamacpp "
            f"xllamacpp=={XLLAMACPP_VERSION}, and set HANDLENS_NATIVE=1"
        )


def processor_flags() -> frozenset[str] | None:
    """Return the instruction sets of this processor; None where they are not known or need no check."""
    if platform.machine().lower() not in ("x86_64", "amd64") or os.environ.get("HANDLENS_NATIVE") == "1":
        return None
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), None)
    return frozenset(flags) if flags else None


def library_file() -> Path:
    """Return the shared library of the installed wheel.

    Raises:
        ModelError: the wheel is missing or has another version.
    """
    advice = f"pip install xllamacpp=={XLLAMACPP_VERSION}"
    try:
        version = importlib.metadata.version("xllamacpp")
    except importlib.metadata.PackageNotFoundError:
        raise ModelError(f"xllamacpp, which runs the language half, is not installed; {advice}") from None
    if version != XLLAMACPP_VERSION:
        raise ModelError(f"xllamacpp {version} is installed; this release calls {XLLAMACPP_VERSION} only; {advice}")
    spec = importlib.util.find_spec("xllamacpp")  # finding does not import it: its Python side is not needed
    folders = list(spec.submodule_search_locations or []) if spec else []
    files = [
        file for folder in folders for suffix in (".so", ".pyd") for file in Path(folder).glob(f"xllamacpp*{suffix}")
    ]
    if not files:
        raise ModelError(f"xllamacpp {version} has no shared library in {folders}; {advice} --force-reinstall")
    return files[0]


def check_layout(params: ctypes.Structure, expected: Mapping[str, object]) -> None:
    """Raise ``ModelError`` unless the library's own defaults appear in the fields where they belong."""
    for name, value in expected.items():
        found = getattr(params, name)
        if found != value:
            raise ModelError(
                f"xllamacpp {XLLAMACPP_VERSION} on this machine has {type(params).__name__}.{name} = {found}; "
                f"{value} is needed; its struct layout differs, so it cannot be used here; please report this"
            )


def last_complaint() -> str:
    """Return what the library said last about something that failed; a cause counts more than what follows from it."""
    causes = [line for line in complaints if "error loading" in line]
    return (causes or list(complaints) or ["llama.cpp gave no reason"])[-1]


def quantise_rows(
    values: Float32[np.ndarray, "rows columns"],
    kind: str,
    importance: Float32[np.ndarray, "columns"] | None = None,
) -> UInt8[np.ndarray, "rows bytes"]:
    """Return the rows in blocks of a quantised type, computed by the library that will read them.

    ``importance`` says how much an error of each column counts.

    Raises:
        SettingError: the row length is not a multiple of the block.
    """
    rows, columns = values.shape
    block, size = ROW_BLOCKS[kind]
    if columns % block:
        raise SettingError(f"rows of {columns} values cannot become {kind}; a multiple of {block} is needed")
    source = np.ascontiguousarray(values, dtype=np.float32)
    weights = None if importance is None else np.ascontiguousarray(importance)
    out = np.empty((rows, columns // block * size), dtype=np.uint8)
    written = library().ggml_quantize_chunk(
        GGML_TYPES[kind],
        source.ctypes.data_as(POINTER(c_float)),
        out.ctypes.data,
        0,
        rows,
        columns,
        None if weights is None else weights.ctypes.data_as(POINTER(c_float)),
    )
    assert written == out.nbytes, f"{kind}: {written} bytes written, {out.nbytes} expected"
    return out


def dequantise_rows(
    data: UInt8[np.ndarray, "rows bytes"], kind: int, columns: int
) -> Float32[np.ndarray, "rows {columns}"]:
    """Return stored rows as numbers; ``kind`` is a number of ``enum ggml_type``."""
    data = np.ascontiguousarray(data)
    if kind == GGML_TYPES["F32"]:
        return data.view(np.float32)
    traits = library().ggml_get_type_traits(kind).contents
    assert columns // traits.blck_size * traits.type_size == data.shape[1], "bytes of a row"
    convert = ctypes.CFUNCTYPE(None, c_void_p, c_void_p, c_int64)(traits.to_float)
    out = np.empty((len(data), columns), dtype=np.float32)
    convert(data.ctypes.data, out.ctypes.data, out.size)
    return out


def tokenise(model: int, text: str) -> list[int]:
    """Return the ids that llama.cpp's own tokeniser gives; special tokens in the text are recognised."""
    lib = library()
    data = text.encode()
    ids = (c_int32 * (len(data) + 8))()
    count = lib.llama_tokenize(lib.llama_model_get_vocab(model), data, len(data), ids, len(ids), False, True)
    assert count >= 0, "more ids than bytes"
    return list(ids[:count])
