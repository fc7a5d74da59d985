"""Objects in an answer: the table is sound, its plurals are those of two dictionaries, and examples by hand."""

import importlib.util
from pathlib import Path

import pytest

from handlens.eval.readers import items_of
from handlens.eval.scorers.graded import holds_parts, overlap, read_rating, read_tenth
from handlens.eval.scorers.objects import _TABLE, CLASSES, find_objects, plural, rate_objects, synonyms
from handlens.eval.tasks import known_tasks

DATA = Path(__file__).parent / "data"


def words() -> list[str]:
    rows = _TABLE.replace(",\n ", ", ").strip().splitlines()
    return [word.strip() for row in rows for word in row.replace(":", ",", 1).split(",") if word.strip()]


def test_no_word_stands_in_two_rows():
    assert len(words()) == len(set(words()))
    assert len(CLASSES) == 80


def test_plurals_are_those_of_inflect():
    inflect = pytest.importorskip("inflect", reason="the oracle comes with the extra 'dev'").engine()
    wrong = []
    for word in words():
        ours = plural(word)
        if ours and " " not in word and ours not in (inflect.plural_noun(word), *_other(word)):
            wrong.append((word, ours, inflect.plural_noun(word)))
    assert not wrong


def _other(word: str) -> tuple[str, ...]:
    """Forms that inflect does not give: it says gentlemans, flamingoes and people."""
    return {"person": ("persons",), "gentleman": ("gentlemen",), "flamingo": ("flamingos",)}.get(word, ())


def test_plurals_lead_back_with_simplemma():
    simplemma = pytest.importorskip("simplemma", reason="the oracle comes with the extra 'dev'")
    forms = [(plural(word), word) for word in words() if plural(word) and " " not in word]
    back = [(form, word, simplemma.lemmatize(form, lang="en")) for form, word in forms]
    known = [(form, word, lemma) for form, word, lemma in back if lemma != form]
    # A dictionary lacks some of these words; where it knows one, it leads to a word of the same object.
    assert len(known) > 0.7 * len(forms)
    table = synonyms()
    assert [row for row in known if table.get(row[2], table[row[1]]) != table[row[1]]] == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Two men with knives and a wine glass.", ["person", "knife", "wine glass"]),
        ("A hot dog, not a dog.", ["hot dog", "dog"]),
        ("The toilet seat is up.", []),
        ("A train track runs beside the bus stop.", []),
        ("Traffic lights above buses; geese, sheep and oxen.", ["traffic light", "bus", "bird", "sheep", "cow"]),
        ("A TEDDY BEAR sits on the couch", ["teddy bear", "couch"]),
        ("carpet catalogue birdsong", []),
        ("", []),
    ],
)
def test_finding_by_hand(text, found):
    assert find_objects(text) == found


def test_rates_by_hand():
    facts = rate_objects("A dog and another dog sit beside a car on a bench.", frozenset({"dog", "bench", "person"}))
    assert facts == {"named": 3, "wrong": 1, "found": 2, "true": 3, "words": 12}
    # Three words or fewer name nothing.
    assert rate_objects("A red car.", frozenset())["named"] == 0


def test_the_truth_joins_segments_and_captions():
    items = {item.id: item.truth for item in items_of(known_tasks()["object-halbench"], DATA)}
    assert items == {"7#0": ("dog", "person", "sports ball"), "8#1": ("apple", "dining table")}


def test_coco_annotations_beside_the_questions_are_the_truth(tmp_path):
    (tmp_path / "ObjHalBench.jsonl").write_text('{"image_id": 9, "question": "Describe."}\n', encoding="utf-8")
    (tmp_path / "instances_val2014.json").write_text(
        '{"categories": [{"id": 3, "name": "car"}], "annotations": [{"image_id": 9, "category_id": 3}]}',
        encoding="utf-8",
    )
    (tmp_path / "captions_val2014.json").write_text(
        '{"annotations": [{"image_id": 9, "caption": "A man by a truck."}]}', encoding="utf-8"
    )
    (item,) = items_of(known_tasks()["object-halbench"], tmp_path)
    assert item.truth == ("car", "person", "truck")


def test_amber_by_hand():
    task = known_tasks()["amber-generative"]
    (item,) = items_of(task, DATA)
    # ball (true), lawn (related to grass), dogs (made up and likely), kitten (made up); picture is safe, house unknown.
    mark = task.mark(item, "The picture shows a ball on a lawn, two dogs, a kitten and a house.")
    assert mark.facts == {"named": 4, "wrong": 2, "true": 2, "found": 2, "likely": 1}


def test_grades_by_hand():
    assert [read_tenth(text) for text in ("0.5", " 1.0\n", "1.5", "good", "")] == [0.5, 1.0, None, None, None]
    replies = ("Rating: 4", "**Rating: 6**", "I give 3", "7", "2 or 3", "none")
    assert [read_rating(reply, 6) for reply in replies] == [4, 6, 3, None, None, None]
    assert holds_parts("x = -1 or x = -5", "-1<AND>-5") == 1.0
    assert holds_parts("15", "5") == 0.0
    assert holds_parts("これは緑です", "緑<OR>green") == 1.0
    assert overlap("", "a b") == 0.0
    assert overlap("白い円", "白い円") == 1.0


def test_the_small_files_are_what_their_script_writes(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("make_data", Path(__file__).parent / "make_data.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    monkeypatch.setattr(make, "FOLDER", tmp_path)
    make.main()
    files = sorted(
        file.relative_to(tmp_path) for file in tmp_path.rglob("*") if file.suffix in (".json", ".jsonl", ".txt")
    )
    assert len(files) > 10
    assert [file for file in files if (tmp_path / file).read_bytes() != (DATA / file).read_bytes()] == []
