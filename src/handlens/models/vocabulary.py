"""A tokenizer of any size for a model of random weights: bytes, the marks of the family, and fillers.

Boundary: writes one ``tokenizer.json``.
"""

import json
import re
from pathlib import Path

from handlens.core.tokenizer import SPECIAL_TOKENS
from handlens.families import Family
from handlens.train.vocabulary import LLAMA_BPE

FILLER = "[{}]"


def write_random_vocabulary(out: Path, size: int, family: Family) -> Path:
    """Write ``tokenizer.json`` with ``size`` ids: every byte is one id, so a text is as many tokens as it has bytes."""
    marks = _marks(family)
    letters = _byte_letters()
    fillers = [FILLER.format(number) for number in range(size - len(marks) - len(letters))]
    fillers[-1] = letters[0] + letters[1]  # llama.cpp refuses a vocabulary without merges; this is the one there is
    vocab = {token: number for number, token in enumerate([*marks, *letters, *fillers])}
    fields = {
        "version": "1.0",
        "added_tokens": [
            {"id": number, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True}
            for number, token in enumerate(marks)
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": LLAMA_BPE}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
            ],
        },
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": True,
            "vocab": vocab, "merges": [f"{letters[0]} {letters[1]}"],
        },
    }  # fmt: skip
    out.write_text(json.dumps(fields, ensure_ascii=False), encoding="utf-8")
    return out


def _marks(family: Family) -> list[str]:
    """Return every special token that prompts of the family may hold."""
    template = family.template
    texts = "".join((template.begin, template.system, template.user, template.assistant, template.opening))
    named = re.findall(r"<\|?[^<>{}\n]+\|?>", texts)
    found = [family.placeholder, *SPECIAL_TOKENS, *template.stops, *named]
    return list(dict.fromkeys(token for token in found if token))


def _byte_letters() -> list[str]:
    """Return the letter that a byte-level BPE writes for every byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = [value for value in range(256) if value not in plain]
    letters = {value: chr(value) for value in plain} | {value: chr(256 + at) for at, value in enumerate(other)}
    return [letters[value] for value in range(256)]
