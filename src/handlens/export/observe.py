"""Measure an importance matrix: what flows into every weight matrix while a model reads and answers.

Boundary: a language GGUF and rows of embeddings in, sums of squares out. llama.cpp calls back for every product that it
computes; text and visual tokens are both rows, so pictures count as they do in use.
"""

import contextlib
import ctypes
from collections.abc import Iterable, Iterator
from ctypes import POINTER, c_bool, c_char, c_float, c_int, c_int8, c_int32, c_int64, c_size_t, c_void_p
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from handlens.core.chat import ask
from handlens.engine import llama
from handlens.engine.answerer import _visual_tokens, open_bundle
from handlens.engine.gguf_header import read_header
from handlens.engine.text_rows import TextRows
from handlens.errors import ModelError, NeedsExtra
from handlens.export.importance import Importance

PROMPT_TOKENS = 2048
"""Longer prompts are cut."""
AT_ONCE = 256
"""Tokens of one step; each has logits, which are large."""
KINDS = ("lines", "receipts", "labels", "tables", "scenes", "charts", "forms", "invoices")
"""Kinds of drawn pictures that are read."""
SEED = 8_800_002
"""Of these pictures; no training run and no evaluation uses it."""


class Tensor(ctypes.Structure):
    """``struct ggml_tensor``."""


Tensor._fields_ = (
    ("type", c_int),
    ("buffer", c_void_p),
    ("ne", c_int64 * 4),
    ("nb", c_size_t * 4),
    ("op", c_int),
    ("op_params", c_int32 * 16),
    ("flags", c_int32),
    ("src", POINTER(Tensor) * 10),
    ("view_src", POINTER(Tensor)),
    ("view_offs", c_size_t),
    ("data", c_void_p),
    ("name", c_char * 64),
    ("extra", c_void_p),
    ("padding", c_char * 8),
)
_CALLBACK = ctypes.CFUNCTYPE(c_bool, POINTER(Tensor), c_bool, c_void_p)


class Watcher:
    """Adds up the squares of the inputs of every matrix of a model."""

    def __init__(self, matrices: Iterable[str]) -> None:
        self.matrices = frozenset(matrices)
        self.sums: dict[str, Float32[np.ndarray, "columns"]] = {}
        self.counts: dict[str, float] = {}
        self.callback = _CALLBACK(self._look)

    def _look(self, node: "ctypes._Pointer[Tensor]", is_question: bool, _: object) -> bool:
        """Say whether a product is wanted; then, when it is computed, take its input."""
        weight, given = node.contents.src[0], node.contents.src[1]
        if not weight or not given:
            return not is_question
        name = weight.contents.name.decode("utf-8", "replace")
        if name not in self.matrices:
            return not is_question
        if not is_question:
            self._add(name, given.contents)
        return True

    def _add(self, name: str, given: Tensor) -> None:
        columns, tokens = given.ne[0], given.ne[1] * given.ne[2] * given.ne[3]
        if given.type != llama.GGML_TYPES["F32"] or given.nb[0] != 4:
            return
        values = np.ctypeslib.as_array(ctypes.cast(given.data, POINTER(c_float)), (tokens, columns))
        squares = np.einsum("tc,tc->c", values, values, dtype=np.float64)
        self.sums[name] = (self.sums.get(name, 0.0) + squares).astype(np.float32)
        self.counts[name] = self.counts.get(name, 0.0) + tokens


