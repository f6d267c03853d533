# SPDX-License-Identifier: Apache-2.0
"""Links have the round-trip time and the rate that was asked for, whichever way they are made."""

from __future__ import annotations

import os
import socket
import statistics
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path as File

import pytest

from emptcp.lab import links, process
from emptcp.lab.host import Host
from emptcp.lab.path import LabPath, Path
from emptcp.lab.topology import Lab, two_hosts

pytestmark = [pytest.mark.kernel, pytest.mark.traffic]

PATHS = [Path(rate=100e6, rtt=0.020), Path(rate=20e6, rtt=0.050)]
# Other work on the machine only ever adds delay and takes rate away: a quiet second is enough.
ATTEMPTS = 4
PAYLOAD = 1472
FRAME = PAYLOAD + 42


@pytest.fixture(params=["relay", "netem"])
def lab(request: pytest.FixtureRequest, tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path))
    name = f"t{os.getpid()}"
    if request.param == "netem":
        with two_hosts([Path()], link="veth", name=name) as probe:
            if not links.has_netem(probe.a):
                pytest.skip("this kernel has no netem (tried with tc)")
    with two_hosts(PATHS, link=request.param, name=name) as made:
        yield made


def nearest(measure: Callable[[], float], wanted: float, tolerance: float) -> float:
    """The first measurement within the tolerance, else the nearest of a few."""
    results: list[float] = []
    for _ in range(ATTEMPTS):
        results.append(measure())
        if abs(results[-1] - wanted) < tolerance:
            break
    return min(results, key=lambda result: abs(result - wanted))


def median_rtt(host: Host, address: str, count: int = 40) -> float:
    """Median of ICMP echoes, in seconds: the far host's kernel answers, as for ping."""
    with host.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)) as probe:
        probe.settimeout(2)
        probe.connect((address, 0))
        return statistics.median(echo(probe, number) for number in range(count))


def echo(probe: socket.socket, number: int) -> float:
    # Type 8; the checksum is the complement of all other words.
    request = struct.pack("!BBHHH", 8, 0, 0xFFFF - 0x0800 - number, 0, number)
    begin = time.monotonic()
    probe.send(request)
    assert probe.recv(100)[26:28] == request[6:8]
    return time.monotonic() - begin


@pytest.mark.parametrize("number", [0, 1])
def test_the_median_round_trip_is_within_a_millisecond(lab: Lab, number: int) -> None:
    path = lab.paths[number]
    measured = nearest(lambda: median_rtt(lab.a, path.b.address4), path.rtt, 0.001)
    assert abs(measured - path.rtt) < 0.001


@pytest.mark.parametrize("number", [0, 1])
def test_the_rate_is_within_three_percent_in_both_directions(lab: Lab, number: int) -> None:
    path = lab.paths[number]
    tolerance = 0.03 * path.rate
    forth = nearest(lambda: rate(lab.a, lab.b, path, path.b.address4), path.rate, tolerance)
    back = nearest(lambda: rate(lab.b, lab.a, path, path.a.address4), path.rate, tolerance)
    assert abs(forth - path.rate) < tolerance
    assert abs(back - path.rate) < tolerance


def rate(sender: Host, receiver: Host, path: LabPath, address: str) -> float:
    """bit/s of whole frames that arrive while a third more than the path takes is sent by UDP."""
    stop = threading.Event()
    with udp(sender) as out, udp(receiver) as sink:
        sink.bind((address, 9))
        out.connect((address, 9))
        flood = threading.Thread(target=send, args=(out, path.rate * 1.33, stop))
        flood.start()
        time.sleep(path.rtt + 0.3)
        begin, first = time.monotonic(), receiver.received()[path.name]
        time.sleep(1)
        result = (receiver.received()[path.name] - first) * 8 / (time.monotonic() - begin)
        stop.set()
        flood.join()
    time.sleep(0.2)
    return result


def udp(host: Host) -> socket.socket:
    return host.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))


def send(out: socket.socket, bits: float, stop: threading.Event) -> None:
    process.go_first()
    begin, sent = time.monotonic(), 0
    while not stop.is_set():
        due = int((time.monotonic() - begin) * bits / 8 / FRAME)
        for _ in range(due - sent):
            out.send(bytes(PAYLOAD))
        sent = due
        time.sleep(0.001)


def test_a_transfer_over_a_shaped_link_arrives_whole_and_with_right_checksums(lab: Lab) -> None:
    done = lab.transfer(size=1_000_000)
    assert done.intact
    assert done.mptcp
    assert done.subflows == 2
    assert done.bad_checksums == 0
    assert min(done.sent_a.values()) > 10_000
