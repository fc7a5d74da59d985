"""What holds for the kinds in many languages: every answer is true of the record."""

import re

import pytest

from handlens.data.generate import LANGUAGES, generate, languages_of
from handlens.data.generate.markup import to_html, to_markdown
from handlens.data.records import Record

NEW = ("invoices", "forms", "letters", "charts", "formulas", "screens", "cards", "maps")
MANY = ("en", "de", "ar", "zh", "hi", "pl")


def some(kind: str, count: int, split: str = "train", languages: tuple[str, ...] = MANY) -> list[Record]:
    return [generate(kind, 23, index, split=split, languages=languages) for index in range(count)]


@pytest.mark.parametrize("kind", NEW)
def test_text_lies_inside_the_picture(kind: str) -> None:
    for record in some(kind, 7):
        width, height = record.picture.size
        for line in record.lines:
            assert "".join(glyph.char for glyph in line.glyphs) == line.text
            for x0, y0, x1, y1 in (glyph.box for glyph in line.glyphs):
                assert -1 <= x0 <= x1 <= width + 1, (record.key, line.text)
                assert -1 <= y0 <= y1 <= height + 1, (record.key, line.text)


@pytest.mark.parametrize("kind", NEW)
def test_layouts_of_the_heldout_split_are_never_trained_on(kind: str) -> None:
    train = {record.facts["layout"] for record in some(kind, 16, languages=("en",))}
    heldout = {record.facts["layout"] for record in some(kind, 6, "heldout", languages=("en",))}
    assert train and heldout and train.isdisjoint(heldout)


@pytest.mark.parametrize("kind", ["labels", "tables"])
def test_labels_and_tables_hold_out_layouts_too(kind: str) -> None:
    train, heldout = ({r.facts["layout"] for r in some(kind, 12, split, ("en",))} for split in ("train", "heldout"))
    assert train.isdisjoint(heldout)


@pytest.mark.parametrize("kind", ["invoices", "forms", "cards", "letters"])
def test_fields_answer_their_value_and_missing_ones_are_not_there(kind: str) -> None:
    from handlens.data.generate.language import language

    for record in some(kind, 7):
        tongue = language(record.language)
        fields = record.facts["fields"]
        printed = [line.text for line in record.lines]
        for turn in record.turns:
            if turn.task == f"{kind}.field":
                assert turn.answer in fields.values()
                assert any(turn.answer in text for text in printed), (record.key, turn)
            elif turn.task == f"{kind}.missing":
                assert turn.answer == tongue.not_present
            elif turn.task in (f"{kind}.has", "forms.ticked"):
                assert turn.answer in (tongue.word("yes"), tongue.word("no"))


def test_invoice_sums_add_up() -> None:
    def cents(text: str) -> int:
        return int(re.sub(r"\D", "", text)) * (-1 if text.startswith("-") else 1)

    for record in some("invoices", 16, languages=("en", "de")):
        facts = record.facts
        rows = [cents(row[3]) for row in facts["items"]]
        assert all(cents(row[2]) * int(row[1]) == cents(row[3]) for row in facts["items"])
        names = {"en": ("tax", "discount"), "de": ("MwSt.", "Rabatt")}[record.language]
        extra = sum(cents(facts["fields"][name]) for name in names if name in facts["fields"])
        assert sum(rows) + extra == cents(facts["total"])
        assert any(facts["total"] == line.text for line in record.lines)


def test_ticks_are_told_as_they_are() -> None:
    seen = set()
    for record in some("forms", 40, languages=("en",)):
        for turn in record.turns:
            if turn.task == "forms.ticked":
                (name,) = [name for name in record.facts["ticks"] if re.search(rf"\b{name}\b", turn.question)]
                assert turn.answer == ("yes" if record.facts["ticks"][name] else "no")
                seen.add(turn.answer)
    assert seen == {"yes", "no"}


