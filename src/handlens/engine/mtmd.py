"""The vision part of stock llama.cpp: a picture and an ``mmproj`` file in, its visual tokens out.

Boundary: ctypes on the library that ``llama.py`` checked; llama.cpp slices by its own rules, which differ from the
released code for some sizes.
"""

import ctypes
import functools
from collections.abc import Iterator
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int, c_int32, c_size_t, c_ubyte, c_uint32, c_void_p
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from PIL import Image

from handlens.engine import llama
from handlens.engine.cores import count_free_cores
from handlens.engine.gguf_header import read_header
from handlens.errors import ModelError

IMAGE_CHUNK = 1


class MtmdParams(ctypes.Structure):
    """``struct mtmd_context_params``."""

    _fields_ = (
        ("use_gpu", c_bool),
        ("device", c_void_p),
        ("print_timings", c_bool),
        ("n_threads", c_int),
        ("image_marker", c_char_p),
        ("media_marker", c_char_p),
        ("flash_attn_type", c_int),
        ("warmup", c_bool),
        ("image_min_tokens", c_int),
        ("image_max_tokens", c_int),
        ("cb_eval", c_void_p),
        ("cb_eval_user_data", c_void_p),
        ("batch_max_tokens", c_int32),
        ("progress_callback", c_void_p),
        ("progress_callback_user_data", c_void_p),
    )


class InputText(ctypes.Structure):
    """``struct mtmd_input_text``."""

    _fields_ = (("text", c_char_p), ("text_len", c_size_t), ("add_special", c_bool), ("parse_special", c_bool))


MARKER = "<__media__>"
"""Stands in a prompt where llama.cpp puts a picture."""
DEFAULTS = {"use_gpu": True, "device": None, "print_timings": True, "n_threads": 4, "media_marker": MARKER.encode(),
            "flash_attn_type": -1, "warmup": True, "image_min_tokens": -1, "image_max_tokens": -1, "cb_eval": None,
            "batch_max_tokens": 1024, "progress_callback": None}  # fmt: skip
"""Values that the library itself fills in; fields from first to last, so a shifted layout shows."""

_SIGNATURES = {
    "mtmd_context_params_default": (MtmdParams, []),
    "mtmd_init_from_file": (c_void_p, [c_char_p, c_void_p, MtmdParams]),
    "mtmd_free": (None, [c_void_p]),
    "mtmd_bitmap_init": (c_void_p, [c_uint32, c_uint32, POINTER(c_ubyte)]),
    "mtmd_bitmap_free": (None, [c_void_p]),
    "mtmd_input_chunks_init": (c_void_p, []),
    "mtmd_input_chunks_free": (None, [c_void_p]),
    "mtmd_input_chunks_size": (c_size_t, [c_void_p]),
    "mtmd_input_chunks_get": (c_void_p, [c_void_p, c_size_t]),
    "mtmd_input_chunk_get_type": (c_int, [c_void_p]),
    "mtmd_input_chunk_get_n_tokens": (c_size_t, [c_void_p]),
    "mtmd_tokenize": (c_int32, [c_void_p, c_void_p, POINTER(InputText), POINTER(c_void_p), c_size_t]),
    "mtmd_encode_chunk": (c_int32, [c_void_p, c_void_p]),
    "mtmd_get_output_embd": (POINTER(c_float), [c_void_p]),
    "mtmd_log_set": (None, [c_void_p, c_void_p]),
}


@functools.cache
def library() -> ctypes.CDLL:
    """Return the library with the signatures of its vision part.

    Raises:
        ModelError: see ``llama.library``; or the layout differs.
    """
    lib = llama.library()
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    llama.check_layout(lib.mtmd_context_params_default(), DEFAULTS)
    lib.mtmd_log_set(ctypes.cast(llama._LISTENER, c_void_p), None)
    return lib


def make_bitmap(lib: ctypes.CDLL, image: Image.Image) -> int:
    """Return llama.cpp's copy of a picture, to be freed with ``mtmd_bitmap_free``."""
    pixels = np.ascontiguousarray(image.convert("RGB"), dtype=np.uint8)
    bitmap: int = lib.mtmd_bitmap_init(image.width, image.height, pixels.ctypes.data_as(POINTER(c_ubyte)))
    return bitmap


def cut_prompt(lib: ctypes.CDLL, context: int, bitmap: int, prompt: str, chunks: int) -> int:
    """Fill ``chunks`` with the parts of a prompt that shows one picture; return llama.cpp's code, 0 when it could."""
    data = prompt.encode()
    text = InputText(text=data, text_len=len(data), add_special=False, parse_special=True)
    code: int = lib.mtmd_tokenize(context, chunks, ctypes.byref(text), (c_void_p * 1)(bitmap), 1)
    return code


