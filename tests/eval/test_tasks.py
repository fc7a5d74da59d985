"""Every task on small files in the community's formats: one that knows the truth, one that is silent, the formats."""

import base64
import json
from dataclasses import replace
from pathlib import Path

import pytest

from handlens.errors import DataError, NeedsExtra, SettingError
from handlens.eval.readers import as_list, find_data, items_of, open_source, read_rows
from handlens.eval.runner import load_items, run_task
from handlens.eval.scorers.choice import OTHER
from handlens.eval.task import Item
from handlens.eval.tasks import find_tasks, known_tasks

DATA = Path(__file__).parent / "data"
OWN = ("handlens-bench",)
PLAIN = [name for name, task in known_tasks().items() if not task.parts and name not in OWN]
BEST = {
    "mme": 200 + 200, "ocrbench": 2, "object-halbench": 0, "amber-generative": 0, "mmhal-bench": 6,
}  # fmt: skip
"""Best headline where it is not 100: MME has one subtask of perception and one of cognition here."""
WORST = {"object-halbench": 0.0, "amber-generative": 0.0}
"""Who says nothing makes nothing up; the share of silent answers stands beside it."""


def truth_of(task: str, item: Item) -> str:
    """Return an answer that deserves the best mark."""
    if task == "object-halbench":
        return f"There is a {' and a '.join(item.truth)} here."
    if task == "amber-generative":
        return "A ball on the grass."
    if task.startswith("mmmu") and not item.options:
        return item.truth[0]
    if task == "mathvista":
        return item.facts["option"] or item.truth[0]
    if task == "mm-vet":
        return item.truth[0].split("<OR>")[0].replace("<AND>", " and ")
    return item.truth[0]


@pytest.fixture
def run(scripted):
    def run(task: str, say):
        found = known_tasks()[task]
        items, duplicates = load_items(found, DATA)
        model = scripted(say)
        result = run_task(model, found, found.recipes[0], items, data=DATA, duplicates=duplicates)
        return result, items, model

    return run


def knowing(task: str):
    """Answers by the question: the small files ask no question twice with different truths."""
    items, _ = load_items(known_tasks()[task], DATA)

    pictures = {item.id: item.pictures for item in items}

    def say(question: str, name: str) -> str:
        fits = [item for item in items if not name or item.pictures == pictures[name]]
        fits = [item for item in fits if all(f"{k}. {v}\n" in question for k, v in item.options.items())]
        (item,) = [item for item in fits if item.question in question]
        return truth_of(task, item)

    return say


def test_at_least_twenty_are_listed():
    tasks = known_tasks()
    assert len(tasks) >= 20
    assert all(task.metric and task.needs and task.title and task.recipes for task in tasks.values())
    assert set(known_tasks()["opencompass-8"].parts) <= set(tasks)


@pytest.mark.parametrize("task", PLAIN)
def test_one_that_knows_gets_the_best_score(run, task):
    result, items, _ = run(task, knowing(task))
    lost = {item.id for item, given in zip(result.items, result.given, strict=True) if given.status != "ok"}
    if task == "textvqa":  # one of its two pictures is missing, which counts as wrong
        assert lost == {"2"}
        # 4 of 10 said 'stop': four leave 3 others -> 1, six leave 4 -> 1.
        assert result.value == pytest.approx(50.0)
        return
    assert not lost
    assert result.value == pytest.approx(BEST.get(task, 100.0)), result.figures
    assert result.count == len(items)


@pytest.mark.parametrize("task", PLAIN)
def test_one_that_is_silent_gets_the_worst_and_is_counted(run, task):
    result, items, _ = run(task, lambda question, name: "")
    assert result.value == pytest.approx(WORST.get(task, 0.0))
    assert result.count == len(items)
    assert result.counts["silent"] + result.counts.get("no_picture", 0) == len(items)


def test_a_circular_question_is_right_only_in_every_rotation(run):
    always_a, _, _ = run("mmbench-en", lambda question, name: "A")
    # A is right in one of four rotations of each question.
    assert always_a.value == 0.0
    assert always_a.figures["vanilla_accuracy"] == 25.0
    assert always_a.units == 2
    assert always_a.count == 8


def test_pictures_that_rows_share_are_opened_and_encoded_once(run):
    _, items, model = run("mmbench-en", lambda question, name: "A")
    assert len(model.asked) == 8
    assert model.seen == 2
    assert {open_source(item.pictures[0], item.id).image.size for item in items} == {(48, 48)}


def test_mmmu_leaves_other_splits_and_shows_every_picture():
    items, _ = load_items(known_tasks()["mmmu"], DATA)
    assert [item.id for item in items] == ["0", "1"]
    assert [len(item.pictures) for item in items] == [2, 1]
    assert "<image" not in items[0].question
    open_question = items[1]
    assert not open_question.options
    mark = known_tasks()["mmmu"].mark
    # VLMEvalKit's two options for an open question: its answer, and other answers.
    assert [mark(open_question, said).score for said in ("4", "It has 4 sides", "B", OTHER, "5")] == [1, 1, 0, 0, 0]


def test_an_id_that_stands_twice_is_kept_and_told(tmp_path):
    rows = (DATA / "MMStar.tsv").read_text(encoding="utf-8").splitlines()
    (tmp_path / "MMStar.tsv").write_text("\n".join([*rows, rows[1]]) + "\n", encoding="utf-8")
    items, duplicates = load_items(known_tasks()["mmstar"], tmp_path)
    assert duplicates == 1
    assert len(items) == 5
    assert len({item.id for item in items}) == 5


