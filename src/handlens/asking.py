"""The verbs of the Python API: ask, stream, chat, batch, and look once to ask many times.

Boundary: any ``Answerer``; opens pictures and keeps conversations, computes nothing itself.
"""

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from handlens.answerer import Answerer, ModelInfo, Seen, Token
from handlens.core.chat import Chat, Shown, Turn
from handlens.core.chat import ask as ask_once
from handlens.core.images import Picture, open_picture, to_rgb
from handlens.core.pages import open_any
from handlens.core.sampling import Ending, Sampling, why_ended
from handlens.core.sight import Sight, look_at
from handlens.errors import ImageError, SettingError
from handlens.measure.network import alone

if TYPE_CHECKING:
    from handlens.fields.answers import Fields

Viewable = str | Path | bytes | Image.Image | np.ndarray | Picture
"""One picture: a path (``doc.pdf#3`` is a page), the bytes of a file, or pixels (height, width, 3) of 8 bits."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model said; ``str(answer)`` is its text."""

    text: str
    tokens: tuple[Token, ...]
    ended: Ending
    """``stop``, ``length`` (cut by ``max_tokens``) or ``loop`` (it repeated itself)."""
    seen: Seen
    """The encoded pictures; give it instead of a picture to ask again without encoding."""

    @property
    def value(self) -> Any:
        """The answer as JSON; meant for questions asked with a ``schema``."""
        return json.loads(self.text)

    def __str__(self) -> str:
        return self.text


