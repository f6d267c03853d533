# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emptcp.packet.build import build
from emptcp.packet.mptcp import Dss

pytestmark = pytest.mark.kernel

DSS = [Dss(data_ack=1)]
THERE = build(src="10.1.2.3", sport=40000, dst="192.168.0.9", dport=443, options=DSS)
BACK = build(src="192.168.0.9", sport=443, dst="10.1.2.3", dport=40000, options=DSS)
V6 = build(family=6, src="fd00::1", sport=40000, dst="fd00::2", dport=443, options=DSS)
HIGH = build(src="10.1.2.3", sport=65535, dst="192.168.0.9", dport=1, options=DSS)
ALL = (THERE, BACK, V6, HIGH)


@pytest.mark.parametrize(
    ("when", "packets"),
    [
        ("subflow()", list(ALL)),
        ("subflow(10.1.2.3, 40000, 192.168.0.9, 443)", [THERE]),
        ("subflow(saddr=192.168.0.9, sport=443, daddr=10.1.2.3, dport=40000)", [BACK]),
        ("subflow(saddr=10.1.2.3, dport=443)", [THERE]),
        ("subflow(saddr=10.1.2.3, dport=40000)", []),
        ("subflow(dport=443)", [THERE, V6]),
        ("subflow(sport=443)", [BACK]),
        ("subflow(sport=65535, dport=1)", [HIGH]),
        ("subflow(sport=32768)", []),
        ("subflow(daddr='fd00::/8')", [V6]),
        ("subflow(saddr=10.0.0.0/8, daddr=192.168.0.0/24)", [THERE, HIGH]),
        ("subflow(dport=443) or subflow(sport=443)", [THERE, BACK, V6]),
    ],
)
def test_it_matches_exactly_these(policy: Callable[..., Any], when: str, packets: list[bytes]) -> None:
    runner = policy("record('packets')", when=when)
    assert [packet for packet in ALL if runner.run(packet).matched] == packets


def test_it_leaves_packets_as_they_are(policy: Callable[..., Any]) -> None:
    runner = policy("record('packets')", when="subflow(dport=443)")
    for packet in ALL:
        result = runner.run(packet)
        assert (result.verdict, result.data) == ("pass", packet)


HOSTS = st.sampled_from(["10.1.2.3", "10.1.2.4", "192.168.0.9"])
PREFIXES = st.sampled_from(["10.1.2.3", "10.1.2.0/24", "10.1.2.4/31", "0.0.0.0/0"])
PORTS = st.sampled_from([1, 443, 40000, 65535])
PARTS = {"saddr": PREFIXES, "sport": PORTS, "daddr": PREFIXES, "dport": PORTS}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    wanted=st.fixed_dictionaries(
        {}, optional={"saddr": PREFIXES, "sport": PORTS, "daddr": PREFIXES, "dport": PORTS}
    ),
    packets=st.lists(st.tuples(HOSTS, PORTS, HOSTS, PORTS), min_size=4, max_size=12),
)
def test_it_agrees_with_a_plain_model(
    policy: Callable[..., Any], wanted: dict[str, Any], packets: list[tuple[str, int, str, int]]
) -> None:
    """Each part that is given must fit, and those that are left open fit anything."""
    given = ", ".join(f"{name}={value}" for name, value in wanted.items())
    runner = policy("record('packets')", when=f"subflow({given})")
    for src, sport, dst, dport in packets:
        is_so = {"saddr": src, "sport": sport, "daddr": dst, "dport": dport}
        fits = all(
            ip_address(str(is_so[name])) in ip_network(value) if "addr" in name else is_so[name] == value
            for name, value in wanted.items()
        )
        packet = build(src=src, sport=sport, dst=dst, dport=dport, options=DSS)
        assert bool(runner.run(packet).matched) == fits
