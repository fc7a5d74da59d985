"""The multimodal path of stock llama.cpp, as the wheel carries it, measured phase by phase.

Boundary: ctypes on the ``mtmd_*`` symbols of the same shared library that our language half uses; runs inside
``measure/child.py``. Nothing of ours helps it: its own slicing, its own vision code, its own batches.
"""

import ctypes
import time
from ctypes import POINTER, byref, c_bool, c_float, c_int32, c_void_p
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from handlens.engine import llama, mtmd
from handlens.errors import ModelError

if TYPE_CHECKING:
    from PIL import Image

BATCH_TOKENS = 2048
"""What llama.cpp's own program hands over at once."""
_SIGNATURES = {
    "mtmd_helper_eval_chunk_single": [
        c_void_p, c_void_p, c_void_p, c_int32, c_int32, c_int32, c_bool, POINTER(c_int32),
    ],
    # Later versions append a callback and its argument; null pointers do no harm where there are none.
    "mtmd_helper_decode_image_chunk": [
        c_void_p, c_void_p, c_void_p, POINTER(c_float), c_int32, c_int32, c_int32, POINTER(c_int32), c_void_p, c_void_p,
    ],
}  # fmt: skip
"""Arguments of what llama.cpp's own program calls beside ``engine.mtmd``; both return a code."""


class StockEngine:
    """Language GGUF and mmproj GGUF, held together as stock llama.cpp does.

    Raises:
        ModelError: a file cannot be loaded, or the library has another layout.
    """

    def __init__(self, language: Path, mmproj: Path, *, threads: int, positions: int, flash: int = -1) -> None:
        self._lib = mtmd.library()
        for name, arguments in _SIGNATURES.items():
            function = getattr(self._lib, name)
            function.restype, function.argtypes = c_int32, arguments
        self._lib.mtmd_helper_log_set.argtypes = [c_void_p, c_void_p]
        self._lib.mtmd_helper_log_set(ctypes.cast(llama._LISTENER, c_void_p), None)
        params = self._lib.mtmd_context_params_default()
        model_params = self._lib.llama_model_default_params()
        model_params.n_gpu_layers = 0
        self._model = self._lib.llama_model_load_from_file(str(language).encode(), model_params)
        if not self._model:
            raise ModelError(f"stock llama.cpp cannot load {language}: {llama.last_complaint()}")
        context = self._lib.llama_context_default_params()
        context.n_ctx = positions
        context.n_batch = BATCH_TOKENS
        context.flash_attn_type = flash
        context.n_threads = context.n_threads_batch = threads
        self._context = self._lib.llama_init_from_model(self._model, context)
        params.use_gpu, params.print_timings, params.warmup = False, False, False  # a warm-up would cost it a slice
        params.n_threads = threads
        self._media = self._lib.mtmd_init_from_file(str(mmproj).encode(), self._model, params)
        if not self._context or not self._media:
            raise ModelError(f"stock llama.cpp cannot load {mmproj}: {llama.last_complaint()}")
        self.vocab_size: int = self._lib.llama_vocab_n_tokens(self._lib.llama_model_get_vocab(self._model))
        self._past = 0

    def read(self, image: "Image.Image", prompt: str) -> dict[str, Any]:
        """Read a prompt with one picture; return seconds per slice, seconds of the rest, and counts."""
        lib = self._lib
        lib.llama_memory_clear(lib.llama_get_memory(self._context), True)
        self._past = 0
        chunks = lib.mtmd_input_chunks_init()
        bitmap = mtmd.make_bitmap(lib, image)
        begin, processor_begin = time.perf_counter(), time.process_time()
        if code := mtmd.cut_prompt(lib, self._media, bitmap, prompt, chunks):
            raise ModelError(f"stock llama.cpp cannot read the prompt (code {code}): {llama.last_complaint()}")
        found: dict[str, Any] = {"slice_seconds": time.perf_counter() - begin, "encode_seconds": [], "tokens": 0}
        found |= {"prefill_seconds": 0.0, "slice_processor": time.process_time() - processor_begin}
        found |= {"encode_processor": 0.0, "prefill_processor": 0.0}
        count = lib.mtmd_input_chunks_size(chunks)
        for number in range(count):
            self._read_chunk(lib.mtmd_input_chunks_get(chunks, number), number == count - 1, found)
        lib.mtmd_bitmap_free(bitmap)
        lib.mtmd_input_chunks_free(chunks)
        return found

    def step(self) -> None:
        """Say the likeliest next token and read it."""
        logits = np.ctypeslib.as_array(self._lib.llama_get_logits_ith(self._context, -1), (self.vocab_size,))
        token = (c_int32 * 1)(int(np.argmax(logits)))
        if self._lib.llama_decode(self._context, llama.Batch(n_tokens=1, token=token)):
            raise ModelError(f"stock llama.cpp stopped: {llama.last_complaint()}")

    def close(self) -> None:
        """Release everything."""
        self._lib.mtmd_free(self._media)
        self._lib.llama_free(self._context)
        self._lib.llama_model_free(self._model)

    def _read_chunk(self, chunk: int, is_last: bool, found: dict[str, Any]) -> None:
        lib, past = self._lib, c_int32(self._past)
        found["tokens"] += lib.mtmd_input_chunk_get_n_tokens(chunk)
        processor_begin = time.process_time()
        if lib.mtmd_input_chunk_get_type(chunk) == mtmd.IMAGE_CHUNK:
            begin = time.perf_counter()
            code = lib.mtmd_encode_chunk(self._media, chunk)
            found["encode_seconds"].append(time.perf_counter() - begin)
            found["encode_processor"] += time.process_time() - processor_begin
            begin, processor_begin = time.perf_counter(), time.process_time()
            code = code or lib.mtmd_helper_decode_image_chunk(
                self._media, self._context, chunk, lib.mtmd_get_output_embd(self._media), self._past, 0, BATCH_TOKENS,
                byref(past), None, None,
            )  # fmt: skip
        else:
            begin = time.perf_counter()
            code = lib.mtmd_helper_eval_chunk_single(
                self._media, self._context, chunk, self._past, 0, BATCH_TOKENS, is_last, byref(past)
            )
        found["prefill_seconds"] += time.perf_counter() - begin
        found["prefill_processor"] += time.process_time() - processor_begin
        if code:
            raise ModelError(
                f"stock llama.cpp cannot read a part of the prompt (code {code}): {llama.last_complaint()}"
            )
        self._past = past.value


