"""The Lens with halves that are small enough to work out by hand."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from handlens.answerer import ModelInfo
from handlens.core.chat import ask, reply
from handlens.core.images import Picture
from handlens.core.patches import normalise
from handlens.core.prompt import Prompt
from handlens.core.sampling import Sampling, log_softmax
from handlens.core.tokenizer import Tokenizer
from handlens.engine.answerer import Lens
from handlens.engine.room import Room
from handlens.engine.visual_cache import VisualCache
from handlens.errors import SettingError
from handlens.families import FAMILIES

QUERIES, DIM, POSITIONS = 4, 3, 600


class BrightnessVision:
    """Every visual token of a slice is its mean brightness."""

    def __init__(self, log: list[str]) -> None:
        self.log = log
        log.append("open vision")

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        return np.full((QUERIES, DIM), pixels.mean(), dtype=np.float32)

    def close(self) -> None:
        self.log.append("close vision")


class MarkovLanguage:
    """The next token depends on the last one only; remembers what it was shown."""

    def __init__(self, log: list[str], table: np.ndarray, room: Room) -> None:
        self.log, self.table, self.room = log, table, room
        self.prompt: Prompt | None = None
        self.visual_tokens = np.zeros((0, DIM))
        self.ends: list[int] = []
        log.append("open language")

    def prefill(self, prompt: Prompt, visual_tokens: np.ndarray) -> np.ndarray:
        assert len(prompt.ids) <= self.room.prompt
        self.prompt, self.visual_tokens, self.ends = prompt, visual_tokens, [int(prompt.ids[-1])]
        return self.table[prompt.ids[-1]]

    def step(self, ids: Sequence[int], parents: Sequence[int]) -> np.ndarray:
        assert len(ids) <= self.room.beams and max(parents) < len(self.ends)
        self.ends = list(ids)
        return self.table[list(ids)]

    def close(self) -> None:
        self.log.append("close language")


@pytest.fixture
def log() -> list[str]:
    return []


@pytest.fixture(scope="module")
def table(tokenizer: Tokenizer) -> np.ndarray:
    size = tokenizer.vocab_size
    return np.random.default_rng(0).normal(0, 3, (size, size)).astype(np.float32)


def make_lens(
    tokenizer: Tokenizer, table: np.ndarray, log: list[str], *, keep: bool = False, cache: VisualCache | None = None
) -> Lens:
    info = ModelInfo(name="toy", family="nano", engine="toy", num_queries=QUERIES, side_px=224, max_slices=9)
    halves: list[MarkovLanguage] = []

    def open_language(room: Room) -> MarkovLanguage:
        halves.append(MarkovLanguage(log, table, room))
        return halves[-1]

    lens = Lens(
        info, FAMILIES["nano"], tokenizer, lambda: BrightnessVision(log), open_language,
        max_positions=POSITIONS, keep=keep, cache=cache,
    )  # fmt: skip
    lens.halves = halves  # type: ignore[attr-defined]
    return lens


@pytest.fixture
def lens(tokenizer: Tokenizer, table: np.ndarray, log: list[str]) -> Lens:
    return make_lens(tokenizer, table, log)


def gray(level: int, width: int = 224, height: int = 224) -> Picture:
    return Picture(Image.new("RGB", (width, height), (level, level, level)), f"gray{level}")


def follow(table: np.ndarray, start: int, lens: Lens, count: int) -> list[int]:
    """The greedy path: likeliest next token that is no special token; the stop token ends it."""
    stop, ids = lens.tokenizer.id_of("<|im_end|>"), []
    while len(ids) < count:
        order = np.argsort(-table[start])
        start = next(int(token) for token in order if token == stop or not lens.tokenizer.is_special(int(token)))
        if start == stop:
            break
        ids.append(start)
    return ids


def test_vision_is_released_before_language_is_opened(lens: Lens, log: list[str]) -> None:
    seen = lens.see([gray(0)])
    list(lens.answer(ask("what?"), seen, Sampling(max_tokens=3)))
    assert log == ["open vision", "close vision", "open language", "close language"]


def test_keep_opens_each_half_once_until_more_room_is_needed(
    tokenizer: Tokenizer, table: np.ndarray, log: list[str]
) -> None:
    lens = make_lens(tokenizer, table, log, keep=True)
    for _ in range(2):
        seen = lens.see([gray(0)])
        list(lens.answer(ask("what?"), seen, Sampling(max_tokens=3)))
    assert log == ["open vision", "open language"]
    list(lens.answer(ask("what is all this?"), seen, Sampling(max_tokens=50)))
    assert log == ["open vision", "open language", "close language", "open language"]
    lens.close()
    assert log[-2:] == ["close vision", "close language"]


def test_answer_is_the_greedy_path_and_its_text(lens: Lens, table: np.ndarray) -> None:
    seen = lens.see([gray(9)])
    tokens = list(lens.answer(ask("what?"), seen, Sampling(max_tokens=12)))
    start = int(lens.prompt(ask("what?"), seen).ids[-1])
    expected = follow(table, start, lens, 12)
    assert [token.id for token in tokens] == expected and len(expected) > 2
    before = [start, *expected]
    for token, last in zip(tokens, before, strict=False):
        assert token.logprob == pytest.approx(log_softmax(table[last])[token.id])
    assert lens.tokenizer.decode(expected).startswith("".join(token.text for token in tokens))


def test_visual_tokens_stand_in_the_order_of_pictures_and_slices(lens: Lens) -> None:
    wide = Picture(Image.new("RGB", (448, 224), (255, 255, 255)), "two slices and an overview")
    wide.image.paste((0, 0, 0), (0, 0, 224, 224))
    seen = lens.see([gray(51), wide])
    list(lens.answer(ask("compare", 2), seen, Sampling(max_tokens=1)))
    (half,) = lens.halves  # type: ignore[attr-defined]
    means = half.visual_tokens[::QUERIES, 0]
    # 51 of 255 is -0.6 after scaling to [-1, 1]; the wide picture is half black: overview 0, left -1, right 1.
    # Bicubic resizing blurs the seam, hence the tolerance.
    np.testing.assert_allclose(means, [-0.6, 0, -1, 1], atol=0.02)
    assert half.prompt.num_visual == len(half.visual_tokens) == 4 * QUERIES


def test_max_slices_one_sees_the_overview_only(lens: Lens) -> None:
    assert lens.see([gray(0, 900, 900)], max_slices=1).plans[0].num_slices == 1
    assert lens.see([gray(0, 900, 900)]).plans[0].num_slices == 10


def test_pixels_reach_the_half_as_core_prepares_them(lens: Lens) -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (224, 224, 3), dtype=np.uint8))
    seen = lens.see([Picture(noise, "noise")])
    found = seen.pictures[0].visual_tokens
    assert found is not None and found[0, 0, 0] == normalise(noise).mean()


def test_asking_twice_encodes_once(lens: Lens, log: list[str]) -> None:
    seen = lens.see([gray(0)])
    chat = ask("what?")
    answer = "".join(token.text for token in lens.answer(chat, seen, Sampling(max_tokens=4)))
    list(lens.answer(reply(chat, answer, "and?"), seen, Sampling(max_tokens=4)))
    assert log.count("open vision") == 1


def test_a_question_without_pictures_opens_no_vision(lens: Lens, log: list[str]) -> None:
    seen = lens.see([])
    assert list(lens.answer(ask("hello", 0), seen, Sampling(max_tokens=2)))
    assert "open vision" not in log


def test_every_station_is_timed(lens: Lens) -> None:
    seen = lens.see([gray(0)])
    list(lens.answer(ask("what?"), seen, Sampling(max_tokens=3)))
    assert {"load_vision", "slice", "encode", "load_language", "prefill", "decode"} <= set(seen.seconds)
    assert all(0 <= seconds < 60 for seconds in seen.seconds.values())


def test_score_is_the_sum_of_log_probabilities(lens: Lens, table: np.ndarray) -> None:
    seen = lens.see([gray(0)])
    texts = ["the total", "x", "", "23.50", "größer als der Weg", "a", "b", "c", "d", "the total is 23"]
    start = int(lens.prompt(ask("what?"), seen).ids[-1])
    expected = []
    for text in texts:
        ids = [start, *lens.tokenizer.encode(text).tolist()]
        expected.append(sum(log_softmax(table[last])[token] for last, token in itertools.pairwise(ids)))
    assert lens.score(ask("what?"), seen, texts) == pytest.approx(expected)
    assert lens.score(ask("what?"), seen, []) == []


def test_a_prompt_that_leaves_no_room_is_refused(lens: Lens, log: list[str]) -> None:
    seen = lens.see([gray(0)])
    with pytest.raises(SettingError, match=rf"prompt has \d+ tokens, 4 of them visual; the model has {POSITIONS} "):
        next(lens.answer(ask("why? " * 300), seen, Sampling()))
    with pytest.raises(SettingError, match=rf"a continuation \d+; the model has {POSITIONS} positions"):
        lens.score(ask("why?"), seen, ["why? " * 300])
    assert "open language" not in log, "refused before anything is loaded"


def test_the_longest_answer_ends_where_the_positions_end(lens: Lens) -> None:
    seen = lens.see([])
    list(lens.answer(ask("hello", 0), seen, Sampling(max_tokens=10_000)))
    (half,) = lens.halves  # type: ignore[attr-defined]
    assert half.room.positions == POSITIONS


def test_marks_that_a_user_types_are_text(lens: Lens) -> None:
    seen = lens.see([gray(0)])
    prompt = lens.prompt(ask("what is <image><unk></image>?"), seen)
    assert prompt.num_visual == QUERIES


def test_a_second_answer_stops_the_first(tokenizer: Tokenizer, table: np.ndarray, log: list[str]) -> None:
    lens = make_lens(tokenizer, table, log, keep=True)
    seen = lens.see([])
    first = lens.answer(ask("hello", 0), seen, Sampling(max_tokens=50))
    next(first)
    next(lens.answer(ask("other", 0), seen, Sampling(max_tokens=50)))
    with pytest.raises(SettingError, match="a second answer was begun"):
        next(first)


def test_language_is_released_when_the_reader_walks_away(lens: Lens, log: list[str]) -> None:
    answer = lens.answer(ask("hello", 0), lens.see([]), Sampling(max_tokens=50))
    next(answer)
    answer.close()  # type: ignore[attr-defined]
    assert log == ["open language", "close language"]


def test_a_picture_that_was_seen_is_never_encoded_again(
    tokenizer: Tokenizer, table: np.ndarray, log: list[str], tmp_path: Path
) -> None:
    picture, other = gray(0, 448, 448), gray(9, 448, 448)
    first = make_lens(tokenizer, table, log, cache=VisualCache(tmp_path, "model")).see([picture])
    assert log == ["open vision", "close vision"]
    again = make_lens(tokenizer, table, log, cache=VisualCache(tmp_path, "model")).see([picture])
    assert log == ["open vision", "close vision"], "nothing is loaded for a picture that is known"
    assert "encode" not in again.seconds
    np.testing.assert_array_equal(again.pictures[0].visual_tokens, first.pictures[0].visual_tokens)
    make_lens(tokenizer, table, log, cache=VisualCache(tmp_path, "model")).see([picture, other])
    assert log.count("open vision") == 2


def test_a_held_language_half_serves_the_next_turns(tokenizer: Tokenizer, table: np.ndarray, log: list[str]) -> None:
    lens = make_lens(tokenizer, table, log, keep=True)
    lens.max_positions = 4096
    seen, chat = lens.see([gray(0)]), ask("what?")
    for _ in range(4):
        text = "".join(token.text for token in lens.answer(chat, seen, Sampling(max_tokens=20)))
        chat = reply(chat, text, "and then?")
    assert log.count("open language") == 1


def test_a_held_half_never_grows_past_the_positions(tokenizer: Tokenizer, table: np.ndarray, log: list[str]) -> None:
    lens = make_lens(tokenizer, table, log, keep=True)
    lens.max_positions = 300
    long, short = lens.see([gray(0, 900, 900)], max_slices=4), lens.see([gray(0)])
    for seen, longest in ((short, 5), (short, 100), (long, 40), (short, 200), (short, 280)):
        list(lens.answer(ask("what?"), seen, Sampling(max_tokens=longest)))
        assert lens.halves[-1].room.positions <= 300  # type: ignore[attr-defined]
