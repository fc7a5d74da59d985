"""Languages: 36 and more, each with its words, numbers, fonts and questions."""

import string

import pytest

from handlens.data.generate import LANGUAGES, generate
from handlens.data.generate.language import language
from handlens.errors import DataError, NeedsExtra

PAPER = (
    "en zh ko ja de fr pt es my th vi tr syr ar hi bn ne tk tg ky ru uk be ka az hy pl lt et lv cs sk hu sl hr bs cnr "
    "sr sq ro bg mk"
).split()
TIER_A = ("de", "en", "es", "fr", "it", "nl", "pl", "pt")


def test_every_language_of_the_paper_is_there() -> None:
    assert set(PAPER) <= set(LANGUAGES)
    assert tuple(code for code in LANGUAGES if language(code).tier == "A") == TIER_A


@pytest.mark.parametrize("code", LANGUAGES)
def test_language_files_name_the_same_things(code: str) -> None:
    tongue, english = language(code), language("en")
    if tongue.kinds:
        return
    assert tongue.facts["words"].keys() == english.facts["words"].keys()
    assert tongue.colours.keys() == english.colours.keys()
    assert tongue.shapes.keys() == english.shapes.keys()
    assert len(set(tongue.colours.values())) == 11
    assert len(set(tongue.shapes.values())) == 8
    assert tongue.word("yes") != tongue.word("no") != tongue.not_present


@pytest.mark.parametrize("code", [code for code in TIER_A if code != "en"])
def test_tier_a_has_sentences_for_every_question(code: str) -> None:
    english, tongue = language("en").facts["questions"], language(code).facts["questions"]
    assert english.keys() <= tongue.keys()
    for key, wordings in tongue.items():
        assert len(set(wordings)) >= 3, key
        fields = {name for text in wordings for _, name, _, _ in string.Formatter().parse(text) if name}
        for text in wordings:
            assert {name for _, name, _, _ in string.Formatter().parse(text) if name} == fields, text
        if key in english:
            assert fields == {n for t in english[key] for _, n, _, _ in string.Formatter().parse(t) if n}, key


@pytest.mark.parametrize("code", ["ar", "de", "hi", "ja", "ka", "my", "tr", "vi"])
def test_training_words_and_heldout_words_are_apart(code: str) -> None:
    tongue = language(code)
    train, heldout = set(tongue.pool("all", "train")), set(tongue.pool("all", "heldout"))
    assert train.isdisjoint(heldout)
    assert 0.08 < len(heldout) / len(train | heldout) < 0.35  # several words in a name: more than 15 %


@pytest.mark.parametrize("code", ["de", "hy", "ru", "tr", "vi"])
def test_training_lines_print_no_heldout_word(code: str) -> None:
    tongue = language(code)
    for index in range(40):
        for line in generate("lines", 5, index, languages=(code,)).lines:
            assert not tongue.is_heldout(line.text), line.text


@pytest.mark.parametrize("code", ["ar", "bg", "bn", "de", "hi", "hy", "ka", "ru", "th", "zh"])
def test_families_of_a_language_are_split(code: str) -> None:
    train, heldout = ({font.family for font in language(code).fonts(split)} for split in ("train", "heldout"))
    assert train and heldout and train.isdisjoint(heldout)


@pytest.mark.parametrize("code", ["ar", "hi", "my", "th", "zh"])
def test_every_font_has_every_letter_of_its_language(code: str) -> None:
    import freetype

    from handlens.data.generate.fonts import font_path

    tongue = language(code)
    for font in tongue.fonts("train"):
        face = freetype.Face(str(font_path(font)))
        assert [letter for letter in tongue.letters if not face.get_char_index(letter)] == []


def test_numbers_have_the_marks_of_the_language() -> None:
    assert language("en").decimal(1234.5, 2) == "1,234.50"
    assert language("de").decimal(1234.5, 2) == "1.234,50"
    assert language("fr").decimal(1234.5, 2) == "1 234,50"


def test_capitals_follow_the_language() -> None:
    assert language("tr").upper("izin") == "İZİN"
    assert language("de").upper("izin") == "IZIN"
    assert language("ka").upper("ფასი") == "ფასი"


def test_noun_phrases_agree() -> None:
    assert language("de").thing("circle", "red", way="a") == "ein roter Kreis"
    assert language("de").thing("diamond", "red", way="the") == "die rote Raute"
    assert language("fr").thing("star", "green", way="the") == "l'étoile verte"
    assert language("pl").thing("circle", "black", way="the") == "czarne koło"


def test_a_missing_font_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from handlens.data.generate import fonts, world

    monkeypatch.setenv("HANDLENS_FONTS", "/nowhere")
    monkeypatch.setattr(fonts, "SYSTEM_FOLDERS", ())
    world.fonts_for.cache_clear()
    fonts.font_path.cache_clear()
    with pytest.raises(DataError, match=r"Burmese \('my'\) cannot be drawn: .* apt install fonts-noto-core"):
        generate("lines", 1, 1, split="heldout", languages=("my",))


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    from handlens.data.generate import fonts, world

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if "justmytype" in name else real(name))
    for cached in (fonts.font_path, world.fonts_for, world.has_letters, world._map_of):
        cached.cache_clear()
    with pytest.raises(
        NeedsExtra, match=r"Hindi \('hi', the font Noto Sans Devanagari.*pip install 'handlens\[languages\]'"
    ):
        language("hi").fonts("validation")


def test_unknown_and_unfit_languages_are_refused() -> None:
    with pytest.raises(DataError, match="unknown language 'xx'"):
        generate("lines", 1, 1, languages=("xx",))
    with pytest.raises(DataError, match=r"Syriac \('syr'\) cannot be drawn as forms; it can as: lines, pages"):
        generate("forms", 1, 1, languages=("syr",))