class MtmdVision:
    """Runs an ``mmproj`` file beside the language file that it belongs to.

    Args:
        mmproj: the vision file.
        language: the language file.
        threads: None takes the free cores.

    Raises:
        ModelError: a file is damaged, or the two do not belong together.
    """

    def __init__(self, mmproj: Path, language: Path, *, threads: int | None = None) -> None:
        self._context: int | None = None
        self._model: int | None = None
        check_pair(mmproj, language)
        self._lib = library()
        self._model = self._load(language)
        self.width: int = self._lib.llama_model_n_embd(self._model)
        params = self._lib.mtmd_context_params_default()
        params.use_gpu = params.print_timings = params.warmup = False
        params.n_threads = threads or count_free_cores()
        params.flash_attn_type = llama.FLASH_ATTENTION_OFF
        llama.complaints.clear()
        self._context = self._lib.mtmd_init_from_file(str(mmproj).encode(), self._model, params)
        if not self._context:
            self.close()
            raise ModelError(f"llama.cpp cannot see with {mmproj}: {llama.last_complaint()}; export the model again")

    def _load(self, language: Path) -> int:
        params = self._lib.llama_model_default_params()
        params.n_gpu_layers, params.no_alloc = 0, False
        llama.complaints.clear()
        model = self._lib.llama_model_load_from_file(str(language).encode(), params)
        if not model:
            raise ModelError(f"cannot load {language}: {llama.last_complaint()}; export the model again")
        return model

    def encode(self, image: Image.Image) -> list[Float32[np.ndarray, "queries dim"]]:
        """Return the visual tokens of every slice of a picture, in the order of llama.cpp: overview first."""
        assert self._context
        bitmap = make_bitmap(self._lib, image)
        chunks = self._lib.mtmd_input_chunks_init()
        try:
            if code := cut_prompt(self._lib, self._context, bitmap, MARKER, chunks):
                raise ModelError(f"llama.cpp cannot slice a picture of {image.width}x{image.height} px: code {code}")
            return [self._encode_chunk(chunk) for chunk in self._image_chunks(chunks)]
        finally:
            self._lib.mtmd_input_chunks_free(chunks)
            self._lib.mtmd_bitmap_free(bitmap)

    def _image_chunks(self, chunks: int) -> Iterator[int]:
        for place in range(self._lib.mtmd_input_chunks_size(chunks)):
            chunk = self._lib.mtmd_input_chunks_get(chunks, place)
            if self._lib.mtmd_input_chunk_get_type(chunk) == IMAGE_CHUNK:
                yield chunk

    def _encode_chunk(self, chunk: int) -> np.ndarray:
        llama.complaints.clear()
        if code := self._lib.mtmd_encode_chunk(self._context, chunk):
            raise ModelError(f"llama.cpp stopped with code {code} while it saw: {llama.last_complaint()}")
        count = self._lib.mtmd_input_chunk_get_n_tokens(chunk)
        return np.ctypeslib.as_array(self._lib.mtmd_get_output_embd(self._context), (count, self.width)).copy()

    def close(self) -> None:
        """Release the weights."""
        if self._context:
            self._lib.mtmd_free(self._context)
        if self._model:
            self._lib.llama_model_free(self._model)
        self._context = self._model = None

    def __del__(self) -> None:
        self.close()


def check_pair(mmproj: Path, language: Path) -> None:
    """Read both headers and see that one file sees for the other; nothing is computed.

    Raises:
        ModelError: a file is missing, cut or of the wrong kind, or the widths differ.
    """
    for file in (mmproj, language):
        if not file.is_file():
            raise ModelError(
                f"{file} is missing; a GGUF model is a language file and an mmproj file; export them again"
            )
    vision, text = read_header(mmproj), read_header(language)
    if vision.architecture != "clip":
        raise ModelError(f"{mmproj} holds a model of kind '{vision.architecture}'; an mmproj file ('clip') is needed")
    if text.architecture == "clip":
        raise ModelError(f"{language} is an mmproj file; the file of a language model is needed")
    if "resampler.proj.weight" not in vision.tensors:
        raise ModelError(f"{mmproj} has no resampler; it is not the vision part of MiniCPM-V 2.5 to 4.5")
    sees, reads = vision.tensors["resampler.proj.weight"].shape[0], text.number("embedding_length")
    if sees != reads:
        raise ModelError(
            f"{mmproj} makes visual tokens of width {sees}, {language} reads width {reads}; "
            "they belong to different models; take both from one export"
        )