def run_stock(job: dict[str, Any], image: "Image.Image", prompt: str, language: Path) -> dict[str, Any]:
    """Return the figures of a job in the form of ``measure/child.py``."""
    from handlens.engine import memory

    found: dict[str, Any] = {"base_bytes": memory.resident_bytes(), "phases": {}}

    def phase(name: str, seconds: float, processor: float) -> None:
        peak = memory.peak_bytes()
        found["phases"][name] = {"seconds": seconds, "processor_seconds": processor, "peak_bytes": peak}

    begin, processor_begin = time.perf_counter(), time.process_time()
    engine = StockEngine(
        language, Path(job["mmproj"]), threads=job["setup"]["decode_threads"], positions=job["positions"]
    )
    phase("load_vision", 0.0, 0.0)
    phase("load_language", time.perf_counter() - begin, time.process_time() - processor_begin)
    read = engine.read(image, prompt)
    phase("slice", read["slice_seconds"], read["slice_processor"])
    phase("encode", sum(read["encode_seconds"]), read["encode_processor"])
    phase("prefill", read["prefill_seconds"], read["prefill_processor"])
    found["encode_seconds"], found["num_slices"] = read["encode_seconds"], len(read["encode_seconds"])
    found["prompt_tokens"], found["step_seconds"] = read["tokens"], []
    begin, processor_begin = time.perf_counter(), time.process_time()
    for _ in range(job["max_tokens"]):
        step = time.perf_counter()
        engine.step()
        found["step_seconds"].append(time.perf_counter() - step)
    phase("decode", time.perf_counter() - begin, time.process_time() - processor_begin)
    found["peak_bytes"] = max(part["peak_bytes"] for part in found["phases"].values())
    engine.close()
    return found
