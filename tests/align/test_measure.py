"""Figures of models whose truth is known: one cannot err, one throws a coin, one makes things up."""

import random
import re

import pytest

from handlens.align.experiments import VARIANTS, Experiment, share_answers, table_of, variant_of
from handlens.align.measure import (
    claims_of,
    describe_all,
    general_tasks,
    measure_judge,
    measure_warnings,
    rates,
    scenes,
)
from handlens.align.rounds import Alignment
from handlens.align.truth import is_true
from handlens.data.generate import generate
from handlens.errors import SettingError
from handlens.eval.heldout import evaluate

SCENES = scenes(8, level=0.0)
RECORDS = {record.key: record for _, record in SCENES}


@pytest.fixture
def knowing(known):
    """Knows the picture that it saw last; describes it with ``extra`` and judges by the truth, or by a coin."""

    class Knowing(known):
        def __init__(self, extra: str = "", coin: bool = False) -> None:
            self.extra, self.coin, self.draw = extra, coin, random.Random(3)
            super().__init__(say=self.tell, believe=self.decide)

        def see(self, images, *, max_slices=None):
            self.record = RECORDS[images[0].name]
            return super().see(images)

        def tell(self, question, sampling):
            named = ", ".join(f"a {thing.colour} {thing.shape}" for thing in self.record.things)
            return f"{named}{self.extra}."

        def decide(self, question):
            if self.coin:
                return self.draw.choice([0.2, 0.8])
            claim = re.sub("^(Is|Are) there", lambda match: f"There {match[1].lower()}", question).rstrip("?") + "."
            return 0.9 if is_true(claim, self.record) else 0.1

    return Knowing


def test_claims_are_true_about_half_of_the_time_and_false_in_one_word():
    rng = random.Random(1)
    drawn = [one for record in RECORDS.values() for one in claims_of(record, rng)]
    assert 0.3 < sum(truth for *_, truth in drawn) / len(drawn) < 0.75
    assert {kind for kind, *_ in drawn} == {"thing", "size", "place"}


def test_a_judge_that_knows_and_one_that_throws_a_coin(knowing):
    told = measure_judge(knowing(), SCENES)
    assert told["unread"] == 0 and told["all"]["accuracy"] == told["all"]["auc"] == 1.0
    assert told["all"]["calibration_error"] == pytest.approx(0.1)
    assert told["all"]["num"] == sum(told[kind]["num"] for kind in ("thing", "size", "place"))
    coin = measure_judge(knowing(coin=True), SCENES)["all"]
    low, high = coin["auc_interval"]
    assert low < 0.5 < high


def test_what_is_made_up_is_found_and_warned_of(knowing):
    honest, liar = knowing(), knowing(extra=", a pink cross, a gray heart")
    right = rates(describe_all(honest, SCENES), SCENES)
    assert (right["response"].value, right["mention"].value, right["recall"].value) == (0.0, 0.0, 100.0)
    answers = describe_all(liar, SCENES)
    wrong = rates(answers, SCENES)
    assert wrong["response"].value == 100.0 and wrong["recall"].value == 100.0
    low, high = wrong["mention"].interval.low, wrong["mention"].interval.high
    assert 0 < low <= wrong["mention"].value <= high < 100
    told = measure_warnings(liar, SCENES, answers)
    assert told["false"] == told["warned"] > 0
    assert told["precision"]["value"] == told["recall"]["value"] == 1.0
    by_coin = measure_warnings(liar, SCENES, answers, judge_with=knowing(coin=True))
    assert by_coin["recall"]["value"] < 0.9 and by_coin["precision"]["value"] < 0.9
    with pytest.raises(SettingError, match="give one for each"):
        measure_warnings(liar, SCENES, answers[1:])


def test_variants_differ_in_what_their_names_say(tmp_path):
    base = Alignment(model=tmp_path, out=tmp_path, rounds=4, pictures=100)
    runs = {one.name: variant_of(base, one.name, 2, tmp_path) for one in VARIANTS}
    assert {one.rounds * one.pictures for one in runs.values()} == {400}
    assert runs["off-policy"].answers_from == "rules" and runs["whole"].divider == "whole"
    assert runs["balanced"].pairing.balance and not runs["unbalanced"].pairing.balance
    assert len({one.out for one in runs.values()}) == len(VARIANTS)
    assert runs["own-judge"].judge == runs["yes-no"].judge == "policy" and not runs["own-judge"].yes_no
    assert Experiment(base=base).variants == tuple(runs)


def test_variants_begin_with_the_same_answers(tmp_path):
    base = Alignment(model=tmp_path, out=tmp_path, rounds=4, pictures=100)
    runs = {one.name: variant_of(base, one.name, 2, tmp_path) for one in VARIANTS}
    for name, text in (("full", "short"), ("whole", "all answers")):
        file = runs[name].out / "round-1" / "answers.jsonl"
        file.parent.mkdir(parents=True)
        file.write_text(text)
    for name in ("unbalanced", "off-policy"):
        share_answers(runs[name], list(runs.values()))
    assert (runs["unbalanced"].out / "round-1" / "answers.jsonl").read_text() == "all answers"
    assert not runs["off-policy"].out.exists(), "answers of another kind are sampled anew"
    share_answers(runs["full"], list(runs.values()))
    assert (runs["full"].out / "round-1" / "answers.jsonl").read_text() == "short", "what is there stays"


def test_general_tasks_are_those_of_eval(known):
    first = generate("scenes", 1, 0, split="heldout", level=0.5)
    truths = {turn.question: turn.answer for turn in first.turns}
    model = known(say=lambda question, sampling: truths.get(question, "nothing"))
    told = general_tasks(model, 3, kinds=("scenes",))
    expected = evaluate(model, kinds=("scenes",), count=3).answers
    assert told == {"scenes": [one.is_exact for one in expected]}
    assert told["scenes"][: len(first.turns)] == [True] * len(first.turns) and not all(told["scenes"])


def test_the_table_shows_rates_and_tasks():
    one = {"value": 12.34, "interval": [10.0, 15.0], "seeds": [12.0]}
    row = {"variant": "before", "about": "as it was", "tasks": {"lines": {"value": 33.3, "interval": [30.0, 36.6]}}}
    table = table_of([row | {"rates": dict.fromkeys(("response", "mention", "recall", "words"), one)}])
    assert table.splitlines()[0] == "| variant | response | mention | recall | words | lines |"
    none = {"variant": "whole", "about": "x", "tasks": {}, "rates": {}, "notes": ["seed 1: no pair"]}
    assert "| whole | - | - | - | - |" in table_of([none]) and "- **whole**: x; seed 1: no pair" in table_of([none])
    assert "| before | 12.3 (10.0-15.0) |" in table and table.splitlines()[2].endswith("| 33.3 (30.0-36.6) |")
