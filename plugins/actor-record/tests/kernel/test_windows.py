# SPDX-License-Identifier: Apache-2.0
"""The windows that the ends of a subflow offer, packet by packet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emptcp.packet.build import build
from emptcp.packet.mptcp import Dss, MpJoinSyn
from emptcp.packet.tcp import WindowScale

pytestmark = pytest.mark.kernel

Policy = Callable[..., Any]
Told = Callable[..., Any]

ACK = [Dss(data_ack=1)]
LOW: dict[str, Any] = {"src": "10.0.0.1", "dst": "10.0.0.2", "sport": 40000, "dport": 5001}
HIGH: dict[str, Any] = {"src": "10.0.0.2", "dst": "10.0.0.1", "sport": 5001, "dport": 40000}
V6 = [{**LOW, "src": "fd00::1", "dst": "fd00::2"}, {**HIGH, "src": "fd00::2", "dst": "fd00::1"}]


def handshake(runner: Any, low: Any, high: Any, scales: tuple[int, int]) -> None:
    """Let the packets of a handshake pass, with windows that are not scaled."""
    syn = [MpJoinSyn(0, 1, 2, 3), WindowScale(scales[0])]
    runner.run(build(flags="S", options=syn, window=0xFFFF, **low))
    runner.run(build(flags="SA", options=[WindowScale(scales[1])], window=0xFFFF, **high))


@pytest.mark.parametrize("ends", [[LOW, HIGH], V6], ids=["v4", "v6"])
@pytest.mark.parametrize("vlan", [[], [7]], ids=["plain", "vlan"])
def test_each_end_offers_by_its_own_scale(policy: Policy, told: Told, ends: Any, vlan: list[int]) -> None:
    runner = policy("record('window')")
    low, high = ({**end, "vlan": vlan, "family": 6 if ":" in end["src"] else 4} for end in ends)
    handshake(runner, low, high, (7, 14))
    for window in (300, 100, 200):
        runner.run(build(options=ACK, window=window, **low))
    runner.run(build(options=ACK, window=0xFFFF, **high))
    runner.run(build(options=ACK, flags="RA", window=0, **high))
    most = 0xFFFF << 14
    assert told(runner) == [
        {
            "window_last_0": 200 << 7,
            "window_min_0": 100 << 7,
            "window_max_0": 300 << 7,
            "window_last_1": most,
            "window_min_1": most,
            "window_max_1": most,
        }
    ]


def test_without_the_handshake_the_scale_is_unknown_and_so_is_the_window(policy: Policy, told: Told) -> None:
    runner = policy("record('window', 'packets')")
    result = runner.run(build(options=ACK, window=100, **LOW))
    assert (result.verdict, result.reason) == ("pass", "unknown_state")
    assert told(runner) == [{"packets_0": 1}]


def test_of_a_connection_it_is_the_least_and_the_greatest(policy: Policy, told: Told) -> None:
    runner = policy("record('window')")
    for port, window in ((1, 100), (2, 300)):
        handshake(runner, {**LOW, "sport": port}, {**HIGH, "dport": port}, (0, 0))
        runner.run(build(options=ACK, window=window, **{**LOW, "sport": port}))
    (whole,) = told(runner, (7, 8), (7, 8))
    assert whole == {"window_min_0": 100, "window_max_0": 300}


@pytest.fixture
def runner(policy: Policy) -> Any:
    """One for all examples: each of them is a connection of its own, with the same ends."""
    return policy("record('window')")


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    scale=st.integers(0, 15),
    windows=st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=8),
)
def test_it_tells_what_the_model_tells(runner: Any, told: Told, scale: int, windows: list[int]) -> None:
    handshake(runner, LOW, HIGH, (scale, 3))
    for window in windows:
        runner.run(build(options=ACK, window=window, **LOW))
    offered = [window << min(scale, 14) for window in windows]  # more than 14 counts as 14 (RFC 7323)
    assert told(runner) == [
        {"window_last_0": offered[-1], "window_min_0": min(offered), "window_max_0": max(offered)}
    ]
