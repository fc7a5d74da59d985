"""``handlens serve`` as a process: ready soon, answers, ends in order."""

import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

import handlens
from handlens.cli.main import run

SOURCE = Path(handlens.__file__).parents[1]
pytest.importorskip("uvicorn", reason="the server needs the extra 'serve'")


def test_ready_in_20_seconds_and_ends_on_a_signal():
    command = [sys.executable, "-m", "handlens.cli.main", "serve", "nano", "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={"PYTHONPATH": str(SOURCE)})
    try:
        begin = time.perf_counter()
        line = next(line for line in process.stderr if line.startswith("ready: "))
        url = re.search(r"http://127\.0\.0\.1:\d+", line)[0]
        health = json.loads(urllib.request.urlopen(f"{url}/health", timeout=20).read())
        assert health["model"] == "nano"
        assert time.perf_counter() - begin < 20
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        process.stderr.close()
        process.wait()


def test_a_port_that_is_taken_and_a_model_that_is_none(capsys):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert run(["serve", "--port", str(port), "--workers-url", "http://127.0.0.1:1"]) == 1
        assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err
    assert run(["serve", "nothing-here"]) == 1
    assert "unknown model 'nothing-here'" in capsys.readouterr().err
    assert run(["serve", "--workers-url", "localhost:1"]) == 1
    assert "is no address" in capsys.readouterr().err
