# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emptcp.packet.build import build
from emptcp.packet.mptcp import Dss

pytestmark = pytest.mark.kernel

V4 = build(src="10.1.2.3", dst="192.168.0.9", options=[Dss(data_ack=1)])
V6 = build(family=6, src="fd00::1:2", dst="2001:db8::9", options=[Dss(data_ack=1)])
TAGGED = build(vlan=[7], src="10.1.2.3", dst="192.168.0.9", options=[Dss(data_ack=1)])


@pytest.mark.parametrize(
    ("when", "packets"),
    [
        ("ip_pair()", [V4, V6, TAGGED]),
        ("ip_pair('10.1.2.3')", [V4, TAGGED]),
        ("ip_pair(10.1.2.4)", []),
        ("ip_pair(saddr=10.1.2.2/31)", [V4, TAGGED]),
        ("ip_pair(saddr=10.1.2.4/31)", []),
        ("ip_pair(saddr=10.0.0.0/8, daddr=192.168.0.0/16)", [V4, TAGGED]),
        ("ip_pair(saddr=10.0.0.0/8, daddr=192.169.0.0/16)", []),
        ("ip_pair(saddr=0.0.0.0/0)", [V4, TAGGED]),
        ("ip_pair(daddr=10.1.2.3)", []),
        ("ip_pair('fd00::1:2', '2001:db8::9')", [V6]),
        ("ip_pair(daddr='2001:db8::/32')", [V6]),
        ("ip_pair(daddr='2001:db8::/125')", []),
        ("ip_pair(daddr='2001:db8::8/127')", [V6]),
        ("ip_pair(saddr='::/0')", [V4, V6, TAGGED]),
    ],
)
def test_it_matches_exactly_these(policy: Callable[..., Any], when: str, packets: list[bytes]) -> None:
    runner = policy("record('packets')", when=when)
    matched = [packet for packet in (V4, V6, TAGGED) if runner.run(packet).matched]
    assert matched == packets


def test_it_leaves_packets_as_they_are(policy: Callable[..., Any]) -> None:
    runner = policy("record('packets')", when="ip_pair(10.0.0.0/8)")
    for packet in (V4, V6, TAGGED):
        result = runner.run(packet)
        assert (result.verdict, result.data) == ("pass", packet)


def test_a_device_without_ethernet_header_is_read_from_the_ip_header(policy: Callable[..., Any]) -> None:
    packet = build(link="none", src="10.1.2.3", dst="192.168.0.9", options=[Dss(data_ack=1)])
    runner = policy("record('packets')", when="ip_pair(10.1.2.3, 192.168.0.9)", link="none")
    assert runner.run(packet).matched == ("trial",)


def near(base: IPv4Address | IPv6Address) -> st.SearchStrategy[IPv4Address | IPv6Address]:
    """Addresses that share a prefix of any length with `base`."""
    return st.integers(0, base.max_prefixlen - 1).map(lambda bit: type(base)(int(base) ^ (1 << bit)))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), six=st.booleans())
def test_it_agrees_with_the_prefixes_of_python(
    policy: Callable[..., Any], data: st.DataObject, six: bool
) -> None:
    base = ip_address("2001:db8::a5a5:5a5a") if six else ip_address("172.16.165.90")
    bits = st.integers(0, base.max_prefixlen)
    source, target = (ip_network((base, data.draw(bits)), strict=False) for _ in range(2))
    runner = policy("record('packets')", when=f"ip_pair(saddr='{source}', daddr='{target}')")
    for _ in range(8):
        src, dst = data.draw(near(base)), data.draw(near(base))
        packet = build(family=6 if six else 4, src=str(src), dst=str(dst), options=[Dss(data_ack=1)])
        assert bool(runner.run(packet).matched) == (src in source and dst in target)
