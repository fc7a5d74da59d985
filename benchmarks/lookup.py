"""What guessing repeated text gains: tokens, runs of the model, and processor time of decoding with and without it.

``python benchmarks/lookup.py nano`` draws held-out pictures. The last kind is a bound, not a use: the answer is held to
a copy of the question's own text, so that every token can be guessed. Processor time is of one thread.
"""

import argparse
import json
import statistics
import time
from typing import Any

import numpy as np

import handlens
from handlens.core.chat import Chat, ask, reply
from handlens.core.grammar import GrammarConstraint
from handlens.core.images import Picture
from handlens.core.json_grammar import json_grammar
from handlens.core.sampling import Sampling
from handlens.core.tokenizer import Tokenizer
from handlens.data.generate import generate
from handlens.engine.answerer import Lens, open_bundle
from handlens.engine.lookup import LookAhead
from handlens.engine.setup import LOOKUP

KINDS = {"tables": "Convert the table to markdown.", "receipts": "Transcribe the receipt.", "labels": "Read all text."}
FORM = {
    "type": "object",
    "properties": {name: {"type": "string", "maxLength": 12} for name in ("shop", "date", "item", "total")},
    "required": ["shop", "date", "item", "total"],
}
TEXT = "\n".join(f"| {number} | bread and butter | 2.50 | {number}.00 |" for number in range(11, 19))


class Copy:
    """A form that only one text has."""

    def __init__(self, ids: list[int], vocab_size: int) -> None:
        self.ids, self.vocab_size = ids, vocab_size

    def start(self) -> int:
        """Return the place of the first token."""
        return 0

    def allowed(self, state: int, left: int) -> np.ndarray:
        """Allow the next token of the text."""
        return np.arange(self.vocab_size) == self.ids[min(state, len(self.ids) - 1)]

    def advance(self, state: int, token_id: int) -> int:
        """Return the next place."""
        return state + 1

    def is_whole(self, state: int) -> bool:
        """Return whether the text is complete."""
        return state == len(self.ids)


def main() -> None:
    """Print one object per kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="nano")
    parser.add_argument("--count", type=int, default=6, help="pictures of each kind")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-tokens", type=int, default=160)
    parser.add_argument("--kinds", nargs="*", default=[*KINDS, "follow-up", "form", "copy"])
    arguments = parser.parse_args()
    folder = handlens.PACKAGED.get(arguments.model, arguments.model)
    lens = open_bundle(folder, keep=True, verify=False, threads=1)
    for kind in arguments.kinds:
        print(json.dumps(measure(lens, kind, arguments.count, arguments.rounds, arguments.max_tokens)), flush=True)


def measure(lens: Lens, kind: str, count: int, rounds: int, max_tokens: int) -> dict[str, Any]:
    """Return what a kind gains; equal answers are required."""
    used: list[LookAhead] = []
    plain = lens._look_ahead

    def watched(*given: Any) -> LookAhead | None:
        found = plain(*given)
        used.extend([found] if found else [])
        return found

    vars(lens)["_look_ahead"] = watched
    most, tokens, ratios = LOOKUP, 0, []
    for index in range(count):
        seen, chat, sampling = task(lens, kind, index, max_tokens)
        answers: set[tuple[int, ...]] = set()
        seconds: dict[int, list[float]] = {0: [], most: []}
        for _ in range(rounds):
            for lens.lookup in (0, most):
                answer = lens.answer(chat, seen, sampling)
                said = [next(answer)]  # the prompt costs the same both times
                begin = time.process_time()
                said += answer
                seconds[lens.lookup].append(time.process_time() - begin)
                answers.add(tuple(token.id for token in said))
        assert len(answers) == 1, "another answer"
        tokens += len(said)
        ratios.append(statistics.median(seconds[0]) / statistics.median(seconds[most]))
    del vars(lens)["_look_ahead"]
    steps, right = sum(ahead.num_steps for ahead in used), sum(ahead.num_right for ahead in used)
    return {
        "kind": kind, "answers": count, "tokens": tokens, "runs": steps // rounds, "guessed": right // rounds,
        "times_faster": {"median": round(statistics.median(ratios), 2), "least": round(min(ratios), 2),
                         "most": round(max(ratios), 2)},
    }  # fmt: skip


def task(lens: Lens, kind: str, index: int, max_tokens: int) -> tuple[Any, Chat, Sampling]:
    """Return what is seen, what is asked, and how it is answered."""
    sampling = Sampling(max_tokens=max_tokens)
    if kind == "copy":
        ids = lens.tokenizer.encode(TEXT).tolist()[:max_tokens]
        copy = Copy(ids, lens.tokenizer.vocab_size)
        return lens.see([]), ask(f"Repeat:\n{TEXT}", 0), Sampling(max_tokens=max_tokens, constraint=copy)
    drawn = "receipts" if kind in ("form", "follow-up") else kind
    picture = generate(drawn, 7, index, split="heldout", level=0.5).picture.convert("RGB")
    seen = lens.see([Picture(picture, kind)])
    if kind == "form":
        assert isinstance(lens.tokenizer, Tokenizer)
        constraint = GrammarConstraint(json_grammar(FORM), lens.tokenizer)
        return seen, ask("Give the fields.", 1), Sampling(max_tokens=max_tokens, constraint=constraint)
    chat = ask(KINDS[drawn], 1)
    if kind == "follow-up":
        first = "".join(token.text for token in lens.answer(chat, seen, sampling))
        chat = reply(chat, first, "Transcribe it once more.")
    return seen, chat, sampling


if __name__ == "__main__":
    main()
