"""The language half on llama.cpp: a prompt with visual tokens in, logits out, one step at a time.

Boundary: one GGUF file and numpy; choosing tokens is ``core/sampling.py``.
"""

import ctypes
import itertools
from collections.abc import Iterator, Sequence
from ctypes import POINTER, c_float, c_int8, c_int32
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from handlens.core.prompt import Prompt
from handlens.engine import llama
from handlens.engine.cores import count_free_cores
from handlens.engine.room import Room
from handlens.errors import ModelError, SettingError

BATCH_TOKENS = 512
"""Prompt tokens that are computed at once."""
CELLS_STEP = 256
"""llama.cpp counts its cache in steps of this many positions."""
MAX_BEAMS = 32


class LlamaCppLanguage:
    """Runs a GGUF file; one conversation at a time.

    Args:
        file: the GGUF file.
        room: how much the cache must hold.
        threads: None takes the free cores.
        exact: keep keys and values in 32 bits; None does so where the weights are F32.

    Raises:
        ModelError: the file is damaged or of a kind that llama.cpp does not know.
        SettingError: ``room`` is more than the model was made for.
    """

    def __init__(self, file: Path, room: Room, *, threads: int | None = None, exact: bool | None = None) -> None:
        self._model = self._context = None
        self._lib = llama.library()
        self._room = room
        self._model = self._load(file)
        self.vocab_size: int = self._lib.llama_vocab_n_tokens(self._lib.llama_model_get_vocab(self._model))
        self.width: int = self._lib.llama_model_n_embd(self._model)
        self._check_room()
        is_f32 = self._lib.llama_model_ftype(self._model) == 0
        self._context = self._open_context(threads or count_free_cores(), is_f32 if exact is None else exact)
        self._memory = self._lib.llama_get_memory(self._context)
        self._sequences = [0]
        self._length = 0

    def prefill(self, prompt: Prompt, visual_tokens: Float32[np.ndarray, "visual dim"]) -> Float32[np.ndarray, "vocab"]:
        """Return the logits after the last prompt token; whatever came before is forgotten."""
        if len(prompt.ids) > self._room.prompt:
            raise SettingError(f"the prompt has {len(prompt.ids)} tokens; this half was opened for {self._room.prompt}")
        assert prompt.num_visual == len(visual_tokens), "one visual token per visual place"
        self._lib.llama_memory_clear(self._memory, False)
        self._sequences, self._length = [0], 0
        num_seen = 0
        for start, stop in _runs(prompt):
            is_last = stop == len(prompt.ids)
            if prompt.is_visual[start]:
                self._read_embeddings(visual_tokens[num_seen : num_seen + stop - start], is_last)
                num_seen += stop - start
            else:
                self._read_ids(prompt.ids[start:stop], is_last)
        return self._logits(1, last=True)[0]

    def step(self, ids: Sequence[int], parents: Sequence[int]) -> Float32[np.ndarray, "beams vocab"]:
        """Return the logits after ``ids``; beam b continues the earlier beam ``parents[b]``."""
        assert len(ids) == len(parents) <= self._room.beams, "more beams than this half was opened for"
        self._follow(parents)
        count = len(ids)
        tokens = (c_int32 * count)(*ids)
        positions = (c_int32 * count)(*[self._length] * count)
        ones, wanted = (c_int32 * count)(*[1] * count), (c_int8 * count)(*[1] * count)
        names = [(c_int32 * 1)(sequence) for sequence in self._sequences]
        sequences = (POINTER(c_int32) * count)(*[ctypes.cast(name, POINTER(c_int32)) for name in names])
        self._decode(
            llama.Batch(n_tokens=count, token=tokens, pos=positions, n_seq_id=ones, seq_id=sequences, logits=wanted)
        )
        self._length += 1
        return self._logits(count)

    def close(self) -> None:
        """Release the weights and the cache."""
        if self._context:
            self._lib.llama_free(self._context)
        if self._model:
            self._lib.llama_model_free(self._model)
        self._model = self._context = None

    def __del__(self) -> None:
        self.close()

    def _load(self, file: Path) -> int:
        params = self._lib.llama_model_default_params()
        params.n_gpu_layers = 0
        llama.complaints.clear()
        model = self._lib.llama_model_load_from_file(str(file).encode(), params)
        if not model:
            raise ModelError(f"cannot load {file}: {llama.last_complaint()}; export the bundle again")
        return model

    def _check_room(self) -> None:
        most = self._lib.llama_model_n_ctx_train(self._model)
        if self._room.positions > most:
            raise SettingError(
                f"a prompt of {self._room.prompt} tokens and an answer of {self._room.answer} need "
                f"{self._room.positions} positions; the model has {most}; use fewer slices or a shorter answer"
            )
        if not 1 <= self._room.beams <= MAX_BEAMS:
            raise SettingError(f"{self._room.beams} beams; 1 to {MAX_BEAMS} can be followed side by side")

    def _open_context(self, threads: int, exact: bool) -> int:
        beams = self._room.beams
        params = self._lib.llama_context_default_params()
        params.n_ctx = -(-self._room.cells // CELLS_STEP) * CELLS_STEP
        params.n_batch = params.n_ubatch = BATCH_TOKENS
        # While beams change places, the old and the new ones exist side by side.
        params.n_seq_max = 1 if beams == 1 else 2 * beams
        params.kv_unified = True
        params.flash_attn_type = llama.FLASH_ATTENTION_OFF
        params.n_threads = params.n_threads_batch = threads
        if exact:
            params.type_k = params.type_v = llama.GGML_TYPES["F32"]
        llama.complaints.clear()
        context = self._lib.llama_init_from_model(self._model, params)
        if not context:
            raise ModelError(f"cannot make room for {self._room.cells} tokens: {llama.last_complaint()}")
        return context

    def _follow(self, parents: Sequence[int]) -> None:
        """Give every beam a sequence of its own that begins as its parent's."""
        old = self._sequences
        if list(parents) == list(range(len(old))):
            return
        bank = self._room.beams if old[0] < self._room.beams else 0
        self._sequences = [bank + beam for beam in range(len(parents))]
        for sequence, parent in zip(self._sequences, parents, strict=True):
            self._lib.llama_memory_seq_cp(self._memory, old[parent], sequence, -1, -1)
        for sequence in old:
            self._lib.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def _read_ids(self, ids: np.ndarray, is_last: bool) -> None:
        for start in range(0, len(ids), BATCH_TOKENS):
            part = np.ascontiguousarray(ids[start : start + BATCH_TOKENS], dtype=np.int32)
            self._read(part, is_last, token=part.ctypes.data_as(POINTER(c_int32)))

    def _read_embeddings(self, visual_tokens: np.ndarray, is_last: bool) -> None:
        for start in range(0, len(visual_tokens), BATCH_TOKENS):
            part = np.ascontiguousarray(visual_tokens[start : start + BATCH_TOKENS], dtype=np.float32)
            assert part.shape[1] == self.width, "visual tokens have the width of the language model"
            self._read(part, is_last, embd=part.ctypes.data_as(POINTER(c_float)))

    def _read(self, part: np.ndarray, is_last: bool, **kind: object) -> None:
        """Append a part of the prompt to sequence 0; llama.cpp counts the positions itself."""
        wanted = (c_int8 * len(part))()
        wanted[-1] = is_last
        self._decode(llama.Batch(n_tokens=len(part), logits=wanted, **kind))
        self._length += len(part)

    def _decode(self, batch: llama.Batch) -> None:
        llama.complaints.clear()
        code = self._lib.llama_decode(self._context, batch)
        if code == 1:
            raise SettingError(f"no room after {self._length} tokens; this half was opened for {self._room.cells}")
        if code:
            raise ModelError(
                f"llama.cpp stopped with code {code} after {self._length} tokens: {llama.last_complaint()}"
            )

    def _logits(self, count: int, *, last: bool = False) -> np.ndarray:
        rows = [
            np.ctypeslib.as_array(
                self._lib.llama_get_logits_ith(self._context, -1 if last else row), (self.vocab_size,)
            )
            for row in range(count)
        ]
        return np.stack(rows)


def _runs(prompt: Prompt) -> Iterator[tuple[int, int]]:
    """Yield start and end of every run of text and of visual places.

    >>> list(_runs(Prompt(ids=np.arange(5), is_visual=np.array([False, True, True, False, False]))))
    [(0, 1), (1, 3), (3, 5)]
    """
    changes = np.flatnonzero(np.diff(prompt.is_visual)) + 1
    edges = [0, *changes.tolist(), len(prompt.ids)]
    yield from itertools.pairwise(edges)
