# SPDX-License-Identifier: Apache-2.0
"""rate_limit by the receive window: packet by packet, and on live connections of one and of two subflows."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from emptcp.chain import apply
from emptcp.lab import traffic
from emptcp.lab.meter import Meter
from emptcp.lab.topology import Lab, two_hosts
from emptcp.packet.build import build
from emptcp.packet.decode import decode
from emptcp.packet.mptcp import Dss, MpJoinSyn
from emptcp.packet.tcp import WindowScale
from emptcp.policy import file

pytestmark = [pytest.mark.kernel, pytest.mark.traffic]

MBIT = 125_000
WINDOW = "mode=window, per=connection"
ACK = [Dss(data_ack=1)]


def handshake(runner: Any, rtt: float, scale: int = 7, **rest: Any) -> None:
    """Let the packets of a handshake pass that takes ``rtt`` seconds."""
    there = {"src": "10.0.0.1", "sport": 40000, "dst": "10.0.0.2", "dport": 5001} | rest
    back = {"src": there["dst"], "sport": there["dport"], "dst": there["src"], "dport": there["sport"]}
    family = {"family": rest["family"]} if "family" in rest else {}
    syn = [MpJoinSyn(0, 1, 2, 3), WindowScale(scale)]
    runner.run(build(flags="S", options=syn, **there))
    runner.run(build(flags="SA", options=[WindowScale(scale)], **back | family))
    time.sleep(rtt)
    runner.run(build(options=ACK, window=1, **there))


def capped(runner: Any, window: int = 0xFFFF, **rest: Any) -> int:
    result = runner.run(build(options=ACK, window=window, **rest))
    out = decode(result.data)
    assert result.verdict == "pass"
    assert out.valid
    assert out.tcp is not None
    return out.tcp.window


V6 = {"family": 6, "src": "fd00::1", "dst": "fd00::2"}


@pytest.mark.parametrize("shape", [{}, V6], ids=["ipv4", "ipv6"])
def test_the_window_is_what_the_rate_takes_in_a_round_trip(policy: Callable[..., Any], shape: Any) -> None:
    runner = policy(f"rate_limit(rate=8mbit, {WINDOW})")
    handshake(runner, 0.05, **shape)
    # A megabyte a second for 50 ms and what the test takes, in units of 128 bytes.
    window = capped(runner, **shape)
    assert 50_000 // 128 <= window < 200_000 // 128


def test_a_smaller_window_a_zero_window_and_a_syn_stay(policy: Callable[..., Any]) -> None:
    runner = policy(f"rate_limit(rate=8mbit, {WINDOW})")
    handshake(runner, 0.05)
    assert capped(runner, window=7) == 7
    assert capped(runner, window=0) == 0
    assert capped(runner, flags="SA") == 0xFFFF


def test_a_window_is_never_closed(policy: Callable[..., Any]) -> None:
    runner = policy(f"rate_limit(rate=8kbit, {WINDOW})")
    handshake(runner, 0.01, scale=14)
    assert capped(runner) == 1


def test_without_the_handshake_the_round_trip_is_unknown(policy: Callable[..., Any]) -> None:
    runner = policy(f"rate_limit(rate=8mbit, {WINDOW})")
    packet = build(options=ACK, window=0xFFFF)
    result = runner.run(packet)
    assert (result.data, result.reason) == (packet, "unknown_state")


def table(rate: str) -> Any:
    return file.loads(
        f"""
        table = "limits"
        [[policy]]
        name = "connections"
        hook = "ingress"
        dev = "path*"
        do = ["rate_limit(rate={rate}, {WINDOW})"]
        """
    )


@pytest.fixture(scope="module", params=[1, 2], ids=["one subflow", "two subflows"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with two_hosts(link="relay", name=f"t{os.getpid()}w{request.param}") as built:
        if request.param == 1:
            built.a.run(["ip", "mptcp", "limits", "set", "subflow", "0", "add_addr_accepted", "0"])
        yield built


@pytest.fixture(autouse=True)
def own_emptcp(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path / f"emt{os.getpid()}-window"))
    yield
    if apply.tables.names():
        apply.remove("limits")


@contextmanager
def stream(lab: Lab) -> Iterator[None]:
    sender = traffic.start(lab.a, lab.b, lab.paths[0].b.address(4))
    try:
        yield
    finally:
        sender.terminate()
        sender.wait(5)


def subflows(lab: Lab) -> int:
    with Meter(lab.a) as meter:
        return len(meter.read())


def rate(lab: Lab, seconds: float) -> float:
    """Return the connection's bytes per second."""
    with Meter(lab.a) as meter:
        before, began = sum(one.acked for one in meter.read()), time.monotonic()
        time.sleep(seconds)
        after, ended = sum(one.acked for one in meter.read()), time.monotonic()
    return (after - before) / (ended - began)


def test_a_running_connection_is_limited_as_a_whole_and_given_back(
    lab: Lab, settle: Callable[..., None]
) -> None:
    with stream(lab):
        time.sleep(1.5)
        free = max(rate(lab, 1), rate(lab, 1))
        apply.apply(table("20mbit"), lab.a.netns)
        # Two subflows share one window, and each of them has its own queue in front of its round trip.
        limited = pytest.approx(20 * MBIT, rel=0.25 if subflows(lab) > 1 else 0.15)
        settle(lambda: rate(lab, 1), lambda now: now == limited)
        apply.remove("limits")
        settle(lambda: rate(lab, 1), lambda now: now > 0.9 * free)
