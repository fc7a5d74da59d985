"""See, then answer: the two halves joined behind the ``Answerer`` protocol.

Boundary: knows neither ONNX Runtime nor llama.cpp nor torch; it opens halves, and both engines share it, so
pictures are prepared and tokens are chosen by the same code everywhere.
"""

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32
from PIL import Image

from handlens.answerer import ModelInfo, Seen, SeenPicture, Token
from handlens.core.chat import Chat
from handlens.core.images import Picture
from handlens.core.patches import normalise
from handlens.core.prompt import Prompt, build_prompt
from handlens.core.sampling import Sampling, generate, log_softmax
from handlens.core.slicing import cut, plan_slices
from handlens.core.tokenizer import AnyTokenizer, TextStream, Tokenizer
from handlens.engine.bundle import Bundle
from handlens.engine.lookup import LookAhead, Reader, may_look, most_guessed
from handlens.engine.memory import give_back
from handlens.engine.room import Room
from handlens.engine.setup import Setup, load_profile
from handlens.engine.visual_cache import VisualCache, cache_allowed, cache_folder
from handlens.errors import SettingError, did_you_mean
from handlens.families import Family

SCORED_TOGETHER = 8
"""Continuations that share one reading of the prompt."""
KEPT_STEP = 1024
"""A language half that is held is opened for whole steps of this many tokens, so that a conversation can grow."""


@runtime_checkable
class VisionHalf(Protocol):
    """Turns one slice into visual tokens."""

    def encode(self, pixels: Float32[np.ndarray, "3 height width"]) -> Float32[np.ndarray, "queries dim"]:
        """Return the visual tokens of one slice, normalised to [-1, 1]."""
        ...

    def close(self) -> None:
        """Release the weights."""
        ...


@runtime_checkable
class LanguageHalf(Protocol):
    """Reads a prompt and continues it."""

    def prefill(self, prompt: Prompt, visual_tokens: Float32[np.ndarray, "visual dim"]) -> Float32[np.ndarray, "vocab"]:
        """Return the logits after the last prompt token; whatever came before is forgotten."""
        ...

    def step(self, ids: Sequence[int], parents: Sequence[int]) -> Float32[np.ndarray, "beams vocab"]:
        """Return the logits after ``ids``; beam b continues the earlier beam ``parents[b]``."""
        ...

    def close(self) -> None:
        """Release the weights."""
        ...


