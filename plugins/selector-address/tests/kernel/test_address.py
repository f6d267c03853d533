# SPDX-License-Identifier: Apache-2.0
"""Which packets address matches, and the keys saddr and daddr, on both engines and back-ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emptcp.chain.bind import bind
from emptcp.chain.dryrun import Runner
from emptcp.packet.build import build
from emptcp.packet.mptcp import Dss, MpCapable
from emptcp.packet.tcp import Nop
from emptcp.plugins.catalog import Catalog
from emptcp.policy.file import loads

pytestmark = pytest.mark.kernel

FULL = [Nop(), Dss(data_ack=1, dsn=2, data_length=4), Nop(), bytes([253, 12]) + b"\xff\x00\x1e\x1e\x01" * 2]
OPTIONS = [Dss(data_ack=1)]
V4 = build(src="10.1.2.3", dst="192.168.0.9", options=OPTIONS)
BACK = build(src="192.168.0.9", dst="10.1.2.3", options=FULL, payload=b"data")
V6 = build(family=6, src="fd00::1:2", dst="2001:db8::9", options=OPTIONS)
SYN = build(
    vlan=[7, 8], src="10.1.2.3", dst="192.168.0.10", flags="S", options=[MpCapable(version=0, sender_key=5)]
)
ALL = [V4, BACK, V6, SYN]
PLACES = [
    (engine, hook, backend)
    for engine in ("fused", "tail")
    for hook, backend in (("ingress", "xdp"), ("ingress", "tc"), ("egress", "tc"))
]
SETS = """
[set.sources]
key = "saddr"
entries = ["10.0.0.0/8", "2001:db8::/32"]
[set.targets]
key = "daddr"
entries = ["10.1.2.3", "2001:db8::/32", "192.168.0.10/31"]
"""
Make = Callable[[str], Runner]


@pytest.fixture(params=PLACES, ids="-".join)
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Make a policy that records what matches."""
    engine, hook, backend = request.param
    with ExitStack() as made:

        def runner(when: str) -> Runner:
            head = f'table = "t"\n[[policy]]\nname = "p"\nhook = "{hook}"\ndev = "x"\n'
            table = loads(
                f'{head}when = "{when}"\ndo = ["record(\'packets\')"]\n{SETS if "@" in when else ""}'
            )
            bound = bind(table, table.policies[0], hook, Catalog.of_enabled())
            return made.enter_context(Runner([bound], hook, backend, engine=engine))

        yield runner


@pytest.mark.parametrize(
    ("when", "packets"),
    [
        ("address()", ALL),
        ("address(saddr=10.0.0.0/8)", [V4, SYN]),
        ("address(daddr=10.1.2.3)", [BACK]),
        ("address(saddr=10.1.2.3, daddr=192.168.0.9)", [V4]),
        ("address(any=10.1.2.3)", [V4, BACK, SYN]),
        ("address(any=10.1.2.2)", []),
        ("address(any=192.168.0.10/31)", [SYN]),
        ("address(saddr=192.168.0.0/16, any=10.0.0.0/8)", [BACK]),
        ("address(saddr=192.168.0.0/16, any=172.16.0.0/12)", []),
        ("address(any=0.0.0.0/0)", [V4, BACK, SYN]),
        ("address(any='2001:db8::/32')", [V6]),
        ("address(any='2001:db8::8/127')", [V6]),
        ("address(any='2001:db8::/125')", []),
        ("address(daddr='fd00::/8')", []),
        ("not address(any='::/0')", []),
        ("saddr in @sources", [V4, SYN]),
        ("daddr in @targets", [BACK, V6, SYN]),
        ("saddr in @sources or daddr in @targets", ALL),
        ("saddr in @sources and daddr in @targets", [SYN]),
    ],
)
def test_it_matches_exactly_these_and_leaves_all_as_they_are(
    make: Make, when: str, packets: list[bytes]
) -> None:
    policy = make(when)
    results = [policy.run(packet) for packet in ALL]
    assert [packet for packet, result in zip(ALL, results, strict=True) if result.matched] == packets
    assert [(result.verdict, result.data) for result in results] == [("pass", packet) for packet in ALL]


def near(base: IPv4Address | IPv6Address) -> st.SearchStrategy[IPv4Address | IPv6Address]:
    """Addresses that share a prefix of any length with `base`."""
    return st.integers(0, base.max_prefixlen - 1).map(lambda bit: type(base)(int(base) ^ (1 << bit)))


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), end=st.sampled_from(["saddr", "daddr", "any"]), six=st.booleans())
def test_it_agrees_with_the_prefixes_of_python(make: Make, data: st.DataObject, end: str, six: bool) -> None:
    base = ip_address("2001:db8::a5a5:5a5a") if six else ip_address("172.16.165.90")
    network = ip_network((base, data.draw(st.integers(0, base.max_prefixlen))), strict=False)
    source, target = data.draw(near(base)), data.draw(near(base))
    packet = build(family=6 if six else 4, src=str(source), dst=str(target), options=OPTIONS)
    held = {"saddr": source in network, "daddr": target in network}
    held["any"] = held["saddr"] or held["daddr"]
    assert bool(make(f"address({end}='{network}')").run(packet).matched) == held[end]
