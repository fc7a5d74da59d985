"""From the address in a request to the bytes of a picture: data URIs, uploads, and public addresses if allowed.

Boundary: addresses in, bytes out; nothing on this machine or its network is ever read for a client.
"""

import base64
import binascii
import contextlib
import http.client
import ipaddress
import re
import socket
import ssl
import threading
import time
import urllib.parse
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from handlens.serve.settings import Refusal, ServerSettings

FETCH_SECONDS = 10
"""For one answer, from the first byte that is sent to the last that is read."""
MAX_REDIRECTS = 3
UNICAST = ipaddress.IPv6Network("2000::/3")
"""All of IPv6 that is given to networks of the public (RFC 4291, section 2.4)."""
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""A gateway turns these into the IPv4 address of the last 32 bits (RFC 6052)."""
PROTOCOLS = ipaddress.IPv4Network("192.0.0.0/24")


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A file that a client sent to be asked about later; it lives in memory only."""

    data: bytes
    filename: str
    id: str = field(default_factory=lambda: f"file-{uuid.uuid4().hex}")
    created_s: int = field(default_factory=lambda: int(time.time()))

    def to_json(self) -> dict[str, object]:
        """Return what OpenAI clients expect of a file."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": len(self.data),
            "created_at": self.created_s,
            "filename": self.filename,
            "purpose": "vision",
            "status": "processed",
        }


class Uploads:
    """Uploaded files by id; the oldest go first when there are too many or they weigh too much."""

    def __init__(self, settings: ServerSettings) -> None:
        self._most, self._most_bytes = settings.max_uploads, 8 * settings.max_body_bytes
        self._files: OrderedDict[str, Upload] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, upload: Upload) -> None:
        """Keep a file."""
        with self._lock:
            self._files[upload.id] = upload
            while len(self._files) > self._most or sum(len(file.data) for file in self.all()) > self._most_bytes:
                self._files.popitem(last=False)

    def get(self, file_id: str) -> Upload:
        """Return a file.

        Raises:
            Refusal: 404, it is not here.
        """
        if file_id not in self._files:
            raise Refusal(404, f"there is no file {file_id!r}; upload it again (files live in memory)", code="no_file")
        return self._files[file_id]

    def remove(self, file_id: str) -> None:
        """Forget a file; raises ``Refusal`` as ``get`` does."""
        self.get(file_id)
        with self._lock:
            self._files.pop(file_id, None)

    def all(self) -> list[Upload]:
        """Return all files, oldest first."""
        return [*self._files.values()]


def read_address(address: str, uploads: Uploads, settings: ServerSettings) -> bytes:
    """Return the bytes behind ``image_url.url``: a data URI, the id of an upload, or a public address.

    Raises:
        Refusal: 400, the address is of another kind, is not allowed, or leads nowhere; 404 for an unknown upload.
    """
    scheme = address.partition(":")[0].lower() if ":" in address[:16] else ""
    if scheme == "data":
        return _decode(address)
    if address.startswith("file-"):
        return uploads.get(address).data
    if scheme in ("http", "https") and settings.allow_remote:
        return fetch(address, max_bytes=settings.max_body_bytes)
    advice = "send the picture as a data URI (data:image/png;base64,...) or upload it to /v1/files"
    if scheme in ("http", "https"):
        raise _refuse(f"this server does not fetch pictures from the network; {advice}, or start it with --allow-urls")
    raise _refuse(f"image_url.url begins with {address[:20]!r}; {advice}")


def _decode(address: str) -> bytes:
    head, comma, body = address.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise _refuse("the data URI is not base64; write data:image/png;base64,...")
    try:
        return base64.b64decode(re.sub(r"\s+", "", urllib.parse.unquote(body)), validate=True)
    except (binascii.Error, ValueError):
        raise _refuse(
            f"the data URI holds {len(body):,} characters that are not base64; encode the file again"
        ) from None


def fetch(address: str, *, max_bytes: int) -> bytes:
    """Return what a public address holds; every redirect is checked like the first address.

    Raises:
        Refusal: 400, the address is not public, does not answer with 200, or holds too much.
    """
    for _ in range(MAX_REDIRECTS + 1):
        status, location, body = _get(address, max_bytes)
        if status in (301, 302, 303, 307, 308) and location:
            address = urllib.parse.urljoin(address, location)
            continue
        if status != 200:
            raise _refuse(f"{address[:200]} answers with status {status}; 200 is needed")
        return body
    raise _refuse(f"{address[:200]} leads on more than {MAX_REDIRECTS} times; give the last address")


def public_address(host: str, port: int) -> str:
    """Return one address of a host after all of them were found public.

    Connecting to this very address, and not to the name again, leaves no time to change what the name means.

    Raises:
        Refusal: 400, the name is unknown or means a private, loopback, link-local or reserved address.
    """
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        raise _refuse(f"the host {host[:100]!r} is not known") from None
    for text in found:
        address = ipaddress.ip_address(text.partition("%")[0])
        if not is_public(address):
            raise _refuse(f"the host {host[:100]!r} is {address}, which is not a public address")
    return sorted(found)[0]


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """True where an address is one of the open network; what an IPv6 address carries of IPv4 counts too.

    >>> is_public(ipaddress.ip_address("8.8.8.8")), is_public(ipaddress.ip_address("64:ff9b::7f00:1"))
    (True, False)
    """
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not address.is_multicast and address not in PROTOCOLS
    carried = address.ipv4_mapped or (ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in NAT64 else None)
    if carried is not None:
        return is_public(carried)
    if address.sixtofour is not None and not is_public(address.sixtofour):
        return False
    return address in UNICAST and address.is_global


def _get(address: str, max_bytes: int) -> tuple[int, str | None, bytes]:
    """Ask one address once."""
    try:
        parts = urllib.parse.urlsplit(address)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        raise _refuse(f"{address[:200]!r} is no address") from None
    if parts.scheme not in ("http", "https") or not host or parts.username is not None:
        raise _refuse(f"{address[:200]!r} is no http or https address of a host")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    is_late = threading.Event()
    try:
        plain = socket.create_connection((public_address(host, port), port), timeout=FETCH_SECONDS)
        with _secured(plain, host) if parts.scheme == "https" else plain as channel, _hanging_up(channel, is_late):
            if isinstance(channel, ssl.SSLSocket):
                channel.do_handshake()
            connection = http.client.HTTPConnection(host, port, timeout=FETCH_SECONDS)
            connection.sock = channel
            connection.request(
                "GET", urllib.parse.quote(target, safe="/?&=%:+,;@~!$'()*"), headers={"Accept": "image/*"}
            )
            answer = connection.getresponse()
            body = _read_some(answer, max_bytes)
    except (OSError, http.client.HTTPException) as cause:
        if is_late.is_set():
            raise _too_late() from None
        raise _refuse(f"{address[:200]} cannot be read: {cause}") from None
    if is_late.is_set():  # what looks like an end is our own hanging up
        raise _too_late()
    return answer.status, answer.getheader("location"), body


def _secured(plain: socket.socket, host: str) -> ssl.SSLSocket:
    """Return a channel that will check the host's certificate in its handshake."""
    return ssl.create_default_context().wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)


@contextlib.contextmanager
def _hanging_up(channel: socket.socket, is_late: threading.Event) -> Iterator[None]:
    """End a connection when the time is over, however slowly bytes drip in."""

    def hang_up() -> None:
        is_late.set()
        with contextlib.suppress(OSError):
            socket.socket.shutdown(channel, socket.SHUT_RDWR)  # below TLS: another thread is reading there

    timer = threading.Timer(FETCH_SECONDS, hang_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _read_some(answer: http.client.HTTPResponse, max_bytes: int) -> bytes:
    """Read to the end or to the limit."""
    parts, size = [], 0
    while part := answer.read1(65_536):
        parts.append(part)
        size += len(part)
        if size > max_bytes:
            raise _refuse(f"the picture is larger than {max_bytes:,} bytes")
    return b"".join(parts)


def _too_late() -> Refusal:
    return _refuse(f"the picture did not arrive in {FETCH_SECONDS} s")


def _refuse(message: str) -> Refusal:
    return Refusal(400, message, param="image_url", code="invalid_image_url")