def test_a_limit_keeps_whole_units():
    items, _ = load_items(known_tasks()["mmbench-en"], DATA, limit=1)
    assert len(items) == 4
    assert {item.unit for item in items} == {"0"}


# ---- formats ---------------------------------------------------------------------------------------------------------


def as_parquet(folder: Path) -> Path:
    """Write MMStar as Hugging Face does: a folder of shards, the picture as bytes and a path."""
    pyarrow = pytest.importorskip("pyarrow", reason="parquet needs the extra 'eval'")
    from pyarrow import parquet

    rows = list(read_rows([DATA / "MMStar.tsv"]))
    for row in rows:
        row["image"] = {"bytes": base64.b64decode(row["image"]), "path": "x.png"}
        row["options"] = [row.pop(letter) for letter in "ABCD"]
    (folder / "MMStar").mkdir()
    for number in range(2):
        file = folder / "MMStar" / f"val-0000{number}-of-00002.parquet"
        parquet.write_table(pyarrow.Table.from_pylist(rows[number::2]), file)
    return folder


def test_parquet_gives_the_same_items_as_tsv(tmp_path):
    task = known_tasks()["mmstar"]
    one = sorted(items_of(task, DATA), key=lambda item: item.id)
    two = sorted(items_of(task, as_parquet(tmp_path)), key=lambda item: item.id)
    assert [replace(item, pictures=()) for item in one] == [replace(item, pictures=()) for item in two]
    for left, right in zip(one, two, strict=True):
        assert open_source(left.pictures[0], "a").image.tobytes() == open_source(right.pictures[0], "b").image.tobytes()


def test_parquet_without_pyarrow_names_the_extra(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "MMStar.parquet").write_bytes(b"PAR1")
    with pytest.raises(NeedsExtra, match=r"reading MMStar\.parquet \(parquet\) needs the extra 'eval'"):
        load_items(known_tasks()["mmstar"], tmp_path)


def test_json_and_json_lines_give_the_same_items(tmp_path):
    rows = list(read_rows([DATA / "MMStar.tsv"]))
    (tmp_path / "mmstar.json").write_text(json.dumps({"data": rows}), encoding="utf-8")
    items = list(items_of(known_tasks()["mmstar"], tmp_path))
    (tmp_path / "mmstar.json").unlink()
    (tmp_path / "MMSTAR.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert list(items_of(known_tasks()["mmstar"], tmp_path)) == items == list(items_of(known_tasks()["mmstar"], DATA))


def test_a_file_may_be_named_itself():
    items = list(items_of(known_tasks()["mmstar"], DATA / "MMStar.tsv"))
    assert len(items) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"index\tpicture\n1\tx\n", "has no column 'question'; its columns are index, picture"),
        (b"\xff\xfe\x00", "is damaged"),
        (b"index\tquestion\n", "found no question"),
    ],
)
def test_a_damaged_table_is_told(tmp_path, content, message):
    (tmp_path / "MMStar.tsv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_items(known_tasks()["mmstar"], tmp_path)


def test_missing_data_is_told_with_what_would_be_read(tmp_path):
    with pytest.raises(DataError) as error:
        load_items(known_tasks()["mmbench-en"], tmp_path)
    assert "no data of mmbench-en" in str(error.value)
    assert "MMBench_DEV_EN.tsv" in str(error.value)
    with pytest.raises(DataError, match="name the folder with --data"):
        find_data(None, "mme", ("MME",))


def test_lists_in_a_cell():
    assert as_list('["a", "b"]') == ["a", "b"]
    assert as_list("[1, 2]") == [1, 2]
    assert as_list("[not a list") == ["[not a list"]
    assert as_list("__import__('os')") == ["__import__('os')"]
    assert as_list(None) == []


# ---- a task of one's own ---------------------------------------------------------------------------------------------


def test_a_stranger_who_follows_the_guide_gets_a_number(scripted, tmp_path):
    """The page docs/add-a-benchmark.md, as it stands there: its file of under 60 lines, its data, its pictures."""
    root = Path(__file__).parents[2]
    guide = (root / "docs" / "add-a-benchmark.md").read_text(encoding="utf-8")
    code = guide.split("```python\n", 1)[1].split("```", 1)[0]
    assert len(code.splitlines()) < 60
    (tmp_path / "papers.py").write_text(code, encoding="utf-8")
    rows = guide.split("```jsonl\n", 1)[1].split("```", 1)[0]
    (tmp_path / "papers.jsonl").write_text(rows, encoding="utf-8")
    for name in ("label.png", "receipt.png"):
        (tmp_path / name).write_bytes((root / "examples" / name).read_bytes())
    (task,) = find_tasks(str(tmp_path / "papers.py"))
    items, _ = load_items(task, tmp_path)
    say = {"1": "250 g", "2": "$32.50"}.__getitem__
    results = [
        run_task(scripted(lambda question, name: say(name.removesuffix(".png"))), task, recipe, items, data=tmp_path)
        for recipe in task.recipes
    ]
    assert [(result.recipe, result.value, result.counts["ok"]) for result in results] == [
        ("shipped", 50.0, 2),
        ("leaderboard", 50.0, 2),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [("x = 1\n", "has no TASKS"), ("TASKS = (1,)\n", "has no TASKS"), ("import nowhere_at_all\n", "cannot be read")],
)
def test_a_task_file_that_is_none(tmp_path, text, message):
    (tmp_path / "bad.py").write_text(text, encoding="utf-8")
    with pytest.raises(SettingError, match=message):
        find_tasks(str(tmp_path / "bad.py"))


def test_an_unknown_task_is_guessed():
    with pytest.raises(SettingError, match="unknown task 'mmbench-e'; did you mean 'mmbench-en'"):
        find_tasks("mmbench-e")