class Lens:
    """An ``Answerer`` of two halves; one answer at a time.

    Vision is released before language is loaded, so that peak memory is the larger half and not the sum
    (arXiv 2408.01800, section 5). ``keep=True`` holds both for many questions. With a ``cache`` a slice that was
    encoded before, by any process, is not encoded again. ``lookup`` is how many tokens of copied text are guessed and
    checked at once; None takes what pays for the vocabulary.
    """

    def __init__(
        self,
        info: ModelInfo,
        family: Family,
        tokenizer: AnyTokenizer,
        open_vision: Callable[[], VisionHalf],
        open_language: Callable[[Room], LanguageHalf],
        *,
        max_positions: int = 4096,
        keep: bool = False,
        cache: VisualCache | None = None,
        lookup: int | None = None,
    ) -> None:
        self.info = info
        self.family = family
        self.tokenizer = tokenizer
        self.max_positions = max_positions
        self.keep = keep
        self.cache = cache
        self.lookup = lookup
        self.open_vision = open_vision
        self.open_language = open_language
        self._vision: VisionHalf | None = None
        self._language: tuple[Room, LanguageHalf] | None = None
        self._specials: list[int] | None = None
        self._answers = itertools.count(1)
        self._current = 0

    def see(self, images: Sequence[Picture], *, max_slices: int | None = None) -> Seen:
        """Encode pictures once.

        Raises:
            ImageError: a picture has no pixels.
            SettingError: ``max_slices`` is below one.
        """
        info, pictures = self.info, []
        plans = [
            plan_slices(
                *picture.image.size,
                side_px=info.side_px,
                max_slices=info.max_slices if max_slices is None else max_slices,
            )
            for picture in images
        ]
        seconds: dict[str, float] = {}
        vision: VisionHalf | None = None
        with contextlib.ExitStack() as stack:

            def encode(pixels: Float32[np.ndarray, "3 height width"]) -> Float32[np.ndarray, "queries dim"]:
                nonlocal vision
                if vision is None:  # not before a slice needs it
                    with _timed(seconds, "load_vision"):
                        vision = stack.enter_context(self._vision_half())
                with _timed(seconds, "encode"):
                    return vision.encode(pixels)

            for picture, plan in zip(images, plans, strict=True):
                with _timed(seconds, "slice"):
                    slices = cut(picture.image, plan)
                visual_tokens = np.stack([self._tokens_of(image, encode, seconds) for image in slices])
                pictures.append(
                    SeenPicture(name=picture.name, plan=plan, visual_tokens=visual_tokens, times=times_of(picture))
                )
        if self.cache and vision is not None:
            self.cache.trim()
        return Seen(pictures=tuple(pictures), seconds=seconds)

    def _tokens_of(
        self,
        image: Image.Image,
        encode: Callable[[Float32[np.ndarray, "3 height width"]], Float32[np.ndarray, "queries dim"]],
        seconds: dict[str, float],
    ) -> Float32[np.ndarray, "queries dim"]:
        """Return the visual tokens of a slice, from the cache where they are there."""
        if self.cache is None:
            return encode(normalise(image))
        with _timed(seconds, "cache"):
            pixels = np.asarray(image)
            kept = self.cache.get(pixels)
        if kept is not None and len(kept) == self.info.num_queries:
            return kept
        tokens = encode(normalise(image))
        with _timed(seconds, "cache"):
            self.cache.put(pixels, tokens)
        return tokens

    def prompt(self, chat: Chat, seen: Seen) -> Prompt:
        """Return the token ids that the language half reads.

        Raises:
            SettingError: the chat does not show the pictures, or text contains marks of the spatial schema.
        """
        prompt = build_prompt(
            chat, seen.plans, self.family, self.tokenizer, self.info.num_queries, use_image_id=self.image_ids(seen)
        )
        expected = self.info.num_queries * sum(plan.num_slices for plan in seen.plans)
        if prompt.num_visual != expected:
            raise SettingError(
                f"the text makes {prompt.num_visual} visual places but the pictures fill {expected}; "
                "remove marks such as <image> or <slice> from the question"
            )
        return prompt

    def image_ids(self, seen: Seen) -> bool | None:
        """Return False where the family leaves them out, as with the frames of a clip; None for its usual way."""
        return False if seen.shows_frames and not self.family.numbers_frames else None

    def answer(self, chat: Chat, seen: Seen, sampling: Sampling) -> Iterator[Token]:
        """Yield the answer token by token; ``seen.seconds`` receives the time of every station.

        Raises:
            SettingError: the prompt leaves no room for an answer, or another answer was begun meanwhile.
        """
        prompt = self.prompt(chat, seen)
        sampling = self._fit(prompt, sampling)
        room = Room(prompt=len(prompt.ids), answer=sampling.max_tokens, beams=sampling.num_beams)
        stops = self._stops()
        for station in ("load_language", "prefill", "decode"):
            seen.seconds.pop(station, None)
        with self._language_half(room, seen.seconds) as language:
            number = self._current = next(self._answers)
            with _timed(seen.seconds, "prefill"):
                logits = language.prefill(prompt, _visual_tokens(seen))

            ahead = self._look_ahead(language, prompt, logits, sampling)

            def step(ids: Sequence[int], parents: Sequence[int]) -> np.ndarray:
                if number != self._current:
                    raise SettingError("a second answer was begun before this one was finished; read one to its end")
                with _timed(seen.seconds, "decode"):
                    return (ahead or language).step(ids, parents)

            stream, never = TextStream(self.tokenizer), self._never_said(stops, len(logits))
            for token_id, logprob in generate(logits, step, stops, sampling, never, doubt=ahead):
                yield Token(stream.push(token_id), token_id, logprob)

    def _look_ahead(
        self, language: LanguageHalf, prompt: Prompt, logits: Float32[np.ndarray, "vocab"], sampling: Sampling
    ) -> LookAhead | None:
        """Return what guesses copied text, where the answer and the language half allow it."""
        most = most_guessed(len(logits)) if self.lookup is None else self.lookup
        if not most or not may_look(sampling) or not isinstance(language, Reader):
            return None
        return LookAhead(language, language.step, prompt, logits, most=most, longest=sampling.max_tokens)

    def score(self, chat: Chat, seen: Seen, continuations: Sequence[str]) -> list[float]:
        """Return the log-probability (nats) of each continuation, stop token not included.

        Raises:
            SettingError: prompt and continuation are longer than the model's positions.
        """
        prompt = self.prompt(chat, seen)
        ids = [self.tokenizer.encode(text).tolist() for text in continuations]
        longest = max(map(len, ids), default=0)
        if len(prompt.ids) + longest > self.max_positions:
            raise SettingError(
                f"the prompt has {len(prompt.ids)} tokens and a continuation {longest}; "
                f"the model has {self.max_positions} positions; use fewer slices or shorter text"
            )
        room = Room(prompt=len(prompt.ids), answer=max(1, longest), beams=max(1, min(len(ids), SCORED_TOGETHER)))
        scores: list[float] = []
        with self._language_half(room, seen.seconds) as language:
            self._current = next(self._answers)
            for start in range(0, len(ids), SCORED_TOGETHER):
                logits = language.prefill(prompt, _visual_tokens(seen))
                scores += _score(language, logits, ids[start : start + SCORED_TOGETHER])
        return scores

    def close(self) -> None:
        """Release halves that ``keep`` held."""
        if self._vision:
            self._vision.close()
        if self._language:
            self._language[1].close()
        self._vision = self._language = None

    def _fit(self, prompt: Prompt, sampling: Sampling) -> Sampling:
        """Shorten the longest answer to what the positions leave."""
        left = self.max_positions - len(prompt.ids)
        if left < 1:
            raise SettingError(
                f"the prompt has {len(prompt.ids)} tokens, {prompt.num_visual} of them visual; the model has "
                f"{self.max_positions} positions; show fewer pictures, allow fewer slices or ask a shorter question"
            )
        return dataclasses.replace(sampling, max_tokens=min(sampling.max_tokens, left))

    def _stops(self) -> set[int]:
        return {self.tokenizer.id_of(token) for token in self.family.template.stops}

    def _never_said(self, stops: set[int], vocab_size: int) -> list[int]:
        if self._specials is None:
            self._specials = [token for token in range(vocab_size) if self.tokenizer.is_special(token)]
        return [token for token in self._specials if token not in stops]

    @contextlib.contextmanager
    def _vision_half(self) -> Iterator[VisionHalf]:
        half = self._vision or self.open_vision()
        if self.keep:
            self._vision = half
        try:
            yield half
        finally:
            if not self.keep:
                half.close()
                del half
                give_back()

    @contextlib.contextmanager
    def _language_half(self, room: Room, seconds: dict[str, float]) -> Iterator[LanguageHalf]:
        with _timed(seconds, "load_language"):
            half = self._kept_language(room) if self.keep else self.open_language(room)
        try:
            yield half
        finally:
            if not self.keep:
                half.close()

    def _kept_language(self, room: Room) -> LanguageHalf:
        """Return the held half, opened again where it is too small."""
        if self._language is not None:
            held, half = self._language
            if held.holds(room):
                return half
            half.close()
            self._language, grown = None, held.grown(room)
            room = grown if grown.positions <= self.max_positions else room
        room = dataclasses.replace(room, prompt=self._stepped(room))
        half = self.open_language(room)
        self._language = (room, half)
        return half

    def _stepped(self, room: Room) -> int:
        """Return a prompt length with room for the next turns."""
        return max(room.prompt, min(-(-room.prompt // KEPT_STEP) * KEPT_STEP, self.max_positions - room.answer))


def times_of(picture: Picture) -> tuple[float, ...]:
    """Return the time of a frame; nothing for a still picture."""
    return () if picture.seconds is None else (picture.seconds,)


def _visual_tokens(seen: Seen) -> Float32[np.ndarray, "visual dim"]:
    """Return the visual tokens of all slices of all pictures in the order of their places."""
    parts = [picture.visual_tokens for picture in seen.pictures]
    rows = [part.reshape(-1, part.shape[-1]) for part in parts if part is not None]
    return np.concatenate(rows) if rows else np.zeros((0, 1), dtype=np.float32)


def _score(language: LanguageHalf, first: np.ndarray, continuations: Sequence[Sequence[int]]) -> list[float]:
    """Follow the continuations side by side, as beams; each leaves when its last token is scored."""
    scores = [float(log_softmax(first)[ids[0]]) if ids else 0.0 for ids in continuations]
    beams = list(range(len(continuations)))
    for place in range(max(map(len, continuations)) - 1):
        going = [row for row, beam in enumerate(beams) if len(continuations[beam]) > place + 1]
        beams = [beams[row] for row in going]
        parents = going if place else [0] * len(going)
        logprobs = log_softmax(language.step([continuations[beam][place] for beam in beams], parents))
        for row, beam in enumerate(beams):
            scores[beam] += float(logprobs[row, continuations[beam][place + 1]])
    return scores


@contextlib.contextmanager
def _timed(seconds: dict[str, float], station: str) -> Iterator[None]:
    """Add the wall time of the block to a station."""
    begin = time.perf_counter()
    try:
        yield
    finally:
        seconds[station] = seconds.get(station, 0.0) + time.perf_counter() - begin


def open_bundle(
    path: Path | str,
    *,
    keep: bool = False,
    verify: bool = True,
    threads: int | None = None,
    provider: str | None = None,
    cache: bool = False,
    setup: Setup | None = None,
    profile: bool = True,
    lookup: bool = True,
) -> Lens:
    """Return a bundle folder as an ``Answerer``; each half is loaded when it is first needed.

    Args:
        path: the folder.
        keep: hold both halves in memory for many questions.
        verify: compare the sha256 of a file before it is used.
        threads: None takes what ``setup`` says, or the free cores.
        provider: execution provider of the vision half, one of ``engine.vision.PROVIDERS``; None as ``setup`` says.
        cache: keep visual tokens on disk, so that a picture is encoded once; the environment variable
            ``HANDLENS_NO_CACHE=1`` switches it off.
        setup: how the halves run; None takes the profile, or the defaults.
        profile: use what ``handlens tune`` wrote for this bundle on this machine, where there is something;
            ``HANDLENS_NO_PROFILE=1`` switches it off.
        lookup: guess text that repeats and check the guesses in one batch; the answer stays the same.
            ``HANDLENS_NO_LOOKUP=1`` switches it off.

    Raises:
        ModelError: the folder is not a whole bundle, or its halves do not belong together.
        SettingError: the profile is damaged.
    """
    bundle = Bundle.open(path, verify=verify)
    setup = setup or (load_profile(bundle.folder) if profile else None) or Setup()
    vision_file, language_file = setup.vision or bundle.vision, setup.language or bundle.language
    _check_names(bundle, vision_file, language_file)
    chosen_provider = provider or setup.provider

    def open_vision() -> VisionHalf:
        from handlens.engine.belong import check_language, check_room
        from handlens.engine.gguf_header import read_header
        from handlens.engine.vision import OnnxVision

        # A wrong language half is found before minutes are spent on the picture.
        check_language(bundle.folder / language_file, read_header(bundle.folder / language_file), bundle.config)
        parts = bundle.parts(vision_file)
        check_room(sum((bundle.folder / part).stat().st_size for part in parts), f"the vision half {vision_file}")
        graph, *_ = [bundle.file(part) for part in parts]
        used = threads or setup.vision_threads or None
        return OnnxVision(graph, bundle.config, provider=chosen_provider, threads=used)

    def open_language(room: Room) -> LanguageHalf:
        from handlens.engine.belong import check_language, check_room
        from handlens.engine.gguf_header import read_header
        from handlens.engine.language import LlamaCppLanguage

        file = bundle.file(language_file)
        check_language(file, read_header(file), bundle.config)
        check_room(file.stat().st_size, f"the language half {language_file}")
        return LlamaCppLanguage(file, room, threads=threads, setup=setup)

    quantisation = language_file.removeprefix("language-").removesuffix(".gguf")
    settings = setup.describe() if setup != Setup() else ""
    return Lens(
        dataclasses.replace(bundle.info, quantisation=quantisation, settings=settings),
        bundle.family,
        Tokenizer.from_file(bundle.file("tokenizer.json")),
        open_vision,
        open_language,
        max_positions=bundle.config.language.max_positions,
        keep=keep,
        cache=_cache_of(bundle, vision_file, chosen_provider) if cache and cache_allowed() else None,
        lookup=setup.lookup if lookup else 0,
    )


def _check_names(bundle: Bundle, *names: str) -> None:
    for name in names:
        if name not in bundle.manifest["files"]:
            raise SettingError(
                f"{bundle.folder} has no file '{name}'{did_you_mean(name, bundle.manifest['files'])}; "
                "run `handlens tune` again where a profile names it"
            )


def _cache_of(bundle: Bundle, vision_file: str, provider: str) -> VisualCache:
    """Return the cache of everything that this vision half makes of a slice."""
    weights = bundle.manifest["files"][vision_file]["sha256"]
    return VisualCache(cache_folder(), f"{bundle.manifest['fingerprint']} {weights} {provider}")
