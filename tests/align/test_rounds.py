"""Whole rounds on a small model: what is left on disk, what a kill leaves, what is refused."""

import json
import os
import signal
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import handlens
from handlens.align import rounds
from handlens.align.dpo import Dpo
from handlens.align.experiments import Experiment, run_experiment
from handlens.align.rounds import Alignment, align, learn_from_file, read_corrections, read_pairs
from handlens.align.sample import HowToSample
from handlens.cli.main import run
from handlens.config import HandlensConfig, LanguageConfig, ResamplerConfig, SlicingConfig, VisionConfig
from handlens.core.tokenizer import Tokenizer
from handlens.errors import DataError, ModelError, SettingError, TrainingError
from handlens.model.checkpoint import save_model
from handlens.model.vlm import build_model
from handlens.train.lora import Lora
from handlens.train.vocabulary import save_vocabulary, train_vocabulary

TEXTS = ["A small red ring at the top, a large blue star at the bottom.", "What do you see? Describe the picture."] * 4


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with random weights."""
    folder = tmp_path_factory.mktemp("policy")
    save_vocabulary(train_vocabulary(TEXTS, 300), folder / "vocabulary.json")
    torch.manual_seed(2)
    config = HandlensConfig(
        vision=VisionConfig(width=96, mlp_width=128, num_layers=1, num_heads=2),
        resampler=ResamplerConfig(num_queries=16, width=128, vision_width=96),
        language=LanguageConfig(vocab_size=Tokenizer.from_file(folder / "vocabulary.json").vocab_size, width=128,
                                mlp_width=192, num_layers=1, num_heads=2, num_kv_heads=1, tied=True),
        slicing=SlicingConfig(side_px=112, max_slices=2),
    )  # fmt: skip
    save_model(build_model(config), folder / "toy", folder / "vocabulary.json")
    return folder / "toy"


@pytest.fixture
def ask(policy: Path, tmp_path: Path) -> Alignment:
    """One short round; a random model says nothing to judge, so true answers with changed words stand in."""
    return Alignment(
        model=policy, out=tmp_path / "run", rounds=1, pictures=3, level=0.0, answers_from="rules", epochs=1.0,
        sampling=HowToSample(num_answers=4), pairs_per_step=2, rate=1e-3,
    )  # fmt: skip


def test_two_rounds_leave_every_station_on_disk(ask):
    told = align(replace(ask, rounds=2))
    assert [one["round"] for one in told["rounds"]] == [1, 2]
    first, second = (ask.out / name for name in ("round-1", "round-2"))
    for folder in (first, second):
        pairs = read_pairs(folder / "pairs.jsonl")
        assert pairs and all(pair.chosen_score >= pair.rejected_score + 1 for pair in pairs)
        # The judge is the truth: what it rejects is not in the picture, so it is not in the true answer.
        assert all(len(pair.rejected_wrong) == -pair.rejected_score for pair in pairs)
    ids = [{pair.ask for pair in read_pairs(folder / "pairs.jsonl")} for folder in (first, second)]
    assert not ids[0] & ids[1]
    page = (first / "pairs.html").read_text()
    assert page.count("<article>") == len(read_pairs(first / "pairs.jsonl")) and "data:image/webp;base64," in page
    assert "http" not in page and "<script" not in page
    assert handlens.load(ask.out / "aligned").info.family == "nano"
    weights = [(folder / "align" / "model.safetensors").read_bytes() for folder in (first, second)]
    assert weights[0] != weights[1] == (ask.out / "aligned" / "model.safetensors").read_bytes()
    ledger = json.loads((second / "align" / "ledger.json").read_text())
    assert ledger["base"] == str(first / "align")

    before = {file: file.stat().st_mtime_ns for file in ask.out.rglob("*.jsonl") if file.name != "pairs.jsonl"}
    assert align(replace(ask, rounds=2))["rounds"] == told["rounds"]
    assert before == {file: file.stat().st_mtime_ns for file in before}, "a finished run computes nothing again"
    with pytest.raises(SettingError, match=r"answers.jsonl was made with temperature 0.7, now it is 0.9"):
        align(replace(ask, rounds=2, sampling=HowToSample(num_answers=4, temperature=0.9)))


def begin(words: list[str], log: Path) -> int:
    """``handlens align ...`` in a child."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer Pythons warn of forks beside threads; the child uses one
        child = os.fork()
    if child == 0:
        try:
            os.setsid()
            sys.stdout = sys.stderr = log.open("w", buffering=1)
            torch.set_num_threads(1)
            os._exit(run(["align", *words]))
        finally:
            os._exit(99)
    return child


