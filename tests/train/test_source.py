"""Shards as a stream of records."""

import random
from dataclasses import replace
from types import SimpleNamespace

import pytest

from handlens.data.shards import read_shards, write_shards
from handlens.errors import DataError
from handlens.train import source
from handlens.train.feed import choose_turns
from handlens.train.source import Shards, draw_generated, find_places, pick_language


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_shards("labels", 5, 2, tmp_path_factory.mktemp("shards"), level=0.0, per_shard=3).parent


def test_every_round_has_every_record_in_another_order(folder, sft):
    shards = Shards(folder, seed=1)
    keys = [shards(sft, random.Random(0), index, "train").key for index in range(20)]
    rounds = [keys[start : start + 5] for start in range(0, 20, 5)]
    assert len(shards) == 5
    assert all(sorted(one) == sorted(rounds[0]) for one in rounds)
    assert len({tuple(one) for one in rounds}) > 1
    assert shards(sft, random.Random(9), 7, "train").key == keys[7]


def test_a_record_is_what_was_written(folder):
    shards = Shards(folder)
    for place, record in zip(shards.places, read_shards(folder), strict=True):
        own = shards.read(place)
        assert (own.key, own.turns, own.lines) == (record.key, record.turns, record.lines)
        assert own.picture.tobytes() == record.picture.tobytes()


def test_languages_come_by_their_shares(sft):
    phase = replace(sft, mixture={"labels": 1.0}, languages={"en": 0.5, "de": 0.5, "ru": 0.0})
    drawn = [draw_generated(phase, random.Random(index), index, "train") for index in range(24)]
    counts = {code: sum(record.language == code for record in drawn) for code in phase.languages}
    assert counts["ru"] == 0
    assert min(counts["en"], counts["de"]) >= 5
    again = draw_generated(phase, random.Random(7), 7, "train")
    assert (again.key, again.turns) == (drawn[7].key, drawn[7].turns)


def test_more_questions_are_drawn_where_a_phase_asks_them(sft):
    few = replace(sft, mixture={"scenes": 1.0})
    many = replace(few, turns_per_picture=8)
    for index in range(5):
        one, other = (draw_generated(phase, random.Random(index), index, "train") for phase in (few, many))
        assert len(one.turns) < 8 <= len(other.turns)
        assert other.picture.tobytes() == one.picture.tobytes()
        assert len(choose_turns(other, many, random.Random(1))) == 8


def test_a_language_is_left_out_where_a_kind_cannot_be_drawn(sft):
    phase = replace(sft, mixture={"scenes": 1.0}, languages={"en": 0.01, "syr": 0.99})
    assert draw_generated(phase, random.Random(0), 0, "train").language == "en"
    with pytest.raises(DataError, match=r"^unknown language 'syr2'"):
        pick_language({"syr": 0.5, "syr2": 0.5}, "scenes", random.Random(0))


def test_no_language_is_left(monkeypatch):
    monkeypatch.setattr(source, "language", lambda code: SimpleNamespace(kinds=("lines", "pages")))
    assert pick_language({"syr": 0.5, "ar": 0.5}, "lines", random.Random(0)) in ("syr", "ar")
    with pytest.raises(DataError, match=r"^scenes cannot be drawn in any of: syr, ar; add en$"):
        pick_language({"syr": 0.5, "ar": 0.5}, "scenes", random.Random(0))


def test_no_shards_are_told(tmp_path):
    with pytest.raises(DataError, match=r"^no shards \(NNNNNN\.tar\) in .*; write some: handlens generate mixed"):
        Shards(tmp_path)


def test_a_shard_that_is_gone_is_missed(folder, tmp_path):
    for name in ("000000.tar", "manifest.parquet"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(DataError, match=r"2 records of manifest.parquet are in no shard \(labels-train-2-0000003"):
        Shards(tmp_path)


@pytest.mark.parametrize("keep", [0, 300, 512, 5000, -11_000])
def test_a_cut_shard_is_told(folder, tmp_path, keep):
    shard = tmp_path / "000000.tar"
    shard.write_bytes((folder / "000000.tar").read_bytes()[:keep])
    with pytest.raises(DataError, match=r"000000\.tar is damaged \(.*\); copy it again or generate it again$"):
        find_places(shard)
