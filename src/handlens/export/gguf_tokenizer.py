"""Read the vocabulary of a language GGUF as a tokenizer.

Boundary: one file in, a tokenizer out; the counterpart of ``vocabulary.py``, of the kinds that the families have.
"""

from pathlib import Path
from typing import Any

import gguf
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as FastTokenizer

from handlens.core.sentencepiece import Piece, tokenizer_of
from handlens.core.tokenizer import Tokenizer
from handlens.errors import ModelError
from handlens.export.vocabulary import NO_MERGE, WORD_RULES

RULES = {name: rule for rule, name in WORD_RULES.items()}
"""Name that llama.cpp gives a word rule -> the rule."""
WHOLE_WORDS = ("llama-bpe",)
"""Rules whose vocabulary takes a whole word before it merges."""


def read_tokenizer(file: Path) -> Tokenizer:
    """Return the tokenizer of a language file.

    Raises:
        ModelError: the file has no text of its tokens, or splits words by an unknown rule.
    """
    try:
        fields = gguf.GGUFReader(file).fields
    except (ValueError, OSError) as cause:
        raise ModelError(f"cannot read the vocabulary of {file}: {cause}; copy it again") from None

    def value(key: str, default: Any) -> Any:
        return fields[f"tokenizer.ggml.{key}"].contents() if f"tokenizer.ggml.{key}" in fields else default

    kind, tokens = value("model", ""), list(value("tokens", []))
    types = list(value("token_type", [int(gguf.TokenType.NORMAL)] * len(tokens)))
    if int(gguf.TokenType.NORMAL) not in types or types.count(int(gguf.TokenType.NORMAL)) < 2:
        raise ModelError(
            f"{file} has ids without text, so it takes no questions; put the tokenizer.json of the model beside it"
        )
    if kind == "gpt2":
        rule = str(value("pre", ""))
        if rule not in RULES:
            raise ModelError(
                f"{file} splits words by the rule '{rule}'; known: {', '.join(RULES)}; put the tokenizer.json of the "
                "model beside it"
            )
        return Tokenizer(_byte_level(tokens, types, list(value("merges", [])), rule))
    if kind == "llama":
        scores = list(value("scores", [0.0] * len(tokens)))
        pieces = [Piece(*entry) for entry in zip(tokens, scores, types, strict=True)]
        return Tokenizer(tokenizer_of(pieces, adds_space=bool(value("add_space_prefix", True)), marks={}))
    raise ModelError(f"{file} has a vocabulary of kind '{kind}'; gpt2 and llama are known; use tokenizer.json")


def _byte_level(tokens: list[str], types: list[int], merges: list[str], rule: str) -> FastTokenizer:
    """Return a byte-level BPE with the same ids."""
    added = (int(gguf.TokenType.CONTROL), int(gguf.TokenType.USER_DEFINED), int(gguf.TokenType.UNKNOWN))
    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges if merge != NO_MERGE)]
    fast = FastTokenizer(
        models.BPE(
            vocab={token: place for place, token in enumerate(tokens)},
            merges=pairs,
            ignore_merges=rule in WHOLE_WORDS,
        )
    )
    fast.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(RULES[rule]), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    fast.decoder = decoders.ByteLevel()
    marks = [(token, kind) for token, kind in zip(tokens, types, strict=True) if kind in added]
    fast.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token, kind in marks if kind != added[1]]
    )
    fast.add_tokens([AddedToken(token, normalized=False) for token, kind in marks if kind == added[1]])
    return fast
