"""The ledger adds up and reaches the card."""

import json
import multiprocessing
import time
from pathlib import Path

import pytest
import torch

from handlens.train import energy
from handlens.train.distributed import ALONE
from handlens.train.energy import WATTS_PER_CORE, Meter
from handlens.train.ledger import phase_ledger, total_of, write_ledger
from handlens.train.state import Progress

PROGRESS = Progress(
    step=10, pictures=40, slices=90, patches=900, padded=100, tokens=5000, targets=700, flops=2e12,
    counted_share=1.01, seconds=3600.0, device_seconds=7200.0, processor_seconds=3600.0, joules=7.2e6, sessions=2,
)  # fmt: skip


def test_entries_by_hand(sft, monkeypatch):
    monkeypatch.setenv("HANDLENS_GRAMS_PER_KWH", "300")
    ledger = phase_ledger(sft, PROGRESS, Meter(torch.device("cpu")), ALONE, [{"source": "here"}])
    assert ledger["device_hours"] == 2.0
    assert ledger["energy_kwh"] == 2.0
    assert ledger["carbon_kg"] == 0.6
    assert ledger["padded_share"] == 0.1
    assert ledger["flops_counted"] == 2.02e12
    assert ledger["energy_method"].split(":")[0] in ("measured", "estimated")
    assert ledger["data"] == [{"source": "here"}]
    assert ledger["commit"] and ledger["command"]


def test_phases_add_up_on_the_card(sft, tmp_path):
    for name in ("vision", "sft"):
        ledger = phase_ledger(sft, PROGRESS, Meter(torch.device("cpu")), ALONE, [{"source": "here", "licence": "CC0"}])
        write_ledger(tmp_path, ["vision", "warmup", "sft"], ledger | {"phase": name}, "tiny")
    whole = json.loads((tmp_path / "ledger.json").read_text())
    assert whole["phases"] == ["vision", "sft"]
    assert whole["total"]["tokens"] == 10_000 and whole["total"]["device_hours"] == 4.0
    assert whole["total"] == total_of(whole["ledgers"])
    card = (tmp_path / "sft" / "README.md").read_text()
    assert "| all | | 20 | 80 | 180 | 10,000 | 4e+12 | 4 | 4 |" in card
    assert card.count("source: here, licence: CC0") == 1
    assert "10,000" not in (tmp_path / "vision" / "README.md").read_text()


@pytest.fixture
def counters(tmp_path, monkeypatch) -> list[Path]:
    """The energy counters of two processors, in microjoules."""
    monkeypatch.setattr(energy, "RAPL", tmp_path)
    files = [tmp_path / f"intel-rapl:{number}" / "energy_uj" for number in range(2)]
    for file in files:
        file.parent.mkdir()
        file.write_text("900000000\n")
        (file.parent / "max_energy_range_uj").write_text("1000000000\n")
    return files


def test_a_counter_that_begins_again_goes_on(counters):
    meter = Meter(torch.device("cpu"))
    before = meter.read()
    for joules, reading in ((960, 60), (20, 120), (990, 1090), (90, 1190)):
        counters[0].write_text(str(joules * 10**6))
        counters[1].write_text("900000001")
        assert meter.read().joules - before.joules == pytest.approx(reading, abs=1e-4)
    assert meter.method == "measured: RAPL counters of the processor"


def test_one_process_of_a_machine_tells_its_counters(counters, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    meter = Meter(torch.device("cpu"))
    before = meter.read()
    counters[0].write_text("950000000")
    assert meter.read().joules == before.joules
    assert meter.method == "measured: RAPL counters of the processor"


def test_without_a_counter_a_busy_core_is_estimated(monkeypatch, tmp_path):
    monkeypatch.setattr(energy, "RAPL", tmp_path)
    meter = Meter(torch.device("cpu"))
    before = meter.read()
    while (now := meter.read()).processor_seconds - before.processor_seconds < 0.02:
        pass
    assert now.seconds > before.seconds
    used = now.processor_seconds - before.processor_seconds
    assert now.joules - before.joules == pytest.approx(WATTS_PER_CORE * used)
    assert meter.method.startswith("estimated: 8 W per busy core")


def test_a_process_that_helps_counts_while_it_lives_and_after():
    meter = Meter(torch.device("cpu"))
    before, idle = meter.read().processor_seconds, time.process_time()

    def helped() -> float:
        return meter.read().processor_seconds - before - (time.process_time() - idle)

    helper = multiprocessing.get_context("fork").Process(target=_compute, daemon=True)
    helper.start()
    end = time.monotonic() + 60
    while (living := helped()) < 0.1 and time.monotonic() < end:
        time.sleep(0.02)
    helper.kill()
    helper.join()
    assert living >= 0.1
    assert helped() > 0.9 * living


def _compute() -> None:
    while True:
        pass
