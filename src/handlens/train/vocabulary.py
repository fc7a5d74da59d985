"""Train the byte-level BPE vocabulary on generated text; a token is a character, or a byte of a rare one.

A model that copies what it sees learns to copy characters sooner than to spell them into longer tokens
(``docs/log.md``). Boundary: strings in, ``tokenizer.json`` out. The splitting rule is the one llama.cpp calls
``llama-bpe``.
"""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as FastTokenizer

from handlens.core.durable import show
from handlens.core.tokenizer import SPECIAL_TOKENS

LLAMA_BPE = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The word rule of Llama 3, known to llama.cpp as ``llama-bpe``."""

_SINGLE = r"[\s\S]"


def _splitter(*, characters_apart: bool) -> pre_tokenizers.PreTokenizer:
    parts = [pre_tokenizers.Split(Regex(LLAMA_BPE), behavior="isolated")]
    if characters_apart:
        parts.append(pre_tokenizers.Split(Regex(_SINGLE), behavior="isolated"))
    return pre_tokenizers.Sequence([*parts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def train_vocabulary(texts: Iterable[str], size: int) -> FastTokenizer:
    """Return a vocabulary of at most ``size`` entries, special tokens first.

    Only the bytes of one character are merged. That holds at run time without a rule of its own, because no other
    merge exists.
    """
    fast = FastTokenizer(models.BPE())
    fast.pre_tokenizer = _splitter(characters_apart=True)
    fast.decoder = decoders.ByteLevel()
    specials = [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    fast.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=size,
            min_frequency=2,
            special_tokens=specials,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    fast.pre_tokenizer = _splitter(characters_apart=False)
    return fast


def save_vocabulary(fast: FastTokenizer, file: Path) -> None:
    """Write ``tokenizer.json`` whole or not at all."""
    unfinished = file.with_name(f".{file.name}.part")
    fast.save(str(unfinished))
    show(unfinished, file)