def test_charts_tell_their_numbers() -> None:
    for record in some("charts", 24, languages=("en",)):
        series = dict(record.facts["series"])
        assert record.facts["markdown"] == to_markdown(record.table)
        for turn in record.turns:
            named = [name for name in series if re.search(rf"\b{name}\b", turn.question)]
            if turn.task == "charts.value":
                assert turn.answer == str(series[named[0]])
            elif turn.task == "charts.largest":
                assert series[turn.answer] == max(series.values())
            elif turn.task == "charts.smallest":
                assert series[turn.answer] == min(series.values())
            elif turn.task == "charts.larger":
                one, two = sorted(named, key=turn.question.index)
                assert turn.answer == ("yes" if series[one] > series[two] else "no")
            elif turn.task == "charts.count":
                assert turn.answer == str(len(series))


def test_tables_have_markdown_and_html() -> None:
    for record in some("tables", 8):
        assert record.facts["markdown"] == to_markdown(record.table)
        assert record.facts["html"] == to_html(record.table)
        assert record.facts["html"].count("<tr>") == len(record.table)


def test_formulas_are_their_latex() -> None:
    for record in some("formulas", 16, languages=("en",)):
        formulas = [formula["latex"] for formula in record.facts["formulas"]]
        for turn in record.turns:
            if turn.task == "formulas.latex":
                assert turn.answer == "\n".join(formulas)
            else:
                (sign,) = re.findall(r"\\[a-z]+", turn.question)
                is_there = any(re.search(re.escape(sign) + r"(?![a-z])", text) for text in formulas)
                assert turn.answer == ("yes" if is_there else "no")


def test_screens_quote_what_is_printed() -> None:
    for record in some("screens", 24, languages=("en", "ru")):
        if "code" in record.facts:
            assert [line.text for line in record.lines][1:] == [ln for ln in record.facts["code"].split("\n") if ln]
        for turn in record.turns:
            if turn.task == "screens.who":
                assert any(who == turn.answer and text in turn.question for who, text, _ in record.facts["messages"])
            if turn.task == "screens.last":
                assert turn.answer == record.facts["messages"][-1][1]


def test_every_card_says_that_it_is_a_specimen() -> None:
    for record in some("cards", 12):
        assert record.facts["specimen"] in [line.text for line in record.lines]


def test_maps_know_who_is_above_whom() -> None:
    answers = []
    for record in some("maps", 40, languages=("en",)):
        high = {place["name"]: (place["box"][1] + place["box"][3]) / 2 for place in record.facts["places"]}
        for turn in record.turns:
            if turn.task == "maps.above":
                named = [name for name in high if re.search(rf"\b{name}\b", turn.question)]
                one, two = sorted(named, key=turn.question.index)
                assert turn.answer == ("yes" if high[one] < high[two] else "no")
                answers.append(turn.answer)
    assert 0.15 < answers.count("yes") / len(answers) < 0.85  # about 30 coins: 0.5 +- 4 standard deviations


def test_covered_things_are_told() -> None:
    found = 0
    for record in some("scenes", 90, languages=("en",)):
        for upper, lower in record.facts["over"]:
            top, below = (f"{record.things[i].colour} {record.things[i].shape}" for i in (upper, lower))
            for turn in record.turns:
                if turn.task == "scenes.front":
                    assert turn.answer == f"the {top}"
                    found += 1
                elif turn.task == "scenes.hidden":
                    assert turn.answer == ("yes" if below in turn.question else "no")
                    found += 1
    assert found > 2


@pytest.mark.soak
@pytest.mark.parametrize("code", LANGUAGES)
def test_every_kind_of_every_language_is_drawn(code: str) -> None:
    from handlens.data.generate import KINDS

    for kind in KINDS:
        if code in languages_of(kind):
            for index in range(20):
                record = generate(kind, 29, index, languages=(code,))
                assert record.language == code
                assert all(turn.answer.strip() for turn in record.turns)
