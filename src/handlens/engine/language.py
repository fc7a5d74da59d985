"""The language half on llama.cpp: a prompt with visual tokens in, logits out, one step at a time.

Boundary: one GGUF file and numpy; choosing tokens is ``core/sampling.py``.
"""

import ctypes
import itertools
from collections.abc import Sequence
from ctypes import POINTER, c_float, c_int8, c_int32
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

from handlens.core.prompt import Prompt
from handlens.engine import llama
from handlens.engine.cores import count_free_cores
from handlens.engine.gguf_header import Header, read_header
from handlens.engine.room import Room
from handlens.engine.setup import LOOKUP, Setup
from handlens.engine.state import STORED, write_state
from handlens.engine.text_rows import TextRows
from handlens.errors import ModelError, SettingError

if TYPE_CHECKING:
    from handlens.engine.openvino_prefill import OpenVinoPrefill

TEXT_CHUNK = 128
"""Tokens after the pictures are computed in chunks of this size, so that the next turn can begin at such an edge."""
CELLS_STEP = 256
"""llama.cpp counts its cache in steps of this many positions."""
MAX_BEAMS = 32
REPACKED_KINDS = frozenset({2, 12, 14, 20})
"""Types that llama.cpp can lay out anew for a processor: Q4_0, Q4_K, Q6_K, IQ4_NL."""


