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
    pytest.importorskip("ray")
    script = """
from handlens.measure.telemetry import switch_off
switch_off()
from ray._private.usage import usage_lib
print(usage_lib.usage_stats_enabled())
"""
    assert run(script, HOME="/nonexistent").split() == ["False"]
