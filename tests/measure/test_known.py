"""The recorded answers name the station that differs, and belong to one set of weights."""

import json
import shutil
from pathlib import Path

import pytest

from handlens import PACKAGED
from handlens.cli.main import run
from handlens.engine.bundle import Bundle
from handlens.errors import ModelError
from handlens.measure.known import KNOWN, check_known, list_in_manifest, read_known
from handlens.measure.routes import check_routes


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(shutil.copytree(PACKAGED["nano"], tmp_path_factory.mktemp("known") / "nano"))
    assert run(["doctor", str(folder), "--record"]) == 0
    return folder


@pytest.fixture
def copy(recorded: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(recorded, tmp_path / "nano"))


def change(folder: Path, **facts: object) -> list[tuple[str, str]]:
    """Change the record of the first picture; return its stations and their verdicts."""
    record = json.loads((folder / KNOWN).read_text())
    record["pictures"] = [record["pictures"][0] | facts]
    (folder / KNOWN).write_text(json.dumps(record))
    list_in_manifest(folder / KNOWN)
    return [(station.name, station.status) for station in check_known(folder)[0]]


def test_the_same_machine_agrees_and_the_manifest_lists_the_record(recorded: Path):
    stations, seconds = check_known(recorded)
    assert [station.name for station in stations] == ["preparation", "prompt", "vision", "language"] * 2
    assert {station.status for station in stations} == {"same"}
    assert seconds > 0
    Bundle.open(recorded).check()
    assert KNOWN in Bundle.open(recorded).manifest["files"]


def test_the_station_that_differs_is_named(copy: Path):
    record = json.loads((copy / KNOWN).read_text())["pictures"][0]
    same = ["same"] * 4
    assert [status for _, status in change(copy, pixels="0" * 64)] == ["different", *same[1:]]
    assert [status for _, status in change(copy, pixels=record["pixels"], prompt="0")] == [
        "same",
        "different",
        *same[2:],
    ]
    near = [value + 0.05 * record["visual_rms"] for value in record["visual"]]
    assert [status for _, status in change(copy, prompt=record["prompt"], visual=near)][2] == "close"
    far = [-value for value in record["visual"]]
    assert [status for _, status in change(copy, visual=far)][2] == "different"
    assert [status for _, status in change(copy, visual=record["visual"], nats=record["nats"] - 5)][3] == "different"
    assert [status for _, status in change(copy, nats=record["nats"], answer="qqq")][3] == "different"


def test_a_record_of_other_weights_does_not_count(copy: Path):
    assert read_known(copy) is not None
    record = json.loads((copy / KNOWN).read_text())
    record["weights"]["vision.onnx"] = "0" * 64
    (copy / KNOWN).write_text(json.dumps(record))
    list_in_manifest(copy / KNOWN)
    assert read_known(copy) is None
    with pytest.raises(
        ModelError, match=r"has no known.json of its weights; `handlens doctor nano --record` writes it"
    ):
        check_known(copy)


def test_two_ways_agree_without_a_record():
    stations = check_routes(PACKAGED["nano"])
    assert [station.name for station in stations] == ["vision", "language"] * 2
    assert {station.status for station in stations} == {"same"}