class LlamaCppLanguage:
    """Runs a GGUF file; one conversation at a time.

    A prompt that begins like the last one is not computed again up to there. What it then computes does not depend
    on what was asked before: chunks have fixed edges, so the same prompt gives the same logits bit for bit.

    Args:
        file: the GGUF file.
        room: how much the cache must hold.
        threads: for prompt and answer, where ``setup`` does not say; None takes the free cores.
        exact: keep keys and values in 32 bits; None does so where the weights are F32.
        setup: how it runs here.

    Raises:
        ModelError: the file is damaged or of a kind that llama.cpp does not know.
        SettingError: ``room`` is more than the model was made for.
    """

    def __init__(
        self,
        file: Path,
        room: Room,
        *,
        threads: int | None = None,
        exact: bool | None = None,
        setup: Setup | None = None,
    ) -> None:
        self._model = self._context = None
        self._lib = llama.library()
        self._room, self._setup = room, setup or Setup()
        header = read_header(file)
        self._model = self._load(file, header)
        self._rows = TextRows(file, header)
        self.vocab_size: int = self._lib.llama_vocab_n_tokens(self._lib.llama_model_get_vocab(self._model))
        self.width: int = self._lib.llama_model_n_embd(self._model)
        self._check_room()
        is_f32 = self._lib.llama_model_ftype(self._model) == 0
        exact = is_f32 if exact is None else exact
        self._kv = ("f32" if exact else "f16") if self._setup.kv == "auto" else self._setup.kv
        self._context = self._open_context(threads or count_free_cores())
        self._memory = self._lib.llama_get_memory(self._context)
        self._reader = self._open_reader(file, header, threads or count_free_cores())
        self._sequences = [0]
        self._length = 0
        self._known = np.zeros((0, self.width), dtype=np.float32)
        self._edges: tuple[int, ...] = ()
        self._last_logits = np.zeros(0, dtype=np.float32)
        self.num_reused = 0
        """Prompt tokens of the last prefill that were not computed again."""

    def prefill(self, prompt: Prompt, visual_tokens: Float32[np.ndarray, "visual dim"]) -> Float32[np.ndarray, "vocab"]:
        """Return the logits after the last prompt token; the answer that came before is forgotten."""
        if len(prompt.ids) > self._room.prompt:
            raise SettingError(f"the prompt has {len(prompt.ids)} tokens; this half was opened for {self._room.prompt}")
        assert prompt.num_visual == len(visual_tokens), "one visual token per visual place"
        rows = self._embed(prompt, visual_tokens)
        edges = chunk_edges(prompt, self._setup.batch, whole=self._reader is not None)
        self._forget_answer()
        if np.array_equal(rows, self._known):
            self.num_reused = len(rows)
        else:
            self._read(rows, edges, handed=self._reader is not None and prompt.num_visual > 0 and edges[0] < len(rows))
            self._last_logits = self._logits(1, last=True)[0]
        self._length = len(rows)
        return self._last_logits.copy()

    def step(self, ids: Sequence[int], parents: Sequence[int]) -> Float32[np.ndarray, "beams vocab"]:
        """Return the logits after ``ids``; beam b continues the earlier beam ``parents[b]``."""
        assert len(ids) == len(parents) <= self._room.beams, "more beams than this half was opened for"
        self._follow(parents)
        count = len(ids)
        if count == 1 and self._sequences == [0]:
            self._decode(llama.Batch(n_tokens=1, token=(c_int32 * 1)(ids[0])))
            self._length += 1
            return self._logits(1)
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

    def read(self, ids: Sequence[int]) -> Float32[np.ndarray, "tokens vocab"]:
        """Return the logits after each of ``ids``, which follow one another in the only answer."""
        count = len(ids)
        assert self._sequences == [0], "one answer"
        wanted = (c_int8 * count)(*[1] * count)
        self._decode(llama.Batch(n_tokens=count, token=(c_int32 * count)(*ids), logits=wanted))
        self._length += count
        return self._logits(count)

    def forget(self, count: int) -> None:
        """Take back the last tokens of the only answer."""
        self._length -= count
        self._lib.llama_memory_seq_rm(self._memory, 0, self._length, -1)

    def close(self) -> None:
        """Release the weights and the cache."""
        if self._context:
            self._lib.llama_free(self._context)
        if self._model:
            self._lib.llama_model_free(self._model)
        self._model = self._context = None

    def __del__(self) -> None:
        self.close()

    def _load(self, file: Path, header: Header) -> int:
        params = self._lib.llama_model_default_params()
        params.n_gpu_layers = 0
        params.use_extra_bufts = self._setup.repack
        is_repacked = self._setup.repack and any(fact.kind in REPACKED_KINDS for fact in header.tensors.values())
        # A mapped file beside its repacked copy would be held twice.
        is_mapped = not is_repacked if self._setup.mmap is None else self._setup.mmap
        params.load_mode = llama.LOAD_MAPPED if is_mapped else llama.LOAD_COPIED
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

    def _open_context(self, threads: int) -> int:
        beams = self._room.beams
        params = self._lib.llama_context_default_params()
        # While beams change places, the old and the new ones exist side by side.
        params.n_seq_max = 1 if beams == 1 else 2 * beams
        params.n_ctx = -(-self._room.cells // CELLS_STEP) * CELLS_STEP
        setup = self._setup
        params.n_batch = max(setup.batch, params.n_seq_max, (setup.lookup or LOOKUP) + 1)
        params.n_ubatch = min(setup.micro_batch, params.n_batch)
        params.kv_unified = True
        params.flash_attn_type = llama.FLASH_ATTENTION_ON if setup.flash else llama.FLASH_ATTENTION_OFF
        params.n_threads = setup.decode_threads or threads
        params.n_threads_batch = setup.prefill_threads or threads
        params.type_k = params.type_v = llama.GGML_TYPES[self._kv.upper()]
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

    def _embed(self, prompt: Prompt, visual_tokens: np.ndarray) -> Float32[np.ndarray, "tokens dim"]:
        """Return one row per token of the prompt."""
        rows = self._rows[prompt.ids]
        if prompt.num_visual:
            if visual_tokens.shape[1] != self.width:
                raise ModelError(
                    f"visual tokens have width {visual_tokens.shape[1]}, the language half takes {self.width}; these "
                    "halves do not belong together; export the bundle again"
                )
            rows[prompt.is_visual] = visual_tokens
        return rows

    def _forget_answer(self) -> None:
        """Leave sequence 0 with the prompt that was read last and nothing else."""
        keep = self._sequences[0]
        for sequence in self._sequences[1:]:
            self._lib.llama_memory_seq_rm(self._memory, sequence, -1, -1)
        self._lib.llama_memory_seq_rm(self._memory, keep, len(self._known), -1)
        if keep:
            self._lib.llama_memory_seq_cp(self._memory, keep, 0, -1, -1)
            self._lib.llama_memory_seq_rm(self._memory, keep, -1, -1)
        self._sequences = [0]

    def _read(self, rows: Float32[np.ndarray, "tokens dim"], edges: tuple[int, ...], *, handed: bool) -> None:
        """Compute the prompt from the last edge up to which it equals the one before.

        With ``handed`` the first chunk is computed by the other engine.
        """
        begin = shared_edge(self._known, rows, self._edges, edges)
        self.num_reused, self._length = begin, begin
        self._known, self._edges = rows[:begin], ()  # true also when the next lines fail
        self._lib.llama_memory_seq_rm(self._memory, 0, begin, -1)
        if handed and not begin:
            begin = self._length = self._take_over(rows[: edges[0]])
        for start, stop in itertools.pairwise((begin, *(edge for edge in edges if edge > begin))):
            part = np.ascontiguousarray(rows[start:stop])
            wanted = (c_int8 * len(part))()
            wanted[-1] = stop == len(rows)
            pointer = part.ctypes.data_as(POINTER(c_float))
            self._decode(llama.Batch(n_tokens=len(part), embd=pointer, logits=wanted))
            self._length += len(part)
        self._known, self._edges = rows, edges

    def _take_over(self, rows: Float32[np.ndarray, "tokens dim"]) -> int:
        """Let the other engine compute the first rows, put what it found into the cache, and return how many."""
        assert self._reader is not None
        keys, values = self._reader.read(rows)
        state = write_state(keys, values, kind=self._kv.upper(), transposed=not self._setup.flash)
        del keys, values
        llama.complaints.clear()
        if self._lib.llama_state_seq_set_data(self._context, state, len(state), 0) != len(state):
            raise ModelError(
                f"llama.cpp does not take the {len(rows)} tokens that OpenVINO read: {llama.last_complaint()}; "
                "set prefill to llama.cpp"
            )
        return len(rows)

    def _open_reader(self, file: Path, header: Header, threads: int) -> "OpenVinoPrefill | None":
        """Return what reads pictures in place of llama.cpp; None where llama.cpp does."""
        if self._setup.prefill != "openvino":
            return None
        from handlens.engine.openvino_prefill import OpenVinoPrefill

        kind = STORED.get(self._kv.upper())
        if kind is None:
            raise SettingError(f"prefill openvino hands over f16 or f32, and kv is {self._kv}; set kv to f16")
        return OpenVinoPrefill(file, header, threads=self._setup.prefill_threads or threads, stored=kind)

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
        num_bytes = self.vocab_size * ctypes.sizeof(c_float)
        places = (-1,) if last else range(count)
        # A copy by address: ctypes arrays would cost more than a small model's step.
        rows = [ctypes.string_at(self._lib.llama_get_logits_ith(self._context, place), num_bytes) for place in places]
        return np.frombuffer(bytearray().join(rows), dtype=np.float32).reshape(-1, self.vocab_size)


def chunk_edges(prompt: Prompt, batch: int, *, whole: bool = False) -> tuple[int, ...]:
    """Return where the chunks end in which a prompt is computed: full batches of pictures, then small ones of text.

    With ``whole`` everything up to the last picture is one chunk, for an engine that has no batches.

    >>> chunk_edges(Prompt(ids=np.arange(700), is_visual=np.arange(700) < 600), 512)
    (512, 600, 700)
    """
    places = np.flatnonzero(prompt.is_visual)
    pictures_end = int(places[-1]) + 1 if len(places) else 0
    text = min(TEXT_CHUNK, batch)
    edges = {
        *(() if whole else range(batch, pictures_end, batch)),
        pictures_end,
        *range(pictures_end + text, len(prompt.ids), text),
        len(prompt.ids),
    }
    return tuple(sorted(edges - {0}))


def shared_edge(
    known: Float32[np.ndarray, "known dim"],
    rows: Float32[np.ndarray, "tokens dim"],
    known_edges: Sequence[int],
    edges: Sequence[int],
) -> int:
    """Return the last common edge before which both prompts are equal; the last token is always computed."""
    length = min(len(known), len(rows))
    is_equal = (known[:length] == rows[:length]).all(axis=1)
    common = length if is_equal.all() else int(is_equal.argmin())
    shared = 0
    for theirs, ours in zip(known_edges, edges, strict=False):
        # Other chunks before here would round their sums in another order.
        if theirs != ours or ours > common or ours >= len(rows):
            break
        shared = ours
    return shared
