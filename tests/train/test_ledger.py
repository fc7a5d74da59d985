"""The ledger adds up and reaches the card."""

import json

import torch

from handlens.train.distributed import ALONE
from handlens.train.energy import WATTS_PER_CORE, Meter
from handlens.train.ledger import phase_ledger, total_of, write_ledger
from handlens.train.state import Progress

PROGRESS = Progress(
    step=10, pictures=40, slices=90, patches=900, padded=100, tokens=5000, targets=700, flops=2e12,
    counted_share=1.01, seconds=7200.0, processor_seconds=3600.0, joules=7.2e6, sessions=2,
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


def test_an_estimate_follows_the_processor():
    meter = Meter(torch.device("cpu"))
    before = meter.read()
    while (now := meter.read()).processor_seconds - before.processor_seconds < 0.02:
        pass
    assert now.seconds > before.seconds
    if meter.method.startswith("estimated"):
        used = now.processor_seconds - before.processor_seconds
        assert abs((now.joules - before.joules) - WATTS_PER_CORE * used) < 1e-9
