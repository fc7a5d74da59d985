"""Claims to a judge that may die: every failure is written down, and nothing is scored that was not read."""

import math

import pytest
from tests.align.conftest import moody

from handlens.align.asks import Ask, Drawn, Stored
from handlens.align.conquer import JudgeOne, conquer
from handlens.align.divide import DivideOne
from handlens.align.journal import Journal
from handlens.align.pairs import HowToPair, make_pairs
from handlens.errors import ModelError

SCENE = Ask(
    id="s", question="What do you see?", picture=Drawn(kind="scenes", seed=1, index=2, split="train", level=0.0)
)
THING = SCENE.picture.record().things[0]
TRUE = f"A {THING.colour} {THING.shape}."


def divided(*answers: str, name: str = "s") -> dict:
    return DivideOne("rules")(
        {"id": name, "question": SCENE.question, "answers": [{"text": text} for text in answers]}
    )  # fmt: skip


def test_the_truth_supports_what_is_there_and_rejects_the_rest(tmp_path):
    row = divided(TRUE, "A pink elephant.", "")
    verdicts = Journal(tmp_path / "verdicts.jsonl", {})
    counts = conquer([row], {"s": SCENE}, "truth", verdicts)
    claims = verdicts.rows["s"]["claims"]
    assert counts["questions ok"] == 1 and claims[f"There is a {THING.colour} {THING.shape}."]["verdict"] == "supported"
    assert counts["unread"] == 1, "the record does not tell of elephants, so nobody is blamed"


def test_a_whole_answer_is_true_where_every_claim_is():
    row = DivideOne("whole")({"id": "s", "question": "What?", "answers": [{"text": TRUE}, {"text": f"{TRUE} A Dog."}]})
    told = JudgeOne("truth", {"s": SCENE})(row)["claims"]
    assert (
        told[TRUE]["verdict"] == "supported" and told[f"{TRUE} A Dog."]["verdict"] == "rejected"
    )  # nothing is printed there


def test_a_claim_said_by_many_answers_is_judged_once(known, monkeypatch):
    judge = known(believe=lambda question: 0.9)
    monkeypatch.setattr("handlens.align.conquer.open_policy", lambda name: judge)
    row = divided("A red ring.", "A red ring, a blue star.", "A blue star.")
    told = JudgeOne("known", {"s": SCENE}, yes_no=True)(row)
    assert judge.scores == 2 and judge.looks == 1 and len(told["claims"]) == 2


def test_a_picture_that_vanished_is_told(known, monkeypatch, tmp_path):
    monkeypatch.setattr("handlens.align.conquer.open_policy", lambda name: known())
    gone = Ask(id="s", question="What?", picture=Stored(name="gone", path=tmp_path / "gone.png"))
    told = JudgeOne("known", {"s": gone})(divided("A red ring."))
    assert told["status"] == "no_picture" and "gone.png" in told["note"]


def verdict(mode: str, asked: dict) -> dict:
    """Yes with 0.7, no with 0.2; or nonsense."""
    top = [{"token": "yes", "logprob": math.log(0.7)}, {"token": "no", "logprob": math.log(0.2)}]
    if mode == "nonsense":
        top = [{"token": "banana", "logprob": -0.1}]
    piece = {"token": "yes", "logprob": -0.3, "top_logprobs": top}
    return {"choices": [{"message": {"content": "yes"}, "logprobs": {"content": [piece]}}]}


@pytest.fixture
def endpoint(monkeypatch):
    with moody(verdict, "handlens.align.conquer.open_policy", monkeypatch) as server:
        yield server


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("mode", ["slow", "dead", "html", "nonsense"])
def test_a_judge_that_fails_scores_nothing_and_is_asked_again_later(endpoint, tmp_path, mode):
    row, file = divided("A red ring.", "A red star."), tmp_path / "verdicts.jsonl"
    endpoint.mode = mode
    first = Journal(file, {})
    counts = conquer([row], {"s": SCENE}, "judge", first)
    assert counts["questions failed"] == 1 and counts["unread"] == 2 and first.rows["s"]["note"]
    assert make_pairs([row], first.rows, HowToPair()).statistics["answers left out"] == {"judge: failed": 2}
    endpoint.mode = "good"
    endpoint.leave.set()
    again = Journal(file, {})
    assert conquer([row], {"s": SCENE}, "judge", again) == {"questions ok": 1, "supported": 2}
    told = again.rows["s"]["claims"]["There is a red ring."]
    assert (told["p_yes"], told["p_no"]) == (0.7, 0.2)


def test_a_judge_that_died_stops_the_run(endpoint, tmp_path):
    endpoint.mode = "dead"
    rows = [divided("A red ring.", name=f"s{number}") for number in range(25)]
    asks = {row["id"]: SCENE for row in rows}
    with pytest.raises(ModelError, match="the judge failed at 20 questions one after the other"):
        conquer(rows, asks, "judge", Journal(tmp_path / "verdicts.jsonl", {}))