class Model:
    """An ``Answerer`` that takes pictures as they come.

    >>> import handlens
    >>> model = handlens.load("nano")
    >>> answer = model.ask(Image.new("RGB", (64, 48), "red"), "What colour is it?", max_tokens=4)
    >>> str(answer) == answer.text, len(answer.tokens) <= 4
    (True, True)
    """

    def __init__(self, answerer: Answerer, *, folder: Path | None = None) -> None:
        self.answerer = answerer
        self.info: ModelInfo = answerer.info
        self.folder = folder
        """Where the model lies; None for one that was not opened by ``handlens.load``. What lies here needs no network,
        so this thread gets none while the model works."""

    def __getattr__(self, name: str) -> Any:
        """Give what the answerer itself has, such as ``tokenizer``."""
        if name == "answerer":  # not there yet while it is unpickled
            raise AttributeError(name)
        return getattr(self.answerer, name)

    def see(self, images: Sequence[Picture], *, max_slices: int | None = None) -> Seen:
        """Encode opened pictures once."""
        with self._alone():
            return self.answerer.see(images, max_slices=max_slices)

    def answer(self, chat: Chat, seen: Seen, sampling: Sampling) -> Iterator[Token]:
        """Yield the answer token by token."""
        tokens = iter(self.answerer.answer(chat, seen, sampling))
        while True:
            with self._alone():  # not while the caller looks at a token
                token = next(tokens, None)
            if token is None:
                return
            yield token

    def score(self, chat: Chat, seen: Seen, continuations: Sequence[str]) -> list[float]:
        """Return the log-probability (nats) of each continuation."""
        with self._alone():
            return self.answerer.score(chat, seen, continuations)

    def _alone(self) -> contextlib.AbstractContextManager[None]:
        return alone() if self.folder else contextlib.nullcontext()

    def look(self, *images: Viewable, max_slices: int | None = None) -> Seen:
        """Open and encode pictures once, to ask about them many times.

        Raises:
            ImageError: a picture cannot be read.
        """
        return self.see([as_picture(image) for image in images], max_slices=max_slices)

    def sight(self, image: Viewable, *, max_slices: int | None = None) -> Sight:
        """Return what the model sees of a picture: grid, resize factor, visual tokens, text that gets too small."""
        from handlens.core.slicing import plan_slices

        picture, info = as_picture(image), self.info
        plan = plan_slices(*picture.image.size, side_px=info.side_px, max_slices=max_slices or info.max_slices)
        return look_at(picture, plan, info.num_queries)

    def ask(
        self,
        image: Viewable | Seen | Sequence[Viewable],
        question: str,
        *,
        max_slices: int | None = None,
        schema: Mapping[str, Any] | None = None,
        max_tokens: int = 256,
        temperature: float = 0.0,
        seed: int = 0,
        sampling: Sampling | None = None,
    ) -> Answer:
        """Return the answer to one question about one picture, several, or none (an empty list).

        Args:
            image: a picture, several, or what ``look`` returned.
            question: in words.
            max_slices: most slices of a picture; None takes the model's.
            schema: a JSON schema that the answer follows; ``answer.value`` is then the parsed value.
            max_tokens: longest answer.
            temperature: 0 takes the likeliest token.
            seed: the same seed gives the same answer.
            sampling: every setting of choosing, instead of the three before.

        Raises:
            ImageError: a picture cannot be read.
            SettingError: a setting cannot work, or the pictures leave no room for an answer.
        """
        seen = self._seen(image, max_slices)
        chosen = sampling or Sampling(max_tokens=max_tokens, temperature=temperature, seed=seed)
        chat = ask_once(question, len(seen.pictures))
        return self._say(chat, seen, chosen if schema is None else self._held_to(chosen, schema))

    def stream(
        self,
        image: Viewable | Seen | Sequence[Viewable],
        question: str,
        *,
        max_slices: int | None = None,
        sampling: Sampling | None = None,
    ) -> Iterator[str]:
        """Yield the text of an answer as it comes; never part of a character."""
        seen = self._seen(image, max_slices)
        for token in self.answer(ask_once(question, len(seen.pictures)), seen, sampling or Sampling()):
            if token.text:
                yield token.text

    def batch(
        self, questions: Iterable[tuple[Viewable | Seen, str]], *, sampling: Sampling | None = None
    ) -> Iterator[Answer]:
        """Yield one answer per pair of picture and question, in order; neighbours with one picture share its encoding.

        >>> import handlens
        >>> red = Image.new("RGB", (64, 48), "red")
        >>> answers = handlens.load("nano").batch([(red, "What colour is it?"), (red, "What is the total?")])
        >>> len({id(answer.seen.pictures) for answer in answers})
        1
        """
        last: tuple[Viewable, Seen] | None = None
        for image, question in questions:
            if isinstance(image, Seen):
                seen = image
            elif last is not None and (last[0] is image or (isinstance(image, str | Path) and last[0] == image)):
                seen = last[1]
            else:
                seen = self._seen(image, None)
                last = (image, seen)
            yield self.ask(seen, question, sampling=sampling)

    def fields(
        self,
        image: Viewable,
        schema: Mapping[str, Any],
        *,
        max_slices: int | None = None,
        find: bool = True,
        look_again_below: float = 0.9,
    ) -> "Fields":
        """Return every field of a JSON schema with its value, how sure it is, and the slice and box it was read from.

        Args:
            image: one picture.
            schema: with ``properties``; a field that is not there is answered with ``not present``.
            max_slices: most slices of the picture; None takes the model's.
            find: look for slices and boxes.
            look_again_below: an answer with less confidence is asked again on its slice, enlarged; 0 never does.

        Raises:
            ImageError: the picture cannot be read.
            SettingError: the schema cannot be used, or this model cannot be held to one.
        """
        from handlens.fields.read import read_fields

        return read_fields(self, image, schema, max_slices=max_slices, find=find, look_again_below=look_again_below)

    def chat(self, *images: Viewable, max_slices: int | None = None) -> "Conversation":
        """Begin a conversation about pictures; each is encoded once."""
        conversation = Conversation(self, max_slices=max_slices)
        conversation.show(*images)
        return conversation

    def close(self) -> None:
        """Release what ``keep`` held."""
        getattr(self.answerer, "close", lambda: None)()

    def __enter__(self) -> "Model":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _seen(self, image: Viewable | Seen | Sequence[Viewable], max_slices: int | None) -> Seen:
        if isinstance(image, Seen):
            return replace(image, seconds={})
        images = image if isinstance(image, Sequence) and not isinstance(image, str | bytes) else [image]
        return self.look(*images, max_slices=max_slices)

    def _held_to(self, sampling: Sampling, schema: Mapping[str, Any]) -> Sampling:
        from handlens.core.grammar import GrammarConstraint
        from handlens.core.json_grammar import json_grammar

        tokenizer = getattr(self.answerer, "tokenizer", None)
        if tokenizer is None:
            raise SettingError(f"{self.info.name} ({self.info.engine}) cannot be held to a schema; ask without it")
        constraint = GrammarConstraint(json_grammar(schema), tokenizer)
        if constraint.shortest > sampling.max_tokens:
            raise SettingError(
                f"the shortest answer to this schema has {constraint.shortest} bytes, but max_tokens is "
                f"{sampling.max_tokens}; ask for at least {constraint.shortest}"
            )
        return replace(sampling, constraint=constraint)

    def _say(self, chat: Chat, seen: Seen, sampling: Sampling) -> Answer:
        tokens = tuple(self.answer(chat, seen, sampling))
        text = "".join(token.text for token in tokens)
        return Answer(text=text, tokens=tokens, ended=why_ended([token.id for token in tokens], sampling), seen=seen)


