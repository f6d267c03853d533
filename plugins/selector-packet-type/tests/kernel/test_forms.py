# SPDX-License-Identifier: Apache-2.0
"""The types of packets in every form that options and headers have, on both engines, and against a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emptcp.chain.bind import bind
from emptcp.chain.dryrun import Runner
from emptcp.packet.build import build
from emptcp.packet.mptcp import (
    AddAddress,
    Dss,
    MpCapable,
    MpFail,
    MpFastclose,
    MpJoinAck,
    MpJoinSyn,
    MpJoinSynAck,
    MpPrio,
    MpTcpReset,
    RemoveAddress,
)
from emptcp.packet.tcp import Nop, Option, Timestamps
from emptcp.plugins.catalog import Catalog
from emptcp.policy.file import loads

pytestmark = pytest.mark.kernel

# In the order of the bits in emptcp.toml.
TYPES = (
    ("mp_capable", "mp_join", "dss", "add_addr", "remove_addr", "mp_prio", "mp_fail", "mp_fastclose"),
    ("mp_tcprst", "add_addr_echo", "data_ack", "data_fin", "syn", "synack", "ack", "data", "fin", "rst"),
    ("no_mptcp",),
)
PLACES = [
    (engine, hook, backend)
    for engine in ("fused", "tail")
    for hook, backend in (("ingress", "xdp"), ("ingress", "tc"), ("egress", "tc"))
]
POLICY = """
[[policy]]
name = "{name}"
hook = "{hook}"
dev = "x"
when = "packet_type('{name}')"
do = ["record('packets')"]
"""
Told = Callable[..., set[str]]
V4, V6 = IPv4Address("10.9.0.1"), IPv6Address("fd00::9")
KNOWN = build(options=[Dss(data_ack=1)])


@pytest.fixture(scope="module", params=PLACES, ids="-".join)
def told(request: pytest.FixtureRequest) -> Iterator[Told]:
    """Tell the types of a packet, of a subflow that was seen before."""
    engine, hook, backend = request.param
    with ExitStack() as made:
        runners = []
        for names in TYPES:
            text = "".join(POLICY.format(name=name, hook=hook) for name in names)
            table = loads(f'table = "t"\n{text}')
            bound = [bind(table, runner, hook, Catalog.of_enabled()) for runner in table.policies]
            runners.append(made.enter_context(Runner(bound, hook, backend, engine=engine)))

        def types(packet: bytes) -> set[str]:
            found: set[str] = set()
            for runner in runners:
                runner.run(KNOWN)
                result = runner.run(packet)
                assert (result.verdict, result.data, result.reason) == ("pass", packet, None)
                found.update(result.matched)
            return found

        yield types


def echo(address: Any, port: int | None = None) -> AddAddress:
    return AddAddress(4, address, port, echo=True)


ANNOUNCEMENTS = [
    *(AddAddress(4, address, port, version=0) for address in (V4, V6) for port in (None, 80)),
    *(AddAddress(4, address, port, hmac=bytes(8)) for address in (V4, V6) for port in (None, 80)),
    AddAddress(4, V4, hmac=b"\xff" * 8, reserved=2),  # the nibble is that of IPv4 in version 0
]
ECHOES = [echo(address, port) for address in (V4, V6) for port in (None, 80)]


def nibble(option: AddAddress, low: int) -> bytes:
    """The option with other flags, or another IP version."""
    raw = option.encode()
    return raw[:2] + bytes([raw[2] & 0xF0 | low]) + raw[3:]


# Neither version knows them: an echo with HMAC, an announcement without one, IPv4's length for IPv6.
NO_ANNOUNCEMENTS = [
    nibble(AddAddress(4, V4, hmac=bytes(8)), 1),
    nibble(AddAddress(4, V4, version=0), 0),
    nibble(AddAddress(4, V4, version=0), 6),
    nibble(AddAddress(4, V6, version=0), 4),
    AddAddress(4, V4, version=0).encode()[:1] + b"\x07" + AddAddress(4, V4, version=0).encode()[2:7],
]


def test_an_announcement_is_told_from_an_echo_in_every_form_of_both_versions(told: Told) -> None:
    for announcement in ANNOUNCEMENTS:
        assert told(build(options=[announcement])) == {"ack", "add_addr"}
    for answer in ECHOES:
        assert told(build(options=[answer])) == {"ack", "add_addr_echo"}
    for wrong in NO_ANNOUNCEMENTS:
        assert told(build(options=[wrong])) == {"ack", "no_mptcp"}


def test_of_an_announcement_and_an_echo_the_last_counts(told: Told) -> None:
    first, last = AddAddress(4, V4, version=0), echo(V4)
    assert told(build(options=[first, last])) == {"ack", "add_addr_echo"}
    assert told(build(options=[last, first])) == {"ack", "add_addr"}


PAYLOAD = MpPrio(backup=True).encode() + MpFail(dsn=1).encode()  # options, but not where options are
BOTH = [Dss(data_ack=1, dsn=2, data_length=4, data_fin=True), MpPrio(backup=True)]
BOTH_TYPES = {"data", "dss", "data_ack", "data_fin", "mp_prio"}


@pytest.mark.parametrize(
    "shape",
    [{}, {"family": 6}, {"vlan": [7]}, {"vlan": [7, 8], "family": 6}, {"ip_options": b"\1\1\1\1"}],
    ids=str,
)
def test_types_are_the_same_whatever_the_packet_lies_in(told: Told, shape: dict[str, Any]) -> None:
    assert told(build(options=BOTH, payload=PAYLOAD, **shape)) == BOTH_TYPES
    assert told(build(flags="S", options=[MpCapable()], **shape)) == {"syn", "mp_capable"}


@pytest.mark.parametrize(
    "block",
    [
        [BOTH[0], Nop(), BOTH[1]],
        [Nop(), BOTH[1], Nop(), Nop(), BOTH[0]],
        [bytes([253, 3, 30]), BOTH[1], bytes([254, 5]) + b"\x1e\x03\x30", BOTH[0]],
        [BOTH[0], bytes([253, 8]) + b"\x1e\x03\x50\x1e\x03\x50", BOTH[1], Nop()],
    ],
    ids=["odd", "nops", "unknown", "full"],
)
def test_options_are_found_wherever_they_lie(told: Told, block: list[Any]) -> None:
    assert told(build(options=block, payload=PAYLOAD * 20)) == BOTH_TYPES


def test_what_lies_behind_the_end_of_the_options_is_none(told: Told) -> None:
    assert told(build(options=[BOTH[1], b"\0", *BOTH[:1]])) == {"ack", "mp_prio"}
    assert told(build(options=[Nop(), b"\x1e\xff"], payload=PAYLOAD)) == {"data", "no_mptcp"}


def test_a_merged_packet_is_of_the_types_of_its_header(policy: Callable[..., Any]) -> None:
    merged = (3).to_bytes(4, "little") + bytes(8) + (100).to_bytes(4, "little")  # gso_segs, gso_size
    context = bytes(164) + merged + bytes(192 - 164 - len(merged))  # struct __sk_buff
    runner = policy("record('packets')", when="packet_type('data') and packet_type('mp_prio')", hook="egress")
    packet = build(options=BOTH, payload=bytes(300))
    assert runner.run(packet, ctx=context).matched


@dataclass(frozen=True)
class Part:
    """An option, where it may stand, and the types that it makes the packet be of."""

    option: Option | bytes
    types: frozenset[str]
    where: str = ""

    def fits(self, flags: str, payload: bytes) -> bool:
        return not self.where or self.where == flags + ("+" if payload else "")


def part(option: Option | bytes, *types: str, where: str = "") -> Part:
    return Part(option, frozenset(types), where)


PARTS: list[list[Part]] = [
    [
        part(MpCapable(), "mp_capable", where="S"),
        part(MpCapable(version=0, sender_key=1), "mp_capable", where="S"),
        part(MpCapable(sender_key=1), "mp_capable", where="SA"),
        part(MpCapable(sender_key=1, receiver_key=2), "mp_capable", where="A"),
        part(MpCapable(version=0, sender_key=1, receiver_key=2), "mp_capable", where="A+"),
        part(MpCapable(sender_key=1, receiver_key=2, data_length=4), "mp_capable", where="A+"),
        part(MpCapable(sender_key=1, receiver_key=2), where="A+"),
        part(MpCapable(flags=0), where="S"),
    ],
    [
        part(MpJoinSyn(1, 2), "mp_join", where="S"),
        part(MpJoinSynAck(bytes(8), 2), "mp_join", where="SA"),
        part(MpJoinAck(bytes(20)), "mp_join", where="A"),
        part(MpJoinSyn(1, 2).encode()[:1] + b"\x0b" + MpJoinSyn(1, 2).encode()[2:11]),
    ],
    [
        part(Dss(), "dss"),
        part(Dss(data_ack=1), "dss", "data_ack"),
        part(Dss(data_ack=1, wide_ack=False), "dss", "data_ack"),
        part(Dss(dsn=1, wide_dsn=False), "dss"),
        part(Dss(data_ack=1, wide_ack=False, dsn=1, checksum=1), "dss", "data_ack"),
        part(Dss(dsn=1, data_length=1, data_fin=True), "dss", "data_fin"),
        part(Dss(stray_flags=0xEA), "dss"),
        part(b"\x1e\x08\x20\x04\0\0\0\0"),
    ],
    [
        *(part(one, "add_addr") for one in ANNOUNCEMENTS),
        *(part(one, "add_addr_echo") for one in ECHOES),
        *(part(one) for one in NO_ANNOUNCEMENTS),
    ],
    [
        part(RemoveAddress((1,)), "remove_addr"),
        part(RemoveAddress(tuple(range(8))), "remove_addr"),
        part(RemoveAddress(tuple(range(9)))),
        part(RemoveAddress(())),
    ],
    [part(MpPrio(True), "mp_prio"), part(MpPrio(False), "mp_prio"), part(MpPrio(True, address_id=1))],
    [part(MpFail(1), "mp_fail"), part(MpFail(1).encode()[:1] + b"\x0b" + MpFail(1).encode()[2:11])],
    [part(MpFastclose(1), "mp_fastclose")],
    [part(MpTcpReset(), "mp_tcprst", where="R"), part(MpTcpReset(), where="A")],
    [part(Nop())],
    [part(Timestamps(1, 2))],
    [part(bytes([253, 4, 30, 3]))],
    [part(b"\x1e\x03\x90"), part(b"\x1e\x04\xf0\0"), part(b"\x1e\x02")],
]
FLAGS = {
    "S": {"syn"},
    "SA": {"synack"},
    "A": {"ack"},
    "PA": {"ack"},
    "FA": {"fin"},
    "R": {"rst"},
    "RA": {"rst"},
}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(data=st.data(), flags=st.sampled_from(sorted(FLAGS)), payload=st.sampled_from([b"", b"abcd", PAYLOAD]))
def test_it_agrees_with_a_model(told: Told, data: st.DataObject, flags: str, payload: bytes) -> None:
    chosen, room = [], 40
    for kind in data.draw(st.permutations(PARTS)):
        fitting = [one for one in kind if one.fits(flags, payload) and len(bytes_of(one.option)) <= room]
        if fitting and data.draw(st.booleans()):
            chosen.append(data.draw(st.sampled_from(fitting)))
            room -= len(bytes_of(chosen[-1].option))
    packet = build(flags=flags, options=[one.option for one in chosen], payload=payload)
    types = {name for one in chosen for name in one.types} or {"no_mptcp"}
    if (flags, types) != ("S", {"no_mptcp"}):  # with that, plain TCP begins: other policies are not given it
        types |= {"data"} if payload else set()
        types |= FLAGS[flags] - ({"ack"} if payload else set())
    assert told(packet) == types


def bytes_of(option: Option | bytes) -> bytes:
    return option if isinstance(option, bytes) else option.encode()