@pytest.mark.parametrize(
    "hits",
    [
        ((signal.SIGTERM, "align/state"),),
        pytest.param(((signal.SIGKILL, "answers.jsonl"), (signal.SIGKILL, "align/state")), marks=pytest.mark.soak),
    ],
)
def test_a_killed_run_goes_on_to_the_same_weights(policy, tmp_path, hits):
    words = ["nano:rlaif", "--from", str(policy), "--rounds", "1", "--pictures", "3", "--answers", "4", "--epochs", "2",
             "--answers-from", "rules", "--pairs-per-step", "1", "--rate", "1e-3"]  # fmt: skip
    straight, hit = tmp_path / "straight", tmp_path / "hit"
    child = begin([*words, "--out", str(straight)], tmp_path / "straight.log")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, (tmp_path / "straight.log").read_text()
    for number, wanted in hits:
        child = begin([*words, "--out", str(hit)], tmp_path / "hit.log")
        end = time.monotonic() + 120
        while not (hit / "round-1" / wanted).exists() and time.monotonic() < end:
            time.sleep(0.005)
        os.kill(child, number)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said = (tmp_path / "hit.log").read_text()
        assert code in (-signal.SIGKILL, 143, 0), said
        if code == 143:
            assert said.startswith("handlens align: stopped by SIGTERM") and said.endswith(
                "; the same command goes on\n"
            )
    child = begin([*words, "--out", str(hit)], tmp_path / "hit.log")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, (tmp_path / "hit.log").read_text()
    for name in ("aligned/model.safetensors", "round-1/pairs.jsonl", "round-1/answers.jsonl"):
        assert (hit / name).read_bytes() == (straight / name).read_bytes(), name


def test_corrections_by_people_are_learned_from(ask, tmp_path):
    Image.new("RGB", (90, 60), "red").save(tmp_path / "a.png")
    row = {"image": "a.png", "question": "What do you see?", "chosen": "A red ring.", "rejected": "A blue ring."}
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps(row) + "\n\n" + json.dumps(row | {"rejected": "A blue star."}) + "\n")
    dense = replace(ask, dpo=Dpo(form="length", beta=0.5, segment_weight=5.0), epochs=4.0, pairs_per_step=1)
    told = learn_from_file(dense, file)["rounds"][0]["learn"]
    assert told["pairs"] == 2 and told["last"]["margin"] > 0 == told["first"]["margin"]
    for bad, message in (
        ("[1]", "needed is an object with image, question, chosen and rejected"),
        (json.dumps(row | {"rejected": "A red ring. "}), "both answers are the same; remove the line"),
        (json.dumps(row | {"chosen": ""}), "must be words"),
        ("", "is empty; write one pair a line"),
    ):
        file.write_text(bad)
        with pytest.raises(DataError, match=message):
            read_corrections(file)
    file.write_text(json.dumps(row | {"image": "gone.png"}))
    with pytest.raises(DataError, match=r"gone.png"):
        learn_from_file(replace(dense, out=tmp_path / "other"), file)


def test_the_language_model_learns_alone(ask, policy):
    align(replace(ask, trains=("language",)))
    before, after = (load_file(folder / "model.safetensors") for folder in (policy, ask.out / "aligned"))
    moved = {name.partition(".")[0] for name, weight in before.items() if not torch.equal(weight, after[name])}
    assert moved == {"llm"}


