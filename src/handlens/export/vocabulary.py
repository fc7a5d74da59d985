"""Read a ``tokenizer.json`` as the vocabulary that a GGUF file stores.

Boundary: files in, plain lists out; three kinds of tokeniser are known, any other is refused.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gguf
from tokenizers import Tokenizer as FastTokenizer

from handlens.errors import ModelError
from handlens.train.vocabulary import LLAMA_BPE

QWEN_BPE = LLAMA_BPE.replace(r"\p{N}{1,3}", r"\p{N}")
"""The word rule of Qwen 2 and 3, known to llama.cpp as ``qwen2``."""
WORD_RULES = {LLAMA_BPE: "llama-bpe", QWEN_BPE: "qwen2"}
"""Word rule -> the name that llama.cpp gives it."""

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""In the form llama.cpp recognises; it is written where ``<|im_end|>`` exists."""
LLAMA3 = (
    "{% for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n"
    "{{ message.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
TEMPLATES = {"<|im_end|>": CHATML, "<|eot_id|>": LLAMA3}
"""Token that ends a turn -> chat template."""
ENDS = ("<|im_end|>", "<|eot_id|>", "</s>")
NO_MERGE = "Ċ Ċ"
"""llama.cpp refuses a file without merges; this one makes a token that does not exist."""
BEGINS = ("<|begin_of_text|>", "<s>")


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Tokens as GGUF stores them; a token's place is its id."""

    tokens: list[str]
    types: list[int]
    merges: list[str]
    word_rule: str = "llama-bpe"
    """Name of the pre-tokeniser in llama.cpp; empty for one of the SentencePiece kind."""

    def scores(self) -> list[float]:
        """Return how early a token is merged: minus the rank of the first merge that makes it (SentencePiece kind)."""
        ranks: dict[str, int] = {}
        for rank, merge in enumerate(self.merges):
            ranks.setdefault(merge.replace(" ", "", 1), rank)
        last = len(self.merges)
        return [-float(ranks.get(token, last)) for token in self.tokens]

    def grown(self, rows: int) -> "Vocabulary":
        """Return the vocabulary with names for the rows of the embeddings that have no token."""
        missing = range(len(self.tokens), rows)
        return replace(
            self,
            tokens=[*self.tokens, *(f"[PAD{number}]" for number in missing)],
            types=[*self.types, *(int(gguf.TokenType.UNUSED) for _ in missing)],
        )


def unnamed_vocabulary(rows: int, named: Mapping[str, int] | None = None) -> Vocabulary:
    """Return a stand-in for a model without a tokeniser; ``named`` gives ids to marks such as ``<image>``."""
    tokens = [f"[PAD{number}]" for number in range(rows)]
    types = [int(gguf.TokenType.UNUSED)] * rows
    for token, number in (named or {}).items():
        tokens[number] = "Ċ" if token == "\n" else token
        types[number] = int(gguf.TokenType.NORMAL if token == "\n" else gguf.TokenType.CONTROL)
    return Vocabulary(tokens=tokens, types=types, merges=[])


def read_vocabulary(tokenizer_file: Path) -> Vocabulary:
    """Read a ``tokenizer.json`` whose word rule llama.cpp knows: that of Llama 3, of Qwen 2, or SentencePiece BPE.

    Raises:
        ModelError: another kind of tokeniser, ids with gaps, or merges that llama.cpp would read otherwise.
    """
    fields = json.loads(tokenizer_file.read_text(encoding="utf-8"))
    model = fields["model"]
    rules = [WORD_RULES[rule] for rule in _word_rules(fields) if rule in WORD_RULES]
    if model.get("type") != "BPE" or not (rules or model.get("byte_fallback")):
        raise ModelError(
            f"{tokenizer_file} does not split words as 'llama-bpe' does; GGUF export writes that kind, 'qwen2' "
            "and SentencePiece BPE"
        )
    ids = dict(model["vocab"])
    types = dict.fromkeys(ids.values(), gguf.TokenType.NORMAL)
    if not rules:
        _mark_bytes(ids, types)
    for added in fields["added_tokens"]:
        ids[added["content"]] = added["id"]
        types[added["id"]] = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
    by_id = {number: token for token, number in ids.items()}
    if sorted(by_id) != list(range(len(ids))):
        raise ModelError(f"{tokenizer_file} has {len(ids)} tokens but its ids are not 0 to {len(ids) - 1}")
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    if rules and not model.get("ignore_merges"):
        _check_merges(tokenizer_file, {token for token, number in ids.items() if types[number] == 1})
    return Vocabulary(
        tokens=[by_id[number] for number in range(len(ids))],
        types=[int(types[number]) for number in range(len(ids))],
        merges=merges,
        word_rule=rules[0] if rules else "",
    )


def _word_rules(fields: dict[str, Any]) -> list[str]:
    """Return the word rules of the pre-tokeniser."""
    stage = fields.get("pre_tokenizer") or {}
    stages = stage.get("pretokenizers", [stage])
    return [str(part["pattern"].get("Regex")) for part in stages if part.get("type") == "Split"]


def _mark_bytes(ids: Mapping[str, int], types: dict[int, gguf.TokenType]) -> None:
    """Give ``<0x00>`` to ``<0xFF>`` and the unknown token their types."""
    for value in range(256):
        number = ids.get(f"<0x{value:02X}>")
        if number is not None:
            types[number] = gguf.TokenType.BYTE
    if "<unk>" in ids:
        types[ids["<unk>"]] = gguf.TokenType.UNKNOWN


def _check_merges(tokenizer_file: Path, tokens: set[str]) -> None:
    """Refuse a token that merging does not reach: llama.cpp takes a whole word from the list before it merges."""
    fast = FastTokenizer.from_file(str(tokenizer_file))
    for token in sorted(tokens):
        text = fast.decoder.decode([token])
        words = fast.pre_tokenizer.pre_tokenize_str(text)
        found = fast.encode(text, add_special_tokens=False).tokens
        if len(words) == 1 and words[0][0] == token and found != [token]:
            raise ModelError(
                f"{tokenizer_file}: the token {token!r} is read as {found} here and as one token by llama.cpp; "
                "set ignore_merges in its model"
            )


def add_vocabulary(writer: gguf.GGUFWriter, vocabulary: Vocabulary) -> None:
    """Write tokens, merges or scores, ends and chat template; llama.cpp is told to add nothing by itself."""
    tokens = vocabulary.tokens
    if vocabulary.word_rule:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(vocabulary.word_rule)
    else:
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.word_rule:
        writer.add_token_merges(vocabulary.merges or [NO_MERGE])
    else:
        writer.add_token_scores(vocabulary.scores())
        writer.add_add_space_prefix(False)
    writer.add_add_bos_token(False)
    for token in BEGINS:
        if token in tokens:
            writer.add_bos_token_id(tokens.index(token))
            break
    for token in ENDS:
        if token in tokens:
            writer.add_eos_token_id(tokens.index(token))
            break
    template = next((TEMPLATES[token] for token in TEMPLATES if token in tokens), None)
    if template:
        writer.add_chat_template(template)
    if "<|endoftext|>" in tokens:
        writer.add_pad_token_id(tokens.index("<|endoftext|>"))
