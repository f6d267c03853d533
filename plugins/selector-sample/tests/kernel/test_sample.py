# SPDX-License-Identifier: Apache-2.0
"""Which subflows and packets sample matches, on both engines and back-ends."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emptcp.chain.bind import bind
from emptcp.chain.dryrun import Runner
from emptcp.packet.build import build
from emptcp.packet.mptcp import Dss, MpCapable
from emptcp.packet.tcp import Nop
from emptcp.plugins.catalog import Catalog
from emptcp.policy.file import loads
from emptcp_selector_sample.share import place

pytestmark = pytest.mark.kernel

PLACES = [
    (engine, hook, backend)
    for engine in ("fused", "tail")
    for hook, backend in (("ingress", "xdp"), ("ingress", "tc"), ("egress", "tc"))
]
HEAD = (
    '[[policy]]\nname = "{name}"\nhook = "{hook}"\ndev = "x"\nwhen = "{when}"\ndo = ["record(\'packets\')"]\n'
)
OPTIONS = [Dss(data_ack=1)]
FULL = [Nop(), Dss(data_ack=1, dsn=2, data_length=4), Nop(), bytes([253, 12]) + b"\xff\x00\x1e\x1e\x01" * 2]
Make = Callable[..., Runner]


@pytest.fixture(scope="module", autouse=True)
def one_cpu() -> Iterator[None]:
    """Packets are counted per CPU."""
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    yield
    os.sched_setaffinity(0, cpus)


@pytest.fixture(scope="module", params=PLACES, ids="-".join)
def where(request: pytest.FixtureRequest) -> tuple[str, str, str]:
    """Engine, hook and back-end."""
    engine, hook, backend = request.param
    return engine, hook, backend


def load(where: tuple[str, str, str], *whens: str) -> Runner:
    """Load policies, one for each expression."""
    engine, hook, backend = where
    policies = (HEAD.format(name=f"p{n}", hook=hook, when=when) for n, when in enumerate(whens))
    table = loads('table = "t"\n' + "".join(policies))
    bound = [bind(table, runner, hook, Catalog.of_enabled()) for runner in table.policies]
    return Runner(bound, hook, backend, engine=engine)


@pytest.fixture
def make(where: tuple[str, str, str]) -> Iterator[Make]:
    """Load policies until the test ends."""
    with ExitStack() as made:
        yield lambda *whens: made.enter_context(load(where, *whens))


def matches(runner: Runner, *packets: bytes) -> str:
    """One letter per packet, and all packets pass as they are."""
    results = [runner.run(packet) for packet in packets]
    assert [(result.verdict, result.data) for result in results] == [("pass", packet) for packet in packets]
    return "".join("x" if result.matched else "." for result in results)


def flow(sport: int, seed: int = 0) -> tuple[bytes, float]:
    return build(sport=sport, options=OPTIONS), place("10.0.0.1", sport, "10.0.0.2", 5001, seed)


def test_a_share_of_the_flows_matches(make: Make) -> None:
    shares = (0, 25, 60, 100)
    runner = make(*(f"sample(share={share}%)" for share in shares))
    for sport in range(40000, 40060):
        packet, place = flow(sport)
        expected = [f"p{n}" for n, share in enumerate(shares) if place * 100 < share]
        assert list(runner.run(packet).matched) == expected


@pytest.mark.parametrize("shape", [{}, {"family": 6}, {"vlan": [7]}, {"vlan": [7, 8], "family": 6}], ids=str)
def test_all_packets_of_a_flow_are_chosen_alike(make: Make, shape: dict[str, Any]) -> None:
    ends = {4: ("10.0.0.1", "10.0.0.2"), 6: ("fd00::1", "fd00::2")}[shape.get("family", 4)]
    runner = make("sample(share=50%, seed=7)")
    seen = set()
    for sport in range(40000, 40010):
        expected = place(ends[0], sport, ends[1], 5001, 7) < 0.5
        back = {"src": ends[1], "dst": ends[0], "sport": 5001, "dport": sport}
        packets = [
            build(sport=sport, flags="S", options=[MpCapable(version=0, sender_key=5)], **shape),
            build(sport=sport, options=FULL, payload=b"\x1e\x1e", **shape),
            build(options=OPTIONS, **back, **shape),
        ]
        assert matches(runner, *packets) == ("xxx" if expected else "...")
        seen.add(expected)
    assert seen == {True, False}


def test_the_last_of_so_many_packets_matches(make: Make) -> None:
    packets = [build(options=OPTIONS, sport=40000 + n) for n in range(9)]
    runner = make(*(f"sample(every={every})" for every in (1, 2, 4)))
    found = [runner.run(packet).matched for packet in packets]
    assert found == [("p0",), ("p0", "p1"), ("p0",), ("p0", "p1", "p2")] * 2 + [("p0",)]


def test_each_stage_counts_for_itself_and_only_what_comes_to_it(make: Make) -> None:
    ack, data = build(options=OPTIONS), build(options=FULL, payload=b"abc")
    runner = make("packet_type('data') and sample(every=2)", "sample(every=3)", "sample(every=3)")
    found = [runner.run(packet).matched for packet in (ack, data, ack, data, ack, data)]
    assert found == [(), (), ("p1", "p2"), ("p0",), (), ("p1", "p2")]


def test_share_and_every_hold_together(make: Make) -> None:
    runner = make("sample(share=50%, every=2)")
    ports = [port for port in range(40000, 40100) if flow(port)[1] >= 0.5][:1]
    ports += [port for port in range(40000, 40100) if flow(port)[1] < 0.5][:1]
    out, chosen = (flow(port)[0] for port in ports)
    assert matches(runner, chosen, out, out, chosen, chosen, chosen) == "...x.x"


def test_a_merged_packet_counts_once(policy: Callable[..., Any]) -> None:
    merged = (3).to_bytes(4, "little") + bytes(8) + (100).to_bytes(4, "little")  # gso_segs, gso_size
    context = bytes(164) + merged + bytes(192 - 164 - len(merged))  # struct __sk_buff
    runner = policy("record('packets')", when="sample(every=3)", hook="egress")
    packet = build(options=OPTIONS, payload=bytes(300))
    assert [bool(runner.run(packet, ctx=context).matched) for _ in range(6)] == [False, False, True] * 2


@pytest.fixture(scope="module")
def third(where: tuple[str, str, str]) -> Iterator[Runner]:
    with load(where, "sample(share=33.3%, seed=123456)") as runner:
        yield runner


ENDS = st.one_of(
    st.tuples(st.just(4), st.ip_addresses(v=4), st.ip_addresses(v=4)),
    st.tuples(st.just(6), st.ip_addresses(v=6), st.ip_addresses(v=6)),
)
PORT = st.integers(1, 65535)


@settings(max_examples=40, deadline=None)
@given(ends=ENDS, sport=PORT, dport=PORT)
def test_it_agrees_with_the_model(third: Runner, ends: tuple[Any, Any, Any], sport: int, dport: int) -> None:
    family, source, target = ends
    packet = build(family=family, src=source, dst=target, sport=sport, dport=dport, options=OPTIONS)
    assert bool(third.run(packet).matched) == (place(source, sport, target, dport, 123456) < 0.333)