def measure_importance(
    file: Path, prompts: Iterable[Float32[np.ndarray, "tokens dim"]], *, dataset: str, threads: int = 1
) -> Importance:
    """Return the importance matrix of a language GGUF.

    Args:
        file: best in F32, F16 or BF16; what flows is that of this file.
        prompts: rows of embeddings, one array per prompt.
        dataset: named in the file.
        threads: of llama.cpp.

    Raises:
        ModelError: the file cannot be loaded, or no product of its matrices was seen.
    """
    header = read_header(file)
    watcher = Watcher(name for name, fact in header.tensors.items() if len(fact.shape) == 2 and name.startswith("blk."))
    chunks = 0
    with _context(file, watcher, threads) as (lib, context):
        memory = lib.llama_get_memory(context)
        for rows in prompts:
            lib.llama_memory_clear(memory, True)
            for begin in range(0, min(len(rows), PROMPT_TOKENS), AT_ONCE):
                part = np.ascontiguousarray(rows[begin : begin + AT_ONCE], dtype=np.float32)
                wanted = (c_int8 * len(part))(*[1] * len(part))  # else the last layer computes one token alone
                pointer = part.ctypes.data_as(POINTER(c_float))
                if lib.llama_decode(context, llama.Batch(n_tokens=len(part), embd=pointer, logits=wanted)):
                    raise ModelError(f"{file} cannot be computed: {llama.last_complaint()}")
            chunks += 1
    if not watcher.sums:
        raise ModelError(f"{file}: llama.cpp showed none of its products; use llama-imatrix instead")
    return Importance(sums=watcher.sums, counts=watcher.counts, dataset=dataset, chunks=chunks, file="measured")


@contextlib.contextmanager
def _context(file: Path, watcher: Watcher, threads: int) -> Iterator[tuple[ctypes.CDLL, int]]:
    """Open a model that calls the watcher; weights are not laid out anew, so their names stay visible."""
    lib = llama.library()
    params = lib.llama_model_default_params()
    params.n_gpu_layers, params.use_extra_bufts, params.load_mode = 0, False, llama.LOAD_MAPPED
    model = lib.llama_model_load_from_file(str(file).encode(), params)
    if not model:
        raise ModelError(f"cannot load {file}: {llama.last_complaint()}; export it again")
    settings = lib.llama_context_default_params()
    settings.n_ctx = settings.n_batch = PROMPT_TOKENS
    settings.n_threads = settings.n_threads_batch = threads
    settings.cb_eval = ctypes.cast(watcher.callback, c_void_p)
    context = lib.llama_init_from_model(model, settings)
    try:
        if not context:
            raise ModelError(f"no room for {PROMPT_TOKENS} tokens: {llama.last_complaint()}")
        yield lib, context
    finally:
        if context:
            lib.llama_free(context)
        lib.llama_model_free(model)


def drawn_prompts(bundle: Path, count: int) -> Iterator[Float32[np.ndarray, "tokens dim"]]:
    """Yield the rows of prompt and true answer for ``count`` drawn pictures of the training split.

    Raises:
        NeedsExtra: the generators are not installed.
        ModelError: the bundle is not whole.
    """
    try:
        from handlens.data.generate import generate
    except ModuleNotFoundError as cause:
        raise NeedsExtra(f"drawing pictures ({cause.name} is missing)", "train") from None
    from handlens.core.images import Picture
    from handlens.engine.bundle import Bundle

    lens = open_bundle(bundle, keep=True, profile=False)
    file = bundle / Bundle.open(bundle, verify=False).language
    table = TextRows(file, read_header(file))
    try:
        for index in range(count):
            record = generate(KINDS[index % len(KINDS)], SEED, index, split="train", level=0.4)
            turn = record.turns[index % len(record.turns)]
            seen = lens.see([Picture(record.picture, record.key)])
            prompt = lens.prompt(ask(turn.question), seen)
            rows = table[prompt.ids]
            rows[prompt.is_visual] = _visual_tokens(seen)
            yield np.concatenate([rows, table[lens.tokenizer.encode(turn.answer)]])[-PROMPT_TOKENS:]
    finally:
        lens.close()


def importance_of_bundle(bundle: Path, *, count: int = 64, threads: int = 1) -> Importance:
    """Return the importance matrix of the language half of a bundle over drawn pictures, questions and answers.

    Raises:
        NeedsExtra: the generators are not installed.
        ModelError: the bundle is not whole.
    """
    from handlens.engine.bundle import Bundle

    file = bundle / Bundle.open(bundle, verify=False).language
    dataset = f"handlens: {count} drawn pictures with questions and answers"
    return measure_importance(file, drawn_prompts(bundle, count), dataset=dataset, threads=threads)