@pytest.mark.soak
def test_an_adapter_learns_and_is_merged(ask, policy):
    told = align(replace(ask, lora=Lora(saved=(), rank=2, alpha=4), dpo=Dpo(reference="adapter")))
    assert (ask.out / "round-1" / "align" / "adapter").is_dir()
    assert not (ask.out / "round-1" / "references.jsonl").exists()
    assert told["rounds"][0]["learn"]["first"]["preference"] == pytest.approx(0.6931, abs=1e-3)
    assert {file.name for file in policy.iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert handlens.load(ask.out / "aligned").info.engine == "torch"


def test_a_round_without_a_pair_says_why(ask):
    with pytest.raises(TrainingError, match=r"round 1 gives no pair: 0 of 12 answers were scored \(\{'"):
        align(replace(ask, answers_from="", sampling=HowToSample(num_answers=4, max_tokens=4)))


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "missing argument 'RECIPE'; known: nano:rlaif, rlaif, rlhf-v, measure, compare"),
        (["nano:rlai", "--out", "x"], 1, "unknown recipe 'nano:rlai'; did you mean 'nano:rlaif'?"),
        (["nano:rlaif"], 2, "missing option '--out'; name the folder of the run"),
        (["rlhf-v", "--out", "x"], 2, "missing option '--pairs'"),
        (["rlaif", "--out", "x", "--data", "d.json"], 1, "the truth is known of generated pictures only"),
        (["rlaif", "--out", "x", "--until", "dpo"], 1, "there is no station 'dpo'; known: sample, divide, conquer"),
        (["rlaif", "--out", "x", "--trains", "eyes"], 1, "there is no part 'eyes'; known: vision, resampler, language"),
        (["rlaif", "--out", "x", "--trains", ","], 1, "no part learns; name at least one: vision, resampler"),
        (["rlaif", "--out", "x", "--beta", "0"], 1, "beta is 0; it must be above 0"),
        (["rlaif", "--out", "x", "--answers", "1"], 1, "1 answer per question cannot be compared"),
        (["compare", "--out", "x", "--variants", "ful"], 1, "there is no variant 'ful'; did you mean 'full'?"),
    ],
)
def test_wrong_words_are_answered_in_one_line(capsys, tmp_path, monkeypatch, words, code, message):
    monkeypatch.chdir(tmp_path)
    assert run(["align", *words]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("handlens align: ") and err.count("\n") == 1 and message in err


def test_nano_has_settings_of_its_own_where_none_are_given(monkeypatch, tmp_path):
    told: list[Alignment] = []
    monkeypatch.setattr(rounds, "align", lambda ask, report: told.append(ask) or {"rounds": [], "folder": ""})
    out = ["--out", str(tmp_path / "run")]
    assert run(["align", "nano:rlaif", *out, "--rate", "1e-6", "--balance", "--rounds", "4"]) == 0
    assert run(["align", "rlaif", *out]) == 0
    nano, plain = told
    assert (nano.rate, nano.pairing.balance, nano.rounds) == (1e-6, True, 4), "what is given counts"
    assert (nano.trains, nano.pictures, nano.pairing.keeps_facts) == (("language",), 100, True)
    assert (plain.trains, plain.pictures, plain.rounds) == (("vision", "resampler", "language"), 300, 4)
    assert plain.pairing == replace(nano.pairing, difference=1.0, keeps_facts=False)


@pytest.mark.soak
def test_a_later_round_without_a_pair_ends_the_run_with_what_was_learned(ask, monkeypatch):
    made = rounds.make_pairs
    calls = []

    def once(divided, judged, how):
        calls.append(1)
        return made(divided, judged, replace(how, difference=how.difference if len(calls) == 1 else 99.0))

    monkeypatch.setattr(rounds, "make_pairs", once)
    told = align(replace(ask, rounds=4))["rounds"]
    assert [one["round"] for one in told] == [1, 2] and told[1]["ended"].startswith("round 2 gives no pair")
    weights = [ask.out / name / "model.safetensors" for name in ("aligned", "round-1/align")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_variants_are_compared_in_a_fresh_folder(ask):
    wanted = Experiment(base=ask, variants=("off-policy",), seeds=(1,), scenes=2, tasks=0)
    rows = run_experiment(wanted)["rows"]
    assert [row["variant"] for row in rows] == ["before", "off-policy"]
    assert (ask.out / "table.md").read_text(encoding="utf-8").count("\n| ") >= 2
    models = sorted(ask.out.rglob("model.safetensors"))
    assert str(run_experiment(wanted)["rows"]) == str(rows), "nothing is drawn or learned again"
    assert models and sorted(ask.out.rglob("model.safetensors")) == models


def test_a_folder_without_weights_is_refused(ask, tmp_path):
    for name in ("judge", "answers_from", "divider"):
        with pytest.raises(ModelError, match="unknown model 'nobody'"):
            align(replace(ask, **{name: "nobody"}))
    with pytest.raises(ModelError, match=r"no config.json in .*; alignment begins with"):
        align(replace(ask, model=tmp_path))
    assert run(["align", "--list"]) == 0
