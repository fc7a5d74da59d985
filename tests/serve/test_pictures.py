"""Fetching for a client (``--allow-urls``) reaches public addresses only, whatever names and redirects are tried.

The network is replaced at its edge: names mean what a table says, and every public address leads to one server here.
"""

import http.server
import socket
import threading
import time
import urllib.parse
from typing import ClassVar

import pytest

from handlens.serve import pictures
from handlens.serve.pictures import Uploads, fetch, public_address, read_address
from handlens.serve.settings import Refusal, ServerSettings

PUBLIC = "93.184.216.34"
PRIVATE = (
    "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1",
    "169.254.169.254", "100.64.0.1", "192.0.0.8", "198.18.0.1", "224.0.0.1", "255.255.255.255",
    "::1", "::", "fe80::1", "fe80::1%1", "fc00::1", "fec0::1", "ff02::1", "2001:db8::1", "2001:0:4136:e378::1",
    "::ffff:127.0.0.1", "::ffff:169.254.169.254",  # mapped
    "::127.0.0.1",  # compatible
    "2002:7f00:1::", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1",  # translated to IPv4 on the way
)  # fmt: skip
BODY = b"not really a picture"


class Page(http.server.BaseHTTPRequestHandler):
    """Answers what the path says and remembers who was asked for."""

    asked: ClassVar[list[tuple[str, str]]] = []

    def do_GET(self):
        self.asked.append((self.headers["Host"], self.path))
        if self.path.startswith("/to?"):
            self.send_response(302)
            self.send_header("Location", urllib.parse.unquote(self.path.removeprefix("/to?")))
            self.end_headers()
        elif self.path.startswith("/slow-head"):
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            self._drip(b"X-Wait: yes\r\n")
        elif self.path.startswith("/slow-body"):
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            self._drip(b"x")
        elif self.path.startswith("/endless"):
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            self._drip(b"x" * 10_000, pause_s=0.0)
        else:
            self.send_response(404 if self.path == "/missing" else 200)
            self.end_headers()
            self.wfile.write(BODY)

    def _drip(self, piece: bytes, pause_s: float = 0.05) -> None:
        end = time.monotonic() + 10
        try:
            while time.monotonic() < end:
                self.wfile.write(piece)
                time.sleep(pause_s)
        except OSError:  # the client had enough
            pass

    def log_message(self, *_):
        pass


@pytest.fixture
def internet(monkeypatch):
    """Names by table, and one server behind every public address; gives the table and who was asked for."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    names: dict[str, list[list[str]]] = {"pictures.example": [[PUBLIC]]}
    real_lookup, real_connect = socket.getaddrinfo, socket.create_connection
    connected: list[str] = []

    def look_up(host, port, *more, **options):
        if host not in names:
            return real_lookup(host, port, *more, **options)
        answers = names[host]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    def connect(address, *more, **options):
        connected.append(address[0])
        assert address[0] == PUBLIC, "only what is public is ever connected to"
        return real_connect(server.server_address, *more, **options)

    monkeypatch.setattr(pictures.socket, "getaddrinfo", look_up)
    monkeypatch.setattr(pictures.socket, "create_connection", connect)
    Page.asked = []
    yield names, connected
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize("address", PRIVATE)
def test_no_private_address_in_any_spelling(address):
    with pytest.raises(Refusal, match=r"is not a public address|is not known") as raised:
        public_address(address, 80)
    assert raised.value.status == 400


@pytest.mark.parametrize("address", [PUBLIC, "8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_may_be_asked(address):
    assert public_address(address, 443) == address


def test_a_picture_of_a_public_address_is_fetched_by_its_name(internet):
    settings = ServerSettings(allow_remote=True)
    uploads = Uploads(settings)
    assert read_address("http://pictures.example/a b.png?x=1", uploads, settings) == BODY
    assert Page.asked == [("pictures.example", "/a%20b.png?x=1")]
    assert fetch("http://pictures.example/to?/other.png", max_bytes=100) == BODY


@pytest.mark.parametrize(
    "target",
    ["http://127.0.0.1/", "http://169.254.169.254/latest/meta-data", "http://[::1]:8000/", "http://localhost/",
     "file:///etc/passwd", "gopher://pictures.example/", "//10.0.0.1/x", "http://user@pictures.example/"],
)  # fmt: skip
def test_a_redirect_is_checked_like_the_first_address(internet, target):
    _, connected = internet
    with pytest.raises(Refusal, match=r"is not a public address|is no http or https address"):
        fetch(f"http://pictures.example/to?{target}", max_bytes=100)
    assert connected == [PUBLIC]


def test_a_name_that_changes_its_meaning_is_asked_once(internet):
    names, connected = internet
    names["rebind.example"] = [[PUBLIC], ["127.0.0.1"]]
    assert fetch("http://rebind.example/", max_bytes=100) == BODY
    assert connected == [PUBLIC]
    with pytest.raises(Refusal, match=r"'rebind\.example' is 127\.0\.0\.1"):
        fetch("http://rebind.example/", max_bytes=100)


def test_a_name_with_one_private_address_is_refused(internet):
    names, connected = internet
    names["both.example"] = [[PUBLIC, "10.0.0.1"]]
    with pytest.raises(Refusal, match=r"is 10\.0\.0\.1"):
        fetch("http://both.example/", max_bytes=100)
    assert connected == []


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://pictures.example/missing", "answers with status 404"),
        ("http://pictures.example/to?/to?/to?/to?/to?/", "leads on more than 3 times"),
        ("http://pictures.example/endless", "larger than 50,000 bytes"),
        ("http://user:word@pictures.example/", "is no http or https address"),
        ("http:///x", "is no http or https address"),
        ("http://pictures.example:99999/", "is no address"),
        ("http://[::1", "is no address"),
        ("https://pictures.example/", "cannot be read: .*SSL"),  # it speaks no TLS
    ],
)
def test_what_gives_no_picture_is_refused(internet, address, message):
    with pytest.raises(Refusal, match=message):
        fetch(address, max_bytes=50_000)


def test_a_line_break_in_an_address_makes_no_second_request(internet):
    fetch("http://pictures.example/x\r\nHost: evil.example\r\n\r\nGET /y", max_bytes=100)
    assert [host for host, _ in Page.asked] == ["pictures.example"]


@pytest.mark.parametrize("path", ["slow-head", "slow-body"])
def test_a_slow_server_holds_nobody_up(internet, monkeypatch, path):
    monkeypatch.setattr(pictures, "FETCH_SECONDS", 0.4)
    begin = time.monotonic()
    with pytest.raises(Refusal, match="did not arrive in"):
        fetch(f"http://pictures.example/{path}", max_bytes=10**6)
    assert time.monotonic() - begin < 5  # without a limit it drips for 10 s
