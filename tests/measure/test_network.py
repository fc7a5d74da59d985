"""What is loopback, and that nothing else is reached, from Python and from C, in every thread."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import handlens
from handlens.measure.network import is_local

SOURCE = Path(handlens.__file__).parents[1]


def run(script: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={"PYTHONPATH": str(SOURCE)} | environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@given(st.ip_addresses())
def test_only_loopback_addresses_are_local(address):
    assert is_local((str(address), 80)) == address.is_loopback
    assert is_local(str(address)) == address.is_loopback


def test_every_way_out_of_python_is_refused_and_loopback_is_not():
    script = """
import socket, threading, urllib.request
from handlens.measure.network import forbid_network
tried = forbid_network()
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname()).close()
ways = [
    lambda: socket.create_connection(("192.0.2.1", 80), timeout=1),
    lambda: socket.getaddrinfo("example.org", 443),
    lambda: socket.gethostbyname("example.org"),
    lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("192.0.2.1", 53)),
    lambda: socket.socket(socket.AF_INET6).connect(("2001:db8::1", 80)),
    lambda: socket.create_server(("0.0.0.0", 0)),
    lambda: urllib.request.urlopen("http://example.org", timeout=1),
]
refused = []
def go():
    for way in ways:
        try:
            way()
        except OSError:
            refused.append(way)
thread = threading.Thread(target=go); thread.start(); thread.join()
print(len(refused), len(ways), sum(not entry["allowed"] for entry in tried))
"""
    assert run(script).split() == ["7", "7", "7"]


def test_a_loaded_model_works_without_a_network_and_leaves_its_caller_alone():
    """Inside ``see`` and ``answer`` of this thread nothing but loopback; between tokens and elsewhere all is free."""
    script = """
import socket, threading
from PIL import Image
import handlens
from handlens.core.chat import ask
from handlens.core.images import Picture
from handlens.core.sampling import Sampling

def reach():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        try:
            out.connect(("192.0.2.1", 53))  # a datagram socket sends nothing when it connects
        except PermissionError:
            return "refused"
        except OSError:
            pass  # a machine without a network: it was not we who refused
        return "free"

told = []
class Spy:
    def __init__(self, inner):
        self.inner, self.info = inner, inner.info
    def see(self, images, *, max_slices=None):
        other = threading.Thread(target=lambda: told.append(("other thread", reach())))
        other.start(); other.join()
        told.append(("see", reach()))
        return self.inner.see(images, max_slices=max_slices)
    def answer(self, chat, seen, sampling):
        for token in self.inner.answer(chat, seen, sampling):
            told.append(("answer", reach()))
            yield token

model = handlens.load("nano", keep=True)
model.answerer = Spy(model.answerer)
seen = model.see([Picture(Image.new("RGB", (32, 32)), "p")])
for token in model.answer(ask("What is it?"), seen, Sampling(max_tokens=2)):
    told.append(("between tokens", reach()))
told.append(("after", reach()))
print(sorted({f"{where}: {how}" for where, how in told}))
"""
    assert run(script, HANDLENS_NO_CACHE="1", HANDLENS_NO_PROFILE="1").strip() == str(
        ["after: free", "answer: refused", "between tokens: free", "other thread: free", "see: refused"]
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="seccomp is of Linux")
def test_libraries_in_c_get_no_socket_in_threads_that_ran_before_and_in_children():
    script = """
import ctypes, subprocess, sys, threading
from handlens.measure.syscalls import forbid_sockets
C = ctypes.CDLL(None)
go, found = threading.Event(), []
thread = threading.Thread(target=lambda: (go.wait(), found.append(C.socket(2, 1, 0))))
thread.start()
before = C.socket(2, 1, 0)
done = forbid_sockets()
go.set(); thread.join()
child = subprocess.run([sys.executable, "-c", "import socket; socket.socket()"], capture_output=True, text=True)
print(done, before >= 0, found, C.socket(2, 1, 0), C.socket(1, 1, 0), "Permission denied" in child.stderr)
"""
    found = run(script).strip()
    if found.startswith("False"):
        pytest.skip("this system has no seccomp for us")
    assert found == "True True [-1] -1 -1 True"


def test_telemetry_is_switched_off_and_what_the_user_set_stays():
    script = """
import os
from handlens.measure.telemetry import left_on, switch_off
switch_off()
print(os.environ["HF_HUB_DISABLE_TELEMETRY"], os.environ["DO_NOT_TRACK"], *left_on())
"""
    assert run(script, RAY_USAGE_STATS_ENABLED="1").split() == ["1", "1", "RAY_USAGE_STATS_ENABLED"]


def test_the_libraries_hear_it():
    script = """
from handlens.measure.telemetry import switch_off
switch_off()
from huggingface_hub import constants
print(constants.HF_HUB_DISABLE_TELEMETRY)
"""
    assert run(script).split() == ["True"]


@pytest.mark.soak
def test_ray_hears_it_too():
    pytest.importorskip("ray", reason="needs a cluster: pip install 'handlens[ray]'")
    script = """
from handlens.measure.telemetry import switch_off
switch_off()
from ray._common.usage import usage_lib
print(usage_lib.usage_stats_enabled())
"""
    assert run(script, HOME="/nonexistent").split() == ["False"]
