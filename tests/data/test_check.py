"""The doctor finds what is wrong, is silent about what is right, and survives everything."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from handlens.data.check import FIXES, check
from handlens.data.formats import FORMATS, read_samples
from handlens.data.samples import Damage, Encoded, Sample, talk
from handlens.errors import DataError


def kinds(report) -> list[str]:
    return [problem.kind for problem in report.problems]


@pytest.mark.parametrize("name", FORMATS)
def test_good_sets_have_no_problem(write, samples, target, name: str) -> None:
    report = check(read_samples(write(samples(), name)), target)
    assert report.to_json() == {"samples": 6, "problems": []}
    assert report.languages == {"en": 6}


def test_rich_samples_have_no_problem(rich, target) -> None:
    report = check(rich, target)
    assert kinds(report) == []
    assert report.slices == 4  # two pictures of 120x90 px in each of two samples; the third has none


def wrong(sample: Sample, **changes) -> Sample:
    return replace(sample, **changes)


CASES = {
    "missing-image": lambda s: wrong(s, images=(Encoded(name="a.png", path=Path("nowhere/a.png")),)),
    "corrupt-image": lambda s: wrong(s, images=(Encoded(name="a.png", data=s.images[0].data[:200]),)),
    "placeholder": lambda s: wrong(s, chat=talk([("Is it red?<slice>", "no")])),
    "roles": lambda s: wrong(s, chat=s.chat[:-1]),
    "empty": lambda s: wrong(s, chat=talk([("What?", " ")])),
    "broken-text": lambda s: wrong(s, chat=talk([("Quoi ?", "un caf\ufffd")])),
    "wrong-alphabet": lambda s: wrong(s, chat=talk([("Quoi ?", "un cafÃ© trÃ¨s chaud â€œ")])),
    "too-long": lambda s: wrong(s, chat=talk([("Read.", "word " * 3000)])),
    "box": lambda s: wrong(s, truth={"objects": [{"name": "cup", "box": [30, 2, 10, 40]}]}),
    "language": lambda s: wrong(s, language="ru"),
}


@pytest.mark.parametrize("kind", CASES)
def test_each_problem_has_its_name(samples, target, kind: str) -> None:
    good, bad = samples(2)
    report = check([good, CASES[kind](bad)], target)
    assert [(problem.kind, problem.sample) for problem in report.problems] == [(kind, "s1")]
    assert report.problems[0].fix.endswith(FIXES[kind])


def test_repeats_are_found_exactly_and_nearly(samples, target) -> None:
    first, _, third = samples(3)
    image = first.images[0].open().image
    small = io.BytesIO()
    image.resize((96, 72)).save(small, "JPEG", quality=70)
    again = wrong(first, key="again")
    near = wrong(first, key="near", images=(Encoded(name="n.jpg", data=small.getvalue()),))
    other_text = wrong(near, key="other", chat=talk([("Which time is it?", "twelve")]))
    report = check([first, again, near, other_text, third, third], target)
    assert [(problem.kind, problem.sample) for problem in report.problems] == [
        ("duplicate", "again"), ("duplicate", "near"), ("duplicate-key", "s2"), ("duplicate", "s2"),
    ]  # fmt: skip
    assert "nearly the same as s0" in report.problems[1].fix


def test_a_leak_is_found_also_under_another_question(samples, target) -> None:
    train, held = samples(4), samples(4)[2:3]
    leaked = wrong(held[0], key="stolen", chat=talk([("Something else?", "yes")]))
    report = check([*train[:2], leaked], target, against=held)
    assert [(problem.kind, problem.sample) for problem in report.problems] == [("leak", "stolen")]


def test_length_is_counted_after_slicing(picture, target) -> None:
    wide = Sample(key="wide", images=(picture(3, size=(1200, 900)),), chat=talk([("What?", "x")]))
    report = check([wide], target, limit=600)
    assert kinds(report) == ["too-long"]  # ten slices of 64 visual tokens
    assert "640 of them visual" in report.problems[0].fix
    assert kinds(check([wide], target, limit=900)) == []


def test_an_empty_set_is_a_problem(target) -> None:
    assert check([], target).to_json()["problems"][0]["kind"] == "empty"


# ---- damage ----------------------------------------------------------------------------------------------------------


def outcome(folder: Path, target) -> tuple[list[str], list]:
    """Kinds of problems, and everything that a trainer would read: pixels, text and truth."""
    try:
        found = list(read_samples(folder))
    except DataError:
        return ["refused"], []
    contents = []
    for item in found:
        assert isinstance(item, Sample | Damage)
        if isinstance(item, Sample):
            contents.append((item.chat, json.dumps(item.truth, sort_keys=True), len(item.images)))
    report = check(found, target)
    json.dumps(report.to_json())
    return kinds(report), contents


def suffer(whole: Path, folder: Path, act, seed: int, target) -> str:
    """Apply one damage; it must be found, or as many samples as before must still be there, each to be learned."""
    shutil.copytree(whole, folder)
    try:
        act(folder, Random(seed))
        found, after = outcome(folder, target)
        if not found and len(after) != NUM_SAMPLES:
            return f"{len(after)} samples are left and nothing is said"
    except Exception as error:  # any crash is a failure, and the others are still worth trying
        return f"{type(error).__name__}: {error}"
    finally:
        shutil.rmtree(folder)
    return ""


def load_damages():
    import importlib.util

    spec = importlib.util.spec_from_file_location("damage", Path(__file__).with_name("damage.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.all_damages()


DAMAGES = load_damages()
NUM_SAMPLES = 3
EVERY = [(name, kind, DAMAGES[kind]) for name in FORMATS for kind in DAMAGES]


def test_there_are_200_kinds() -> None:
    assert len(EVERY) >= 200


def suffer_all(first_seed: int, write, samples, target, tmp_path: Path) -> list[str]:
    given = samples(NUM_SAMPLES)
    whole = {name: write(given, name, name) for name in FORMATS}
    assert all(outcome(folder, target)[0] == [] for folder in whole.values())
    failures = []
    for seed, (name, kind, act) in enumerate(EVERY, first_seed):
        failure = suffer(whole[name], tmp_path / "broken", act, seed, target)
        if failure:
            failures.append(f"{name}, {kind}, seed {seed}: {failure}")
    return failures


def test_no_damage_passes_unseen(write, samples, target, tmp_path) -> None:
    assert suffer_all(0, write, samples, target, tmp_path) == []


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("first_seed", range(1000, 11_000, 1000))
def test_no_damage_passes_unseen_long(write, samples, target, tmp_path, first_seed: int) -> None:
    assert suffer_all(first_seed, write, samples, target, tmp_path) == []