@dataclass(eq=False)
class Conversation:
    """Questions and answers about pictures, in turn.

    >>> import handlens
    >>> conversation = handlens.load("nano").chat(Image.new("RGB", (64, 48), "red"))
    >>> first = conversation.ask("What colour is it?")
    >>> second = conversation.ask("Is there text?")
    >>> [turn.role for turn in conversation.turns]
    ['user', 'assistant', 'user', 'assistant']
    """

    model: Model
    max_slices: int | None = None
    sampling: Sampling = field(default_factory=Sampling)
    turns: Chat = ()
    """What was said so far; a question that was not answered to its end is not in it."""
    seen: Seen = field(default_factory=lambda: Seen(pictures=()))
    _shown: int = 0

    def show(self, *images: Viewable) -> Seen:
        """Encode further pictures; they stand before the next question."""
        new = self.model.look(*images, max_slices=self.max_slices)
        self.seen = Seen(pictures=(*self.seen.pictures, *new.pictures), seconds=new.seconds)
        return new

    def ask(self, question: str) -> Answer:
        """Return the answer to the next question."""
        tokens = tuple(self._tokens(question))
        text = "".join(token.text for token in tokens)
        ended = why_ended([token.id for token in tokens], self.sampling)
        return Answer(text=text, tokens=tokens, ended=ended, seen=self.seen)

    def stream(self, question: str) -> Iterator[str]:
        """Yield the answer to the next question as it comes."""
        for token in self._tokens(question):
            if token.text:
                yield token.text

    def save(self, file: str | Path) -> None:
        """Write what was said, as JSON (``.json``) or Markdown.

        Raises:
            SettingError: the file cannot be written.
        """
        file = Path(file)
        text = self._as_json() if file.suffix.lower() == ".json" else self._as_markdown()
        try:
            file.write_text(text, encoding="utf-8")
        except OSError as cause:
            raise SettingError(f"cannot write {file}: {cause.strerror or cause}") from None

    def _tokens(self, question: str) -> Iterator[Token]:
        new = tuple(Shown(index) for index in range(self._shown, len(self.seen.pictures)))
        turn = Turn("user", (*new, question))
        said: list[str] = []
        for token in self.model.answer((*self.turns, turn), self.seen, self.sampling):
            said.append(token.text)
            yield token
        self.turns = (*self.turns, turn, Turn("assistant", ("".join(said),)))
        self._shown = len(self.seen.pictures)

    def _as_json(self) -> str:
        rows = [{"role": turn.role, "content": [self._part(part) for part in turn.content]} for turn in self.turns]
        return json.dumps({"model": self.model.info.name, "turns": rows}, ensure_ascii=False, indent=2) + "\n"

    def _as_markdown(self) -> str:
        names = {"user": "You", "assistant": self.model.info.name, "system": "System"}
        blocks = [
            f"**{names[turn.role]}**: " + "\n\n".join(
                f"[{self.seen.pictures[part.index].name}]" if isinstance(part, Shown) else part for part in turn.content
            )
            for turn in self.turns
        ]  # fmt: skip
        return "\n\n".join(blocks) + "\n"

    def _part(self, part: str | Shown) -> dict[str, str]:
        if isinstance(part, Shown):
            return {"type": "picture", "name": self.seen.pictures[part.index].name}
        return {"type": "text", "text": part}


def as_picture(image: Viewable) -> Picture:
    """Return an opened picture.

    Raises:
        ImageError: it cannot be read, or an array has another shape or type than (height, width, 3) of uint8.
    """
    if isinstance(image, Picture):
        return image
    if isinstance(image, str | Path):
        return open_any(image)
    if isinstance(image, Image.Image):
        return Picture(to_rgb(image), "picture")
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (3, 4)):
            raise ImageError(f"an array of {image.dtype} {image.shape} is no picture; give uint8 (height, width, 3)")
        return Picture(to_rgb(Image.fromarray(image)), "picture")
    return open_picture(image)
