"""Answers of a policy behind an OpenAI-compatible endpoint: those of the model itself, and never silently others."""

import json
from collections.abc import Iterator

import pytest
from tests.align.conftest import Moody, moody
from tests.serve.conftest import start, stop

import handlens
from handlens.align.asks import Ask, Drawn
from handlens.align.divide import divide_all
from handlens.align.journal import Journal
from handlens.align.pairs import HowToPair, make_pairs
from handlens.align.sample import HowToSample, sample, sample_one
from handlens.cli.main import run
from handlens.engine.openai import Endpoint, OpenAIAnswerer
from handlens.errors import ModelError

HOW = HowToSample(num_answers=3, temperature=1.2, max_tokens=8)


def scene(number: int = 3) -> Ask:
    picture = Drawn(kind="scenes", seed=1, index=number, split="train", level=0.0)
    return Ask(id=f"scene-{number}", question="What do you see?", picture=picture)


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    """Address of the server of ``handlens serve`` with the shipped nano, on a port of this machine."""
    pytest.importorskip("fastapi", reason="the server needs the extra 'serve'")
    pytest.importorskip("uvicorn", reason="the server needs the extra 'serve'")
    from handlens.serve.app import build_app
    from handlens.serve.settings import ServerSettings

    running = start(build_app(handlens.load("nano", keep=True), ServerSettings()))
    yield f"{running.url}/v1"
    stop(running)


def test_a_served_policy_gives_the_answers_of_the_model_itself(served, tmp_path):
    shown = scene()
    counts = sample([shown], served, HOW, Journal(tmp_path / "answers.jsonl", {}))
    assert counts == {"ok": 1}
    row = json.loads((tmp_path / "answers.jsonl").read_text().splitlines()[-1])
    here = handlens.load("nano", keep=True)
    seen = here.see([shown.picture.open()])
    from handlens.core.chat import ask

    for told, sampling in zip(row["answers"], HOW.samplings(shown.id), strict=True):
        tokens = list(here.answer(ask(shown.question), seen, sampling))
        assert told["text"] == "".join(token.text for token in tokens)
        assert told["seed"] == sampling.seed and told["tokens"] == len(tokens)
        assert told["logprob"] == pytest.approx(sum(token.logprob for token in tokens), abs=1e-3)


def test_a_round_samples_from_an_endpoint(served, tmp_path, capsys):
    words = ["nano:rlaif", "--from", str(handlens.PACKAGED["nano"]), "--out", str(tmp_path / "run"), "--rounds", "1"]
    words += ["--pictures", "2", "--answers", "2", "--max-tokens", "8", "--answers-from", f"{served}#nano"]
    assert run(["align", *words, "--until", "divide", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rounds"][0]["sample"] == {"ok": 2} and told["rounds"][0]["divide"]["answers"] == 4


def test_an_address_where_nobody_answers_is_an_error_at_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("handlens.engine.openai.TRIES", 1)
    words = ["nano:rlaif", "--out", str(tmp_path / "run"), "--answers-from", "http://127.0.0.1:9/v1"]
    assert run(["align", *words]) == 1
    told = capsys.readouterr().err
    assert "cannot reach http://127.0.0.1:9/v1/models" in told and len(told.strip().splitlines()) == 1


def said(mode: str, asked: dict) -> dict:
    """A sentence that tells its seed; or nothing."""
    text = "" if mode == "silent" else f"A red ring, {asked['seed']} times."
    return {"choices": [{"message": {"content": text}}], "usage": {"completion_tokens": 4}}


@pytest.fixture
def policy(monkeypatch) -> Iterator[Moody]:
    with moody(said, "handlens.align.sample.open_policy", monkeypatch) as server:
        yield server


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("mode", ["slow", "dead", "html"])
def test_a_policy_that_fails_is_told_and_asked_again_by_the_next_run(policy, tmp_path, mode):
    file = tmp_path / "answers.jsonl"
    policy.mode = mode
    first = Journal(file, {})
    assert sample([scene()], "policy", HOW, first) == {"failed": 1}
    assert first.rows["scene-3"]["note"] and first.rows["scene-3"]["answers"] == []
    policy.mode = "good"
    policy.leave.set()
    again = Journal(file, {})
    assert sample([scene()], "policy", HOW, again) == {"ok": 1}
    seeds = [answer["seed"] for answer in again.rows["scene-3"]["answers"]]
    assert [one["text"] for one in again.rows["scene-3"]["answers"]] == [f"A red ring, {s} times." for s in seeds]
    # Without probabilities a sum is not known; it is never taken for 0.
    assert [(one["tokens"], one["logprob"]) for one in again.rows["scene-3"]["answers"]] == [(4, None)] * 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_policy_that_died_ends_the_run(policy, tmp_path):
    policy.mode = "dead"
    with pytest.raises(ModelError, match="20 questions failed one after the other"):
        sample([scene(number) for number in range(25)], "policy", HOW, Journal(tmp_path / "answers.jsonl", {}))


def test_a_policy_that_says_nothing_is_never_scored(policy, tmp_path):
    policy.mode = "silent"
    row = sample_one(OpenAIAnswerer(Endpoint(f"http://127.0.0.1:{policy.server_port}/v1"), "policy"), scene(), HOW)
    claims = Journal(tmp_path / "claims.jsonl", {})
    assert divide_all([row], "rules", claims)["empty"] == 3
    made = make_pairs(claims.rows.values(), {"scene-3": {"status": "ok", "claims": {}}}, HowToPair())
    assert not made.pairs and made.statistics["scored"] == 0 and made.statistics["answers left out"] == {"empty": 1}
