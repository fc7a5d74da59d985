"""Energy and heat from files that are written here."""

from pathlib import Path

import pytest

from handlens.errors import DataError
from handlens.measure import energy


def test_a_power_meter_log_is_integrated_between_the_ends_of_the_run(tmp_path: Path) -> None:
    log = tmp_path / "meter.csv"
    log.write_text("seconds,watts\n100,10\n110,20\n120,20\n130,0\n")
    # 105 to 110 s: from 15 to 20 W = 87.5 J; 110 to 120 s: 200 J; 120 to 125 s: from 20 to 10 W = 75 J
    read = energy.read_power_log(log)
    assert read.joules(105.0, 125.0) == pytest.approx(362.5)
    assert read.covers(100.0, 130.0) and not read.covers(99.0, 130.0) and not read.covers(100.0, 131.0)


def test_a_meter_that_has_just_begun_covers_nothing(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("seconds,watts\n")
    log = energy.read_power_log(tmp_path / "m.csv")
    assert not log.covers(1.0, 2.0) and log.span == "nothing"


@pytest.mark.parametrize("content", ["a,b\n1,2\n", "seconds,watts\n1,x\n", "seconds,watts\n1\n", ""])
def test_a_log_that_cannot_be_used(content: str, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text(content)
    with pytest.raises(DataError, match="needs a header line 'seconds,watts'"):
        energy.read_power_log(tmp_path / "m.csv")


def test_rapl_is_read_and_a_counter_that_wraps_loses_one_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "intel-rapl:0"
    package.mkdir()
    (tmp_path / "intel-rapl:0:0").mkdir()
    (tmp_path / "intel-rapl:0:0" / "energy_uj").write_text("999000000")  # a part of the package: not counted twice
    monkeypatch.setattr(energy, "RAPL", tmp_path)
    counter = package / "energy_uj"
    found = []
    for value in (5_000_000, 9_000_000, 1_000_000, 3_500_000):
        counter.write_text(f"{value}\n")
        meter = energy.find_meter() if not found else meter
        found.append(meter.read(float(len(found))))
    assert meter.method == "RAPL package"
    assert found == [0.0, 4.0, 4.0, 6.5]


def test_a_battery_that_discharges_is_a_meter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "BAT0").mkdir()
    for name, value in {"status": "Discharging", "current_now": "2000000", "voltage_now": "10000000"}.items():
        (tmp_path / "BAT0" / name).write_text(value)
    monkeypatch.setattr(energy, "RAPL", tmp_path / "none")
    monkeypatch.setattr(energy, "SUPPLY", tmp_path)
    meter = energy.find_meter()
    assert meter.method == "battery"
    meter.read(1.0)
    assert meter.read(4.0) == pytest.approx(60.0)  # 2 A at 10 V for 3 s


def test_without_a_meter_nothing_is_guessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAPL", "SUPPLY", "THERMAL", "HWMON"):
        monkeypatch.setattr(energy, name, tmp_path)
    monkeypatch.setattr("shutil.which", lambda _: None)
    meter = energy.find_meter()
    assert meter.method == "not measurable here" and meter.read(1.0) is None
    assert energy.temperature_celsius() is None
    zone = tmp_path / "thermal_zone0"
    zone.mkdir()
    (zone / "temp").write_text("56500\n")
    assert energy.temperature_celsius() == 56.5
