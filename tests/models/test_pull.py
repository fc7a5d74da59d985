"""``handlens models pull`` against a hub on this machine: whole, cut, damaged, unknown, gated and out of reach."""

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from handlens.cli.main import run
from handlens.models import pull

NAME, COMMIT = "openbmb/tiny", "c" * 40
WEIGHTS = bytes(range(256)) * 1200


@dataclass
class Hub:
    """What the hub has, what goes wrong there, and what was asked of it."""

    files: dict[str, bytes]
    sends: int | None = None
    """Bytes of the weights after which the line is cut, and every later try fails at once; None sends all."""
    code: int = 200
    damages: bool = False
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """File and range of every GET."""

    def facts(self) -> dict[str, Any]:
        """Return what the API says of the repository."""
        siblings = []
        for name, content in self.files.items():
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
            entry: dict[str, Any] = {"rfilename": name, "size": len(content), "blobId": blob}
            if name.endswith(".safetensors"):
                entry["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 1}
            siblings.append(entry)
        return {"id": NAME, "sha": COMMIT, "siblings": siblings, "cardData": {"license": "apache-2.0"}, "tags": []}


def handler_of(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            """Say nothing."""

        def do_HEAD(self) -> None:
            self.do_GET(with_body=False)

        def do_GET(self, *, with_body: bool = True) -> None:
            if hub.code != 200:
                kinds = {404: "RepoNotFound", 403: "GatedRepo"}
                self.reply(hub.code, b"{}", {"X-Error-Code": kinds.get(hub.code, "")}, with_body=with_body)
            elif self.path.startswith("/api/models/"):
                self.reply(200, json.dumps(hub.facts()).encode(), {"Content-Type": "application/json"})
            else:
                self.send_file(self.path.partition(f"/resolve/{COMMIT}/")[2], with_body=with_body)

        def send_file(self, name: str, *, with_body: bool) -> None:
            content = hub.files[name]
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
            wanted = self.headers.get("Range")
            if not with_body:
                self.reply(200, content, headers, with_body=False)
                return
            hub.asked.append((name, wanted))
            begin = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
            if begin:
                headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
            sent = bytes(len(content)) if hub.damages and name.endswith(".safetensors") else content
            cut = hub.sends if name.endswith(".safetensors") else None
            self.reply(206 if begin else 200, sent[begin:], headers, cut=cut)
            if cut is not None:
                hub.sends = 0

        def reply(
            self, code: int, body: bytes, headers: dict[str, str], *, with_body: bool = True, cut: int | None = None
        ) -> None:
            self.send_response(code)
            for key, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(key, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body[:cut])
                self.wfile.flush()
            if cut is not None:
                self.close_connection = True
                self.connection.close()

    return Handler


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    found = Hub(
        {
            "config.json": b'{"model_type": "minicpmv"}',
            "model.safetensors": WEIGHTS,
            "modeling.py": b"print('code')",
            "pytorch_model.bin": b"a pickle",
        }
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(found))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    point_at(f"http://127.0.0.1:{server.server_address[1]}", monkeypatch)
    monkeypatch.setenv("HANDLENS_CACHE", str(tmp_path))
    yield found
    server.shutdown()
    server.server_close()


def point_at(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do what HF_ENDPOINT does when a program begins; waiting between tries is left out."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(pull, "WAIT_SECONDS", 0.0)


def said(capsys: pytest.CaptureFixture[str]) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("handlens")]
    assert len(lines) == 1
    return lines[0]


def test_a_model_is_fetched_whole_without_code_and_pickles(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["models", "pull", NAME, "--json"]) == 0
    folder = Path(json.loads(capsys.readouterr().out)["folder"])
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "handlens-pull.json", "model.safetensors"]
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    record = json.loads((folder / "handlens-pull.json").read_text())
    assert (record["revision"], record["licence"]) == (COMMIT, "apache-2.0")
    assert record["files"]["model.safetensors"]["sha256"] == hashlib.sha256(WEIGHTS).hexdigest()
    asked = len(hub.asked)
    assert run(["models", "pull", NAME]) == 0 and len(hub.asked) == asked
    assert run(["models", "list", "--json"]) == 0
    out = capsys.readouterr().out
    assert NAME in [entry["name"] for entry in json.loads(out[out.index("[") :])]
    # A file that was changed on the disk is noticed, and rm makes room.
    (folder / "model.safetensors").write_bytes(WEIGHTS[:-1] + b"x")
    assert run(["models", "pull", NAME]) == 1
    assert "is missing or changed; `handlens models rm` the model and pull it again" in said(capsys)
    assert run(["models", "rm", NAME]) == 0 and not folder.exists()


def test_a_cut_line_is_taken_up_where_it_broke(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.sends = 131_072
    assert run(["models", "pull", NAME]) == 1
    assert "what was fetched is kept: run it again" in said(capsys)
    assert run(["models", "list", "--json"]) == 0
    assert NAME not in capsys.readouterr().out
    hub.sends = None
    hub.asked.clear()
    assert run(["models", "pull", NAME, "--json"]) == 0
    folder = Path(json.loads(capsys.readouterr().out)["folder"])
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert hub.asked == [("model.safetensors", "bytes=131072-")]  # neither again nor from the beginning


def test_damaged_bytes_are_refused_and_not_kept(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub.damages = True
    assert run(["models", "pull", NAME]) == 1
    assert "model.safetensors of openbmb/tiny arrived damaged: its hash differs; pull it again" in said(capsys)
    assert not list(tmp_path.rglob("model.safetensors"))
    hub.damages = False
    assert run(["models", "pull", NAME]) == 0


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (404, "Hugging Face has no model openbmb/tiny, or it is private; check the name"),
        (403, "openbmb/tiny asks readers to accept a licence"),
        (500, "Hugging Face refused openbmb/tiny"),
    ],
)
def test_refusals_of_the_hub_are_one_line(
    hub: Hub, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.code = code
    assert run(["models", "pull", NAME]) == 1
    assert message in said(capsys)


def test_out_of_reach_is_one_line(hub: Hub, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    point_at("http://127.0.0.1:9", monkeypatch)
    assert run(["models", "pull", NAME]) == 1
    assert "cannot reach Hugging Face for openbmb/tiny" in said(capsys)
    assert run(["models", "pull", NAME, "--only", "*.gguf"]) == 1


def test_only_what_was_asked_for_is_fetched(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["models", "pull", NAME, "--only", "*.json"]) == 0
    assert [name for name, _ in hub.asked] == ["config.json"]
    capsys.readouterr()
    assert run(["models", "pull", NAME, "--only", "*.gguf"]) == 1
    assert "has no file that a model needs among *.gguf" in said(capsys)
