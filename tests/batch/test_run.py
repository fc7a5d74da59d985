"""A folder from end to end with the shipped model: damage, kill, resume, one content asked once, limits."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pypdfium2
import pytest
from PIL import Image, ImageDraw

import handlens
from handlens.batch import run as batch_run
from handlens.batch.run import Limits, run_batch
from handlens.batch.task import Request
from handlens.errors import ModelError, SettingError

REQUEST = Request(model="nano", question="What is shown?", max_tokens=3, max_slices=1, cache=False, profile=False)
SOURCE = Path(handlens.__file__).parents[1]


def draw(number: int) -> Image.Image:
    picture = Image.new("RGB", (56, 56), ((37 * number) % 256, (91 * number) % 256, 90))
    ImageDraw.Draw(picture).rectangle((number % 40, number % 30, 50, 50), fill="white")
    return picture


def fill(folder: Path, count: int, *, damaged: int) -> None:
    """Write small pictures; ``damaged`` of them are spoiled, each in another way in turn."""
    folder.mkdir()
    for number in range(count):
        draw(number).save(folder / f"{number:05}.png")
    for place in range(damaged):
        number = place * (count // damaged)
        file = folder / f"{number:05}.png"
        whole = file.read_bytes()
        file.write_bytes([b"", whole[: len(whole) // 2], b"no picture", os.urandom(300)][place % 4])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    fill(tmp_path / "in", 6, damaged=2)
    document = pypdfium2.PdfDocument.new()
    document.new_page(60, 60)
    document.new_page(80, 40)
    document.save(str(tmp_path / "in" / "doc.pdf"))
    shutil.copy(tmp_path / "in" / "00001.png", tmp_path / "in" / "copy.png")
    return tmp_path / "in"


def rows_of(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_every_file_is_accounted_for_and_a_second_run_asks_nothing(folder: Path, tmp_path: Path):
    out = tmp_path / "out.jsonl"
    done = run_batch(folder, out, REQUEST)
    assert dict(done.counts) == {"ok": 7, "damaged": 2}
    assert done.num_known == 1  # the copy has the content of another file
    rows = {row["file"] if row["page"] is None else f"{row['file']}#{row['page']}": row for row in rows_of(out)}
    assert list(rows) == [f"{n:05}.png" for n in range(6)] + ["copy.png", "doc.pdf#1", "doc.pdf#2"]
    assert rows["copy.png"] | {"file": "00001.png"} == rows["00001.png"]
    assert rows["00000.png"]["error"].startswith("00000.png is empty (0 bytes)")
    assert (rows["doc.pdf#2"]["width_px"], rows["doc.pdf#2"]["height_px"]) == (167, 84)  # 80 x 40 points at 150 dpi
    assert all((row["error"] is None) == (row["status"] == "ok") for row in rows.values())

    # The same run in the process of the caller gives the same answers.
    model = handlens.load("nano", profile=False)
    alone = model.ask(model.look(folder / "00001.png", max_slices=1), "What is shown?", max_tokens=3)
    assert rows["00001.png"]["answer"] == alone.text

    before = out.read_bytes()
    assert run_batch(folder, out, REQUEST).num_known == 7
    assert out.read_bytes() == before

    # A picture that changed is asked about again, one that was renamed is not.
    draw(77).save(folder / "00001.png")
    (folder / "00002.png").rename(folder / "renamed.png")
    again = run_batch(folder, out, REQUEST)
    assert (again.counts["ok"], again.num_known) == (7, 6)
    assert "renamed.png" in {row["file"] for row in rows_of(out)}


def test_killed_at_any_moment_it_ends_with_the_same_file(folder: Path, tmp_path: Path):
    out = tmp_path / "killed.csv"
    script = (
        "import handlens.batch.run as run, pathlib, sys\n"
        "from handlens.batch.task import Request\n"
        f"if __name__ == '__main__': run.run_batch({str(folder)!r}, pathlib.Path({str(out)!r}), {REQUEST!r})\n"
    )
    program = tmp_path / "program.py"
    program.write_text(script)
    journal = tmp_path / "killed.csv.journal"
    process = subprocess.Popen([sys.executable, program], env=os.environ | {"PYTHONPATH": str(SOURCE)})
    deadline = time.monotonic() + 120
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= 3) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    num_rows = journal.read_bytes().count(b"\n") - 1
    assert 2 <= num_rows < 9
    with journal.open("ab") as stream:  # the worst moment: half a line is on disk
        stream.write(b'{"key": "00005.png", "fi')

    resumed = run_batch(folder, out, REQUEST)
    assert resumed.num_known >= 1
    whole = tmp_path / "whole.csv"
    run_batch(folder, whole, REQUEST)
    assert out.read_bytes() == whole.read_bytes()


def test_a_worker_that_is_killed_costs_one_try(folder: Path, tmp_path: Path):
    import multiprocessing

    killed = []

    def kill_once(progress) -> None:
        if progress.num_done and not killed:
            (child,) = multiprocessing.active_children()
            killed.append(child.pid)
            child.kill()

    done = run_batch(folder, tmp_path / "a.jsonl", REQUEST, tell=kill_once)
    assert killed
    assert done.counts["ok"] == 7
    assert done.num_retried == 1
    assert multiprocessing.active_children() == []


def test_limits_stop_and_the_next_run_goes_on(folder: Path, tmp_path: Path, monkeypatch):
    from handlens.measure import energy

    battery = tmp_path / "supply" / "BAT0"
    battery.mkdir(parents=True)
    (battery / "status").write_text("Discharging\n")
    monkeypatch.setattr(energy, "SUPPLY", battery.parent)
    out = tmp_path / "a.jsonl"
    stopped = run_batch(folder, out, REQUEST, limits=Limits(mains_only=True))
    assert stopped.stopped == "the machine runs on its battery (--mains-only)"
    assert stopped.to_json()["left"] > 0
    (battery / "status").write_text("Charging\n")
    assert batch_run.why_stop(Limits(mains_only=True)) == ""

    zone = tmp_path / "thermal" / "thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "temp").write_text("91000\n")
    monkeypatch.setattr(energy, "THERMAL", zone.parent)
    monkeypatch.setattr(energy, "HWMON", tmp_path)
    assert batch_run.why_stop(Limits(max_celsius=90)) == "the machine has 91 °C, above --max-celsius 90"
    assert batch_run.why_stop(Limits(max_celsius=92)) == ""


def test_what_cannot_begin_says_so(folder: Path, tmp_path: Path):
    with pytest.raises(SettingError, match="there is no folder"):
        run_batch(folder, tmp_path / "none" / "a.csv", REQUEST)
    mine = tmp_path / "mine.csv"
    mine.write_text("precious")
    with pytest.raises(SettingError, match="exists and no batch wrote it"):
        run_batch(folder, mine, REQUEST)
    assert mine.read_text() == "precious"
    with pytest.raises(ModelError, match="unknown model 'nan'; did you mean 'nano'"):
        run_batch(folder, tmp_path / "a.csv", Request(model="nan", question="?"))
    with pytest.raises(SettingError, match="unknown engine 'rey'; did you mean 'ray'"):
        run_batch(folder, tmp_path / "a.csv", REQUEST, engine="rey")


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_cluster_gives_the_same_file(folder: Path, tmp_path: Path):
    pytest.importorskip("ray", reason="needs a cluster: pip install 'handlens[ray]'")
    run_batch(folder, tmp_path / "local.jsonl", REQUEST)
    run_batch(folder, tmp_path / "ray.jsonl", REQUEST, engine="ray", num_workers=2)
    assert (tmp_path / "ray.jsonl").read_bytes() == (tmp_path / "local.jsonl").read_bytes()
    with pytest.raises(ModelError):
        run_batch(folder, tmp_path / "b.jsonl", Request(model=str(folder), question="?"), engine="ray")


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_ten_thousand_files_with_two_percent_damaged_and_two_kills(tmp_path: Path):
    fill(tmp_path / "in", 10_000, damaged=200)
    out = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "handlens.cli.main", "batch", str(tmp_path / "in"), "What is shown?"]
    command += ["--out", str(out), "--max-tokens", "2", "--max-slices", "1", "--no-cache", "--jobs", "2"]
    journal = tmp_path / "out.jsonl.journal"
    for rows_before_kill in (1_500, 5_000):
        process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(SOURCE)})
        while process.poll() is None:
            with contextlib.suppress(FileNotFoundError):
                if journal.read_bytes().count(b"\n") > rows_before_kill:
                    process.kill()
                    break
            time.sleep(1)
        assert process.wait() == -signal.SIGKILL
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(SOURCE)}, capture_output=True, text=True)
    sys.stderr.write(done.stderr)
    assert done.returncode == 0
    rows = rows_of(out)
    assert [row["file"] for row in rows] == [f"{number:05}.png" for number in range(10_000)]
    assert {row["file"] for row in rows if row["status"] == "damaged"} == {f"{n:05}.png" for n in range(0, 10_000, 50)}
    assert sum(row["status"] == "ok" for row in rows) == 9_800
    assert "9800 answered" in done.stderr.splitlines()[-1]
    assert "200 damaged, 0 failed" in done.stderr.splitlines()[-1]
