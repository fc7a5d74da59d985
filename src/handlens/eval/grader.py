"""Who decides whether an answer is right: fixed rules, or a model behind the OpenAI protocol.

Boundary: items and answers in, marks out. A graded number carries the grader's name, its version, a hash of the
prompt and the number of replies that could not be read; replies are kept, so a number can be made again for nothing.
"""

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from handlens.errors import HandlensError
from handlens.eval.task import GraderUse, Item, Mark, Task

Say = Callable[[str, int, float], str]
"""``say(prompt, max_tokens, temperature)`` -> the reply."""
RULES = "rules"
TRIES = 3
LONGEST = 8_000
"""Characters of an answer that a grader is shown: both ends, so that a run-away answer is seen as one."""


@dataclass(kw_only=True)
class Grader:
    """A model that grades; one per report, never two."""

    name: str
    version: str
    """What the endpoint says it is, or what the user says."""
    say: Say
    cache: Path | None = None
    prompts: dict[str, str] = field(default_factory=dict)
    """Task -> prompt that takes the place of our own."""
    unreadable: list[dict[str, str]] = field(default_factory=list)
    """Replies that no try made readable, with the task and the item."""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, str] = {}
        if self.cache is not None and self.cache.exists():
            for line in self.cache.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                except ValueError:  # the line at which a run was stopped
                    continue
                self._known[row["key"]] = row["reply"]

    def facts(self, task: Task) -> dict[str, Any]:
        """Return what is stored with a number of this task."""
        prompt = self.prompts.get(task.name, task.grader.template if task.grader else "")
        return {
            "grader": self.name,
            "version": self.version,
            "prompt": prompt,
            "prompt_sha256": _hash(prompt),
            "asked_for": "every answer" if task.grader and task.grader.always else "answers that rules cannot read",
            "tries": TRIES,
        }

    def mark(self, task: Task, item: Item, answer: str) -> Mark:
        """Return the grader's mark; a reply that cannot be read counts 0 and says so."""
        assert task.grader is not None
        prompt = fill(self.prompts.get(task.name, task.grader.template), item, answer)
        reply = ""
        for attempt in range(TRIES):
            try:
                reply = self._ask(prompt, task.grader, attempt)
            except HandlensError as error:
                reply = f"(no reply: {error})"
                continue
            mark = task.grader.read(item, answer, reply)
            if mark is not None:
                return mark
        self.unreadable.append({"task": task.name, "id": item.id, "reply": reply[:500]})
        failed = task.mark(item, "")
        return replace(failed, score=0.0, extracted=reply[:200], status="grader_unparsed")

    def _ask(self, prompt: str, use: GraderUse, attempt: int) -> str:
        key = _hash(json.dumps([self.name, self.version, prompt, use.max_tokens, attempt]))
        if key not in self._known:
            reply = self.say(prompt, use.max_tokens, 0.5 * attempt)
            with self._lock:
                self._known[key] = reply
                if self.cache is not None:
                    self.cache.parent.mkdir(parents=True, exist_ok=True)
                    with self.cache.open("a", encoding="utf-8") as stream:
                        stream.write(json.dumps({"key": key, "reply": reply}, ensure_ascii=False) + "\n")
        return self._known[key]


def fill(template: str, item: Item, answer: str) -> str:
    """Return the prompt for one answer."""
    shown = answer if len(answer) <= LONGEST else f"{answer[: LONGEST // 2]}\n[...]\n{answer[-LONGEST // 2 :]}"
    options = "".join(f"{letter}. {text}\n" for letter, text in item.options.items())
    names = {
        "question": item.question,
        "options": f"Options:\n{options}" if options else "",
        "answer": shown,
        "truth": " <OR> ".join(item.truth),
        "reference": item.truth[0] if item.truth else "",
        "context": str(item.facts.get("context", "")),
    }
    for name, value in names.items():
        template = template.replace("{" + name + "}", value.replace("{", "{\u200b"))
    return template.replace("{\u200b", "{")


def agreement(pairs: list[tuple[float, float]]) -> dict[str, float]:
    """Return how far a grader and the rules agree: share of equal marks, Cohen's kappa, mean gap.

    Kappa treats every mark as a class, rounded to tenths; it is 0 where it is undefined.
    """
    count = max(len(pairs), 1)
    rounded = [(round(one, 1), round(two, 1)) for one, two in pairs]
    equal = sum(one == two for one, two in rounded) / count
    classes = {value for pair in rounded for value in pair}
    chance = (
        sum(sum(one == value for one, _ in rounded) * sum(two == value for _, two in rounded) for value in classes)
        / count**2
    )
    return {
        "answers": float(len(pairs)),
        "equal": equal,
        "kappa": (equal - chance) / (1 - chance) if chance < 1 else 0.0,
        "mean_gap": sum(one - two for one, two in pairs) / count,
    }


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
