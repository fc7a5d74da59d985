"""Evaluation with answerers whose score is known beforehand: one that knows, one that is silent, one that is near."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace

import pytest
from PIL import Image

from handlens.answerer import Answerer, ModelInfo, Seen, SeenPicture, Token
from handlens.core.chat import Chat
from handlens.core.images import Picture
from handlens.core.sampling import Sampling
from handlens.core.slicing import plan_slices
from handlens.data.generate import generate
from handlens.errors import DataError, SettingError
from handlens.eval.heldout import Answered, evaluate, save_report, score, to_json
from handlens.eval.mistakes import choose, save_mistakes

LEVEL = 0.25


class Known:
    """Answers from the record that a picture was drawn from; ``say`` turns the truth into the answer."""

    info = ModelInfo(name="known", family="nano", engine="none", num_queries=1, side_px=224, max_slices=1)

    def __init__(self, say=lambda truth: truth) -> None:
        self.say = say
        self.asked: list[tuple[str, str]] = []

    def see(self, images: Sequence[Picture], *, max_slices: int | None = None) -> Seen:
        pictures = [
            SeenPicture(name=image.name, plan=plan_slices(*image.image.size), visual_tokens=None) for image in images
        ]
        return Seen(pictures=tuple(pictures))

    def answer(self, chat: Chat, seen: Seen, sampling: Sampling) -> Iterator[Token]:
        assert len(chat) == 1, "each question is asked alone"
        question = str(chat[0].content[-1])
        name = seen.pictures[0].name
        self.asked.append((name, question))
        kind, *code, split, seed, index = name.split("-")
        language = code[0] if code else "en"
        record = generate(kind, int(seed), int(index), split=split, level=LEVEL, languages=(language,))
        truth = next(turn.answer for turn in record.turns if turn.question == question)
        for character in self.say(truth):
            yield Token(character, 0, 0.0)

    def score(self, chat: Chat, seen: Seen, continuations: Sequence[str]) -> list[float]:
        raise NotImplementedError


def run(model: Known, **fields):
    return evaluate(model, **({"kinds": ("scenes", "labels"), "count": 4, "seed": 2, "level": LEVEL} | fields))


def test_the_answerer_of_this_test_is_one():
    assert isinstance(Known(), Answerer)


def test_one_that_knows_the_truth_is_always_right():
    model = Known()
    report = run(model)
    assert report.scores
    assert {one.exact for one in report.scores} == {1.0}
    assert {one.cer for one in report.scores} == {0.0}
    assert all(one.interval[1] > 1 - 1e-9 and one.interval[0] < 1.0 for one in report.scores)
    # Every question of every record, once.
    wanted = [
        (record.key, turn.question)
        for kind in ("scenes", "labels")
        for record in (generate(kind, 2, index, split="heldout", level=LEVEL) for index in range(4))
        for turn in record.turns
    ]
    assert model.asked == wanted
    assert [(answer.key, answer.question) for answer in report.answers] == wanted


def test_one_that_says_nothing_is_never_right():
    report = run(Known(lambda truth: ""))
    assert {one.exact for one in report.scores} == {0.0}
    assert {one.cer for one in report.scores} == {1.0}


def test_space_at_the_ends_is_forgiven_and_nothing_else():
    assert {one.exact for one in run(Known(lambda truth: f" {truth}\n")).scores} == {1.0}
    assert {one.exact for one in run(Known(lambda truth: truth + ".")).scores} == {0.0}


def test_tasks_add_up_to_their_kind():
    scores = {one.task: one for one in run(Known(lambda truth: truth if len(truth) < 4 else "?")).scores}
    for kind in ("scenes", "labels"):
        parts = [one for task, one in scores.items() if task.startswith(f"{kind}.")]
        whole = scores[f"{kind} (all)"]
        assert whole.count == sum(one.count for one in parts)
        assert whole.exact * whole.count == pytest.approx(sum(one.exact * one.count for one in parts))
    assert 0 < scores["scenes (all)"].exact < 1


def test_score_by_hand():
    pairs = [("abcd", "abcd"), ("abcd", "abxd"), ("ab", "")]
    answers = [Answered(key="k", task="t", question="?", truth=truth, answer=answer) for truth, answer in pairs]
    one = score("t", answers)
    assert (one.count, one.exact) == (3, pytest.approx(1 / 3))
    assert one.cer == pytest.approx(3 / 10)


def test_equal_seeds_give_equal_reports_and_other_seeds_other_pictures():
    assert run(Known()) == run(Known())
    assert run(Known()).answers != run(Known(), seed=3).answers


def test_progress_counts_pictures():
    told = []
    run(Known(), count=2, progress=lambda done, of: told.append((done, of)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kinds": ("scenes", "label")}, "unknown kind 'label'; did you mean 'labels'?"),
        ({"split": "heldout2"}, "unknown split 'heldout2'; did you mean 'heldout'?"),
        ({"level": 2.0}, "level is 2.0; needed is 0 (clean) to 1 (careless photo)"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_any_question(fields, message):
    model = Known()
    with pytest.raises(DataError) as error:
        run(model, **fields)
    assert str(error.value) == message
    assert model.asked == []


def test_a_report_holds_settings_and_every_answer(tmp_path):
    report = run(Known())
    file = tmp_path / "report.json"
    save_report(report, file)
    stored = json.loads(file.read_text(encoding="utf-8"))
    assert stored["settings"]["model"] == asdict(Known.info)
    assert {name: stored["settings"][name] for name in ("kinds", "count", "seed", "split", "level")} == {
        "kinds": ["scenes", "labels"], "count": 4, "seed": 2, "split": "heldout", "level": LEVEL,
    }  # fmt: skip
    assert stored["settings"]["sampling"]["temperature"] == 0.0
    assert [Answered(**answer) for answer in stored["answers"]] == list(report.answers)
    assert "answers" not in to_json(report, with_answers=False)
    assert [file.name for file in tmp_path.iterdir()] == ["report.json"]


def test_a_report_that_cannot_be_written(tmp_path):
    with pytest.raises(
        SettingError, match=r"cannot write the report .*nowhere/report\.json: No such file or directory"
    ):
        save_report(run(Known(), count=1), tmp_path / "nowhere" / "report.json")


def test_languages_take_turns_and_are_scored_apart():
    def say(truth: str) -> str:
        return truth if truth not in ("rot", "Stern") else "red"

    report = run(Known(say), kinds=("scenes",), count=8, languages=("en", "de"))
    assert {answer.language for answer in report.answers} == {"en", "de"}
    scores = {score.task: score for score in report.scores}
    assert scores["en (all)"].measure is None
    german = [answer for answer in report.answers if answer.language == "de"]
    named = [answer for answer in german if answer.task in ("scenes.colour", "scenes.shape", "scenes.exists")]
    assert named
    wanted = sum(answer.answer != "red" for answer in named) / len(named)
    assert scores["de (all)"].measure.name == "in the language asked"
    assert scores["de (all)"].measure.value == pytest.approx(wanted)
    assert scores["de (all)"].count == len(german)


def test_the_page_shows_a_typical_mistake_of_every_task(tmp_path):
    report = run(Known(lambda truth: truth[:-1] + "?"), kinds=("scenes",), count=4)
    tasks = {answer.task for answer in report.answers}
    assert {answer.task for answer in choose(report.answers, 1)} == tasks
    assert choose([replace(answer, answer=answer.truth) for answer in report.answers]) == []
    save_mistakes(report, tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as page:
        assert page.format == "PNG"
    assert page.width > 1000 and page.height > 300
    assert [path.name for path in tmp_path.iterdir()] == ["page.png"]
    with pytest.raises(SettingError, match="cannot write the page"):
        save_mistakes(report, tmp_path / "missing" / "page.png")


@pytest.mark.parametrize(
    ("task", "text", "is_measured"), [("tables.markdown", "| a |", True), ("scenes.exists", "ja", False)]
)
def test_a_measure_of_words_leaves_out_other_languages(task, text, is_measured):
    german = Answered(key="k", task=task, question="?", truth=text, answer=text, language="de")
    assert (score(task, [german]).measure is not None) == is_measured
