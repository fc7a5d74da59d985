"""The door to megatron-energon: what its loader gives after kill -9 is what it would have given."""

import importlib.util
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from handlens.data.energon import blend, packed_loader, prepare
from handlens.data.shards import write_shards
from handlens.errors import DataError, NeedsExtra, SettingError

# not find_spec("megatron.energon"): other packages share the namespace
HAS_ENERGON = any(
    Path(place, "energon").is_dir() for spec in [importlib.util.find_spec("megatron")] if spec is not None
    for place in spec.submodule_search_locations or ()
)  # fmt: skip
with_energon = pytest.mark.skipif(
    not HAS_ENERGON, reason="megatron-energon is missing: pip install 'handlens[energon]'"
)

READER = """
import pickle, sys
from pathlib import Path
from handlens.data.energon import packed_loader
from handlens.data.pack import Budget, Length

def measure(sample):
    return Length(key=sample.key, tokens=200 + 37 * (sum(sample.key.encode()) % 11), slices=1)

mix, workers, state, action = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
loader = packed_loader(mix, measure, budget=Budget(tokens=1600, slices=4), window=10, workers=workers)
if action == "restore":
    loader.restore_state_rank(pickle.loads(state.read_bytes()))
for number, row in enumerate(loader, 1):
    room = [measure(sample) for sample in row.samples]
    assert sum(one.tokens for one in room) <= 1600 and len(room) <= 4, row.__key__
    print(row.__key__, [len(sample.images) for sample in row.samples], flush=True)
    if action == "save" and number == 5:
        state.write_bytes(pickle.dumps(loader.save_state_rank()))
        print("saved", flush=True)
"""


def read(mix: Path, workers: int, state: Path, action: str, count: int) -> list[str]:
    """Return the lines of a reader that is killed (SIGKILL) after ``count`` of them."""
    command = [sys.executable, "-c", READER, str(mix), str(workers), str(state), action]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None and reader.stderr is not None
        lines = [reader.stdout.readline().strip() for _ in range(count)]
        reader.send_signal(signal.SIGKILL)
        assert all(lines), reader.stderr.read()[-2000:]
    return lines


@with_energon
@pytest.mark.timeout(900)  # four processes that load torch, perhaps on a shared core
@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_loader_goes_on_exactly(workers: int, tmp_path: Path) -> None:
    for kind in ("lines", "scenes"):
        write_shards(kind, 16, 1, tmp_path / kind, per_shard=4)
        prepare(tmp_path / kind)
    mix = blend({tmp_path / "lines": 3, tmp_path / "scenes": 1}, tmp_path / "mix.yaml")
    first = read(mix, workers, tmp_path / "state", "save", 14)
    assert first[5] == "saved"
    again = read(mix, workers, tmp_path / "state", "restore", 8)
    assert again == first[6:]
    assert len(set(first)) > 8 and any("," in line.split(" [")[0] for line in first)


@with_energon
def test_what_is_not_prepared_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no shards \(\*\.tar\) in"):
        prepare(tmp_path)
    with pytest.raises(DataError, match="is not prepared for energon"):
        packed_loader(tmp_path, lambda sample: None)


@pytest.mark.skipif(HAS_ENERGON, reason="says what happens without megatron-energon, which is here")
def test_without_energon_the_extra_is_named(tmp_path: Path) -> None:
    with pytest.raises(NeedsExtra, match=r"handlens\[energon\]"):
        prepare(tmp_path)


def test_a_blend_needs_shares_above_zero(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="shares above 0"):
        blend({tmp_path: 0.0}, tmp_path / "mix.yaml")
