"""Predictions: sizes worked by hand, the order of things, and nano against a measured run."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from handlens import PACKAGED
from handlens.cli.main import run
from handlens.engine.setup import Setup
from handlens.errors import ModelError, SettingError
from handlens.measure import history
from handlens.measure.devices import DEVICES, Device, device_named, read_device
from handlens.measure.geometry import RELEASED, geometry_for, geometry_named
from handlens.measure.plan import PHASES, make_plan
from handlens.measure.trial import Job, run_trial

PI = DEVICES["raspberry-pi-5"]


def test_the_size_of_the_released_25_is_that_of_its_files() -> None:
    found = geometry_named("minicpm-llama3-v-2.5")
    # 32 layers x (2 x 4096^2 + 2 x 4096 x 1024 + 3 x 4096 x 14336) + 2 x 128256 x 4096 = 8.03e9 weights (Llama 3 8B)
    language = found.language
    assert language.num_layers * language.layer_values + 2 * language.table_values == pytest.approx(8.03e9, rel=1e-3)
    assert found.language_bytes == pytest.approx(4.9e9, rel=0.02)  # the published Q4_K_M file
    assert found.kv_bytes_per_token == 2 * 2 * 32 * 8 * 128  # keys and values, 16 bits, 8 heads of 128
    assert found.vision_bytes == pytest.approx(0.5e9, rel=0.06)  # half a billion weights in 8 bits


@pytest.mark.parametrize("name", [*RELEASED, "2.5", "openbmb/MiniCPM-V-2_6"])
def test_every_released_version_is_planned_on_every_device(name: str) -> None:
    for device in DEVICES.values():
        found = make_plan(geometry_named(name), device, (1344, 1344))
        assert [phase.name for phase in found.phases] == list(PHASES)
        assert all(phase.seconds > 0 and phase.peak_bytes > device.runtime_bytes for phase in found.phases)


def test_what_helps_helps() -> None:
    model = geometry_named("minicpm-llama3-v-2.5")
    usual = make_plan(model, PI, (1344, 1344))
    assert make_plan(model, PI, (1344, 1344), keep=True).peak_bytes > usual.peak_bytes
    assert make_plan(model, PI, (448, 448)).first_word_seconds < usual.first_word_seconds
    small = make_plan(model, PI, (1344, 1344), setup=Setup(flash=True, kv="q8_0", micro_batch=128))
    assert small.phase("prefill").peak_bytes < usual.phase("prefill").peak_bytes
    assert make_plan(model, PI, (1344, 1344), corrections={"encode": 2.0}).phase("encode").seconds == pytest.approx(
        2 * usual.phase("encode").seconds
    )


def test_weights_beside_the_graph_are_counted_once() -> None:
    inside = replace(geometry_named("minicpm-llama3-v-2.5"), vision_bytes=561_600_000)
    beside = replace(inside, is_beside=True)
    found = [make_plan(model, PI, (448, 448)).phase("encode").peak_bytes for model in (inside, beside)]
    assert found[0] - found[1] == pytest.approx(0.35 * 561_600_000)


def test_sequential_loading_peaks_at_the_larger_half() -> None:
    found = make_plan(geometry_named("minicpm-llama3-v-2.5"), PI, (1344, 1344))
    assert found.peak_bytes < 1.2 * found.parts["language"] + found.parts["runtime"]


def test_it_warns_before_it_would_swap() -> None:
    assert not make_plan(geometry_named("minicpm-v-2"), PI, (448, 448)).warnings
    small = Device(**{**PI.__dict__, "name": "small", "memory_bytes": 4_000_000_000})
    (warning, *_) = make_plan(geometry_named("minicpm-v-4.5"), small, (448, 448)).warnings
    assert "small has room for 3.60 GB: it would swap" in warning


def test_a_prompt_beyond_the_positions_is_refused() -> None:
    with pytest.raises(SettingError, match=r"do not fit into the 4096 positions"):
        make_plan(geometry_named("minicpm-v-2"), PI, (448, 448), answer_tokens=5000)


def test_unknown_names_are_guessed(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"unknown model 'minicpm-v-4\.6x'"):
        geometry_for("minicpm-v-4.6x")
    with pytest.raises(SettingError, match=r"unknown device 'raspbery-pi-5'; did you mean 'raspberry-pi-5'"):
        device_named("raspbery-pi-5")
    file = tmp_path / "d.json"
    file.write_text(json.dumps({"name": "mine", "cors": 4}))
    with pytest.raises(SettingError, match="unknown key 'cors'; did you mean 'cores'"):
        read_device(file)
    file.write_text(json.dumps({"name": "mine", "cores": 4}))
    with pytest.raises(SettingError, match=r"lacks flops_per_second, memory_bytes, read_bytes_per_second, storage_"):
        read_device(file)


def test_a_device_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "d.json"
    fields = {key: value for key, value in PI.__dict__.items() if key != "source"}
    file.write_text(json.dumps(fields))
    assert device_named(str(file)).read_bytes_per_second == PI.read_bytes_per_second


def test_the_planner_learns_from_its_runs_and_keeps_its_error(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    row = {"name": "encode", "predicted": {"seconds": 4.0}, "measured": {"seconds": 6.0}, "factor": 2.0}
    made = make_plan(geometry_named("minicpm-v-2"), PI, (448, 448))
    for error in (0.05, -0.2, 0.1):
        history.remember(made, {"phases": [row], "peak_error": error}, "cpu", file=file)
    with file.open("a") as stream:
        stream.write("damaged\n")
    runs = history.recall("cpu", file=file)
    assert history.own_error(runs) == {"runs": 3, "median_peak_error": 0.1, "worst": 0.2}
    assert history.corrections(runs, "minicpm-v-2") == {"encode": 3.0}  # 6 s where 2 s were predicted without a factor
    assert history.corrections(runs, "other") == {} and history.recall("other", file=file) == []


def test_the_memory_of_nano_is_predicted_within_a_tenth() -> None:
    from handlens.measure.devices import measure_runtime

    device = Device(**{**PI.__dict__, "runtime_bytes": measure_runtime()})
    made = make_plan(geometry_for("nano"), device, (1344, 1344), answer_tokens=4)
    trial = run_trial(Job(bundle=PACKAGED["nano"], images=((1344, 1344),), max_tokens=4))
    assert abs(history.compare(made, trial)["peak_error"]) < 0.1


def test_the_command_prints_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "minicpm-llama3-v-2.5", "--image", "4032x3024", "--device", "m1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [set(phase) for phase in found["phases"]] == [{"name", "peak_bytes", "seconds"}] * 4
    assert found["num_slices"] == 10
    assert run(["plan", "nano", "--image", "big", "--device", "m1"]) == 1
    assert "'big' is no picture size" in capsys.readouterr().err
