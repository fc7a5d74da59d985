"""The runner: what goes wrong is counted, a stopped run goes on, two models are compared, a grader grades."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlens.errors import ModelError, SettingError
from handlens.eval.compare import compare
from handlens.eval.grader import Grader, agreement
from handlens.eval.report import check_one_grader, write_page
from handlens.eval.runner import load_items, run_task
from handlens.eval.session import Asked, evaluate
from handlens.eval.stats import bootstrap, compare_units, mcnemar, share_interval, sign_flip
from handlens.eval.task import Item
from handlens.eval.tasks import find_tasks, known_tasks

DATA = Path(__file__).parent / "data"


@pytest.fixture
def run(scripted):
    def run(task: str, say, **more):
        found = known_tasks()[task]
        items, duplicates = load_items(found, DATA)
        recipe = more.pop("recipe", found.recipes[0])
        return run_task(scripted(say), found, recipe, items, data=DATA, duplicates=duplicates, **more)

    return run


# ---- what goes wrong -------------------------------------------------------------------------------------------------


def test_a_missing_picture_is_counted_and_shown(run, tmp_path):
    result = run("textvqa", lambda question, name: "stop")
    assert result.counts["no_picture"] == 1
    assert result.count == 2
    (lost,) = [given for given in result.given if given.status == "no_picture"]
    assert "does not exist" in lost.note
    write_page([result], [], tmp_path / "page.html")
    assert "does not exist" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_an_error_of_the_model_is_one_lost_answer(run, scripted):
    def say(question, name):
        if "orange" in question:
            raise ModelError("out of order")
        return "Yes"

    result = run("mme", say)
    assert result.counts["failed"] == 3
    assert result.count == 6
    assert {given.note for given in result.given if given.status == "failed"} == {"out of order"}


@pytest.mark.parametrize("task", ["mmbench-en", "textvqa", "docvqa", "ocrbench", "mathvista", "mm-vet", "llava-bench",
                                  "object-halbench", "mme", "mmmu-official", "amber-generative"])  # fmt: skip
def test_an_answer_of_100_kb_is_marked_at_once_and_told(run, task):
    result = run(task, lambda question, name: "blah blah 7 " * 8_500)
    assert result.counts["run_away"] == result.count - result.counts.get("no_picture", 0)
    assert math.isfinite(result.value)


def test_an_answer_that_no_rule_can_read_is_a_miss_and_says_so(run):
    result = run("mmstar", lambda question, name: "hard to say")
    assert (result.value, result.counts["unparsed"]) == (0.0, 4)


def test_rows_without_a_picture_and_without_a_truth_are_told_and_stay(scripted):
    task = known_tasks()["mmstar"]
    items = [Item(id=str(n), question="?", options={"A": "a", "B": "b"}, truth=("A",) if n else ()) for n in range(3)]
    result = run_task(scripted(lambda question, name: "A"), task, task.recipes[0], items, data=DATA)
    assert (result.counts["text_only"], result.counts["without_truth"], result.count) == (3, 1, 3)
    assert result.value == pytest.approx(200 / 3)


def test_what_could_not_be_asked_is_asked_again(run, tmp_path):
    def say(question, name):
        raise ModelError("cannot reach http://127.0.0.1:1/v1")

    lost = run("mme", say, out=tmp_path)
    assert (lost.counts["failed"], lost.value) == (lost.count, 0)
    assert "6 of 6 questions were not answered: cannot reach" in lost.notes[-1]
    again = run("mme", lambda question, name: "Yes", out=tmp_path)
    assert again.to_json() == run("mme", lambda question, name: "Yes").to_json()
    assert run("mme", None, out=tmp_path).value == again.value  # the later line of the journal counts


# ---- going on --------------------------------------------------------------------------------------------------------


def test_a_run_that_was_stopped_goes_on_where_it_was(run, tmp_path):
    asked: list[str] = []

    def say(question, name):
        if len(asked) == 3:
            raise KeyboardInterrupt
        asked.append(question)
        return "Yes"

    with pytest.raises(KeyboardInterrupt):
        run("mme", say, out=tmp_path)
    (journal,) = tmp_path.rglob("*.jsonl")
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"id": "5", "answ')  # the line at which a machine lost power
    again: list[str] = []
    result = run("mme", lambda question, name: again.append(question) or "Yes", out=tmp_path)
    assert len(again) == 3
    assert result.counts["ok"] == 6
    assert result.to_json() == run("mme", lambda question, name: "Yes").to_json()
    assert run("mme", None, out=tmp_path).value == result.value  # nothing is asked a third time


def test_a_journal_of_other_settings_is_refused(run, tmp_path):
    run("mme", lambda question, name: "Yes", out=tmp_path)
    with pytest.raises(SettingError, match="was written with another model"):
        run("mme", lambda question, name: "Yes", out=tmp_path, fingerprint="other")


def test_settings_stand_with_the_number(run):
    recipe = known_tasks()["mmstar"].recipe("leaderboard")
    settings = run("mmstar", lambda question, name: "A", recipe=recipe).settings
    assert settings["recipe"]["sampling"]["num_beams"] == 3
    assert "Carefully read" in settings["recipe"]["before"]
    assert settings["data"]["files"] == ["MMStar.tsv"]
    assert settings["data"]["is_published_file"] is False  # ours, not the one of the same name
    assert len(settings["questions_sha256"]) == 64


# ---- two models ------------------------------------------------------------------------------------------------------


def test_two_models_on_the_same_questions(run):
    task = known_tasks()["mmstar"]
    truth = {item.id: item.truth[0] for item in load_items(task, DATA)[0]}
    right = run("mmstar", lambda question, name: truth[name], label="right")
    wrong = run("mmstar", lambda question, name: "none", label="wrong")
    gap = compare(task, right, wrong)
    # Four questions that only the first gets: two-sided exact p = 2 / 2^4.
    assert (gap["difference"], gap["p"], gap["first_only"], gap["second_only"]) == (100.0, 0.125, 4, 0)
    same = compare(task, right, right)
    assert (same["difference"], same["p"]) == (0.0, 1.0)


def test_a_session_writes_results_and_a_page_that_asks_for_nothing(scripted, tmp_path):
    one = Asked(label="one", model=scripted(lambda q, n: "Yes <script>alert(1)</script>"), fingerprint="1")
    two = Asked(label="two", model=scripted(lambda q, n: "No"), fingerprint="2")
    results, gaps = evaluate(one, two, find_tasks("mme,mmstar"), data=DATA, out=tmp_path, recipe="both")
    assert {(r.model, r.task, r.recipe) for r in results} == {
        (m, t, r) for m in ("one", "two") for t in ("mme", "mmstar") for r in ("shipped", "leaderboard")
    }  # fmt: skip
    assert len(gaps) == 4
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert 'src="data:image/jpeg;base64,' in page
    assert not [word for word in ('src="http', "href=", "@import", "url(") if word in page]
    for name in ("as shipped", "leaderboard recipe", "95 %", "McNemar", "questions_sha256"):
        assert name in page
    stored = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert [row["value"] for row in stored["results"]] == [row.value for row in results]
    assert json.dumps(stored, allow_nan=False)


def test_an_average_brings_its_parts_to_a_hundred(scripted, tmp_path):
    model = Asked(label="m", model=scripted(lambda q, n: "Yes"), fingerprint="")
    with pytest.raises(Exception, match="no data of mmstar"):
        evaluate(model, None, find_tasks("opencompass-8"), data=tmp_path)
    results, _ = evaluate(model, None, find_tasks("opencompass-8"), data=DATA)
    whole = results[-1]
    parts = {result.task: result.value / known_tasks()[result.task].divide_by for result in results[:-1]}
    assert whole.task == "opencompass-8"
    assert whole.value == pytest.approx(sum(parts.values()) / 8)


# ---- a grader --------------------------------------------------------------------------------------------------------


def test_a_grader_grades_is_kept_and_agrees_or_not(run, tmp_path):
    asked: list[str] = []

    def say(prompt, max_tokens, temperature):
        asked.append(prompt)
        return "1.0" if "green" in prompt.split("Answer:")[1] else "0.0"

    def grader():
        return Grader(name="judge", version="7", say=say, cache=tmp_path / "grader.jsonl")

    result = run("mm-vet", lambda question, name: "It is green.", grader=grader())
    assert result.value == 100.0
    assert result.grader["grader"] == "judge"
    assert (result.grader["version"], len(result.grader["prompt_sha256"])) == ("7", 64)
    # The rules give 0 to the first and 1 to the second.
    assert result.agreement["equal"] == 0.5
    before = len(asked)
    again = run("mm-vet", lambda question, name: "It is green.", grader=grader())
    assert again.value == 100.0
    assert len(asked) == before  # every reply was kept


def test_a_reply_that_cannot_be_read_counts_nought_and_is_told(run):
    grader = Grader(name="judge", version="1", say=lambda *told: "I would rather not say.")
    for task, best in (("mm-vet", 0.0), ("llava-bench", 0.0), ("mmhal-bench", 0.0), ("mathvista", 0.0)):
        result = run(task, lambda question, name: "green 1", grader=grader)
        assert result.value == best
        assert result.counts["grader_unparsed"] == result.count - result.counts.get("no_picture", 0)
    assert {row["reply"] for row in grader.unreadable} == {"I would rather not say."}


def test_only_answers_that_rules_cannot_read_are_graded(run):
    asked = []
    grader = Grader(name="judge", version="1", say=lambda prompt, *told: asked.append(prompt) or "B")
    run("mmstar", lambda question, name: "A" if name < "2" else "hard to say", grader=grader)
    assert len(asked) == 2


def test_never_two_graders_in_one_table(run):
    one = run("mm-vet", lambda q, n: "x", grader=Grader(name="a", version="1", say=lambda *told: "0.5"))
    two = run("llava-bench", lambda q, n: "x", grader=Grader(name="b", version="1", say=lambda *told: "8 8"))
    with pytest.raises(SettingError, match="one table never holds two graders"):
        check_one_grader([one, two])
    rules = run("mm-vet", lambda q, n: "x")
    with pytest.raises(SettingError, match="one number is graded, another marked by rules"):
        check_one_grader([one, rules])
    with pytest.raises(SettingError, match="graded in two ways"):
        compare(known_tasks()["mm-vet"], one, rules)


def test_agreement_by_hand():
    # 3 of 4 equal; chance = (2/4 * 3/4) + (2/4 * 1/4) = 0.5; kappa = (0.75 - 0.5) / 0.5.
    told = agreement([(1.0, 1.0), (1.0, 1.0), (0.0, 1.0), (0.0, 0.0)])
    assert (told["equal"], told["kappa"], told["mean_gap"]) == (0.75, 0.5, -0.25)


# ---- intervals and tests ---------------------------------------------------------------------------------------------


def test_mcnemar_by_hand():
    assert mcnemar(0, 0) == 1.0
    # 1 of 9 discordant: 2 * (1 + 9) / 2^9.
    assert mcnemar(8, 1) == pytest.approx(2 * 10 / 512)
    assert mcnemar(3, 3) == 1.0


def test_sign_flip_counts_all_patterns():
    # Three gaps of one sign: 2 of 8 sign patterns are as extreme.
    assert sign_flip(np.array([1.0, 1.0, 1.0])) == 0.25
    assert sign_flip(np.array([0.0, 0.0])) == 1.0


@settings(max_examples=20)
@given(st.lists(st.sampled_from([0.0, 0.3, 1.0]), min_size=2, max_size=40))
def test_an_interval_holds_its_mean(scores):
    mean = sum(scores) / len(scores)
    interval = share_interval(scores)
    assert interval.low - 1e-9 <= mean <= interval.high + 1e-9


def test_a_bootstrap_of_units_is_repeatable_and_near_theory():
    rng = np.random.default_rng(0)
    values = list(rng.normal(0, 1, 400))
    one, two = (bootstrap(values, lambda drawn: float(np.mean(drawn))) for _ in range(2))
    assert one == two
    # 1.96 standard errors of a mean of 400: 0.098.
    assert (one.high - one.low) / 2 == pytest.approx(0.098 * np.std(values), rel=0.15)


def test_a_real_difference_is_found_and_none_is_not():
    rng = np.random.default_rng(1)
    base = rng.random(300)
    better = compare_units(list(base + 0.1), list(base + rng.normal(0, 0.2, 300)))
    assert better.p < 0.01
    assert better.interval.low > 0
    none = compare_units(list(base), list(base[::-1]))
    assert none.p > 0.05
