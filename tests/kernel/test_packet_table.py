# SPDX-License-Identifier: Apache-2.0
"""One table of packets for every selector and actor of this tree, on both back-ends, hooks and engines.

What a stage makes of a packet, its own tests say. Here it must not matter to that what carries the packet,
where its options stand, or what its payload looks like; and what must not be changed is not. Stages are
found, not listed. Each packet has a port, and so a subflow's state, of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from random import Random
from typing import Any

import pytest

from emptcp.chain import pins
from emptcp.chain.bind import bind
from emptcp.chain.dryrun import Result, Runner
from emptcp.chain.placement import indexes
from emptcp.chain.spoiling import Spoilers
from emptcp.hooks import namespaces
from emptcp.packet.build import build
from emptcp.packet.decode import Decoded, decode
from emptcp.packet.layers import Vlan, options_header
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
from emptcp.packet.tcp import Kind, Nop, Option, Other, Timestamps
from emptcp.plugins.catalog import Catalog, StageType
from emptcp.policy.file import loads
from emptcp_sdk.fuzz import declared, judge
from emptcp_sdk.fuzz.packets import HOSTILE, Packet
from emptcp_sdk.fuzz.stages import below
from emptcp_sdk.fuzz.stages import text as stage_text
from emptcp_sdk.testing import policy_file

pytestmark = pytest.mark.kernel

CATALOG = Catalog.of_enabled()
STAGES = below(Path(__file__).parents[2] / "plugins", CATALOG)
PLACES = [("ingress", "xdp", "fused"), ("ingress", "tc", "tail"), ("egress", "tc", "fused")]
USES = {
    "address": ["address(any=10.0.0.1)", "address(saddr='fd00::/16')"],
    "connection": ["connection(token=7)"],
    "ip_pair": ["ip_pair(saddr=10.0.0.0/24)", "ip_pair(daddr='fd00::2')"],
    "option": ["option(exid=0xe0e1, value=7, size=1)", "option(kind=8)"],
    "packet_type": ["packet_type('dss', 'mp_prio')", "packet_type('mp_capable', 'mp_join', 'add_addr')"],
    "sample": ["sample(every=1)"],
    "sequence": ["sequence(relative=false, last=100)", "sequence(space=ssn, relative=false, last=1000)"],
    "subflow": ["subflow(dport=5001)"],
    "add_option": ["add_option(exid=0xe0e1)", "add_option(exid=0xe0e2, value=7, size=4)"],
    "drop": ["drop()"],
    "rate_limit": ["rate_limit(rate=8kbit, burst=1ms, mode=mark)", "rate_limit(rate=8mbit, mode=window)"],
    "record": ["record('packets', 'bytes', 'rtt')"],
    "remove_option": [f"remove_option({one})" for one in ("option=mp_prio", "option=add_addr", "kind=253")],
    "set_backup": ["set_backup(on=true)", "set_backup(on=false)"],
}
"""Stage -> how it is used here; others get some of their parameters."""

TIME, ACK, PRIO = Timestamps(7, 9), Dss(data_ack=1, wide_ack=False), MpPrio(backup=True)
MAP = Dss(data_ack=1, wide_ack=False, dsn=5, subflow_seq=1, data_length=36)
NEW = AddAddress(2, IPv4Address("10.0.1.1"), hmac=bytes(8))
MINE = Other(253, b"\xe0\xe1\x07")
DATA = bytes(36)


@dataclass(frozen=True)
class Segment:
    """A TCP segment without what carries it."""

    options: tuple[Option, ...]
    flags: str = "A"
    payload: bytes = b""


SEGMENTS = {
    "ACK": Segment((TIME, ACK)),
    "data": Segment((TIME, MAP), payload=DATA),
    "data and MP_PRIO": Segment((PRIO, MAP), payload=DATA),
    "MP_PRIO": Segment((TIME, ACK, PRIO)),
    "MP_PRIO of version 0": Segment((TIME, ACK, MpPrio(True, 3))),
    "ADD_ADDR": Segment((NEW,)),
    "ADD_ADDR and ACK": Segment((ACK, NEW)),
    "ADD_ADDR of version 0": Segment((ACK, AddAddress(2, IPv6Address("fd01::1"), version=0))),
    "echo": Segment((ACK, AddAddress(2, IPv4Address("10.0.1.1"), echo=True))),
    "REMOVE_ADDR": Segment((ACK, RemoveAddress((2, 3)))),
    "MP_FAIL": Segment((ACK, MpFail(7))),
    "own option": Segment((TIME, ACK, MINE)),
    "MP_CAPABLE": Segment((MpCapable(version=1),), "S"),
    "MP_CAPABLE of version 0": Segment((MpCapable(5, version=0),), "S"),
    "MP_CAPABLE of version 0, answered": Segment((MpCapable(6, version=0),), "SA"),
    "both keys of version 0": Segment((MpCapable(5, 6, version=0),)),
    "both keys": Segment((TIME, MpCapable(5, 6, version=1))),
    "both keys and data": Segment((MpCapable(5, 6, 36, version=1),), payload=DATA),
    "MP_JOIN": Segment((MpJoinSyn(7, 9, 1),), "S"),
    "MP_JOIN, answered": Segment((MpJoinSynAck(bytes(8), 9, 1),), "SA"),
    "MP_JOIN, third": Segment((MpJoinAck(bytes(20)),)),
    "MP_FASTCLOSE": Segment((MpFastclose(7),), "RA"),
    "MP_TCPRST": Segment((MpTcpReset(4),), "RA"),
    "DATA_FIN": Segment((ACK,), "FA"),
    "plain": Segment((TIME,)),
}
V6 = {"family": 6, "src": "fd00::1", "dst": "fd00::2"}
PADDED = {"trailer": bytes(6)}
CARRIERS: dict[str, list[dict[str, Any]]] = {
    "IPv4": [
        {},
        {"vlan": [7]},
        {"vlan": [Vlan(8, 0x88A8), 7]},
        {"ip_options": b"\1" * 8},
        {"trailer": bytes(6)},
    ],
    "IPv6": [V6, V6 | {"vlan": [7]}, V6 | {"extensions": [options_header(0), options_header(60)]}],
}
_ports = itertools.cycle(range(20000, 60000))


def made(segment: Segment, carrier: dict[str, Any], options: list[Any] | None = None) -> bytes:
    """Return the segment as a packet of a subflow of its own."""
    return build(
        **carrier,
        sport=next(_ports),
        flags=segment.flags,
        options=list(segment.options) if options is None else options,
        payload=segment.payload,
    )


def raw(packet: Decoded) -> list[bytes]:
    assert packet.tcp is not None
    return sorted(one.raw for one in packet.tcp.options if one.kind > Kind.NOP)


class Used:
    """One stage in one place, and what it makes of packets."""

    def __init__(self, stage: StageType, text: str, place: tuple[str, str, str]) -> None:
        hook, backend, engine = place
        actor, when = ("record('packets')", text) if stage.kind == "selector" else (text, "")
        table = loads(policy_file(actor, when=when, hook=hook))
        (policy,) = table.policies
        self.where, self.backend, self.stage = f"{text} at {hook}, {backend}, {engine}", backend, stage
        devices = indexes(namespaces.resolve())
        self.runner = Runner([bind(table, policy, hook, CATALOG, devices)], hook, backend, engine=engine)
        bound = CATALOG.bind(policy.do[0], devices=devices)  # type: ignore[arg-type]
        self.allowed, self.verdicts = (
            declared.allowed(bound),
            ("pass", *map(str.lower, bound.type.declaration.verdicts)),
        )

    def run(self, packet: bytes, ctx: bytes | None = None) -> Result:
        """Run a packet, of which nothing may become that the manifest does not say."""
        result = self.runner.run(packet, ctx=ctx)
        assert result.verdict in self.verdicts, self.where
        assert judge.complaint(Packet(packet), result.data, self.allowed) is None, self.where
        assert decode(result.data).valid, self.where
        return result

    def outcome(self, packet: bytes, ctx: bytes | None = None) -> tuple[Any, ...]:
        """Return what became of a packet, carrier and places of options left out."""
        result = self.run(packet, ctx)
        after = decode(result.data)
        assert after.tcp is not None
        assert after.payload == decode(packet).payload, self.where
        tcp = (after.tcp.seq, after.tcp.ack, after.tcp.flags, after.tcp.window)
        return result.verdict, bool(result.matched), result.reason, raw(after), tcp


@pytest.fixture(scope="module", params=STAGES, ids=lambda stage: stage.name)
def uses(request: pytest.FixtureRequest) -> Iterator[list[Used]]:
    stage = request.param
    texts = USES.get(stage.name) or [stage_text(stage, Random(1))]
    with ExitStack() as opened:
        made = [
            Used(stage, text, place)
            for text in texts
            for place in PLACES
            if place[1] in stage.declaration.backends
        ]
        for one in made:
            opened.callback(one.runner.close)
        yield made


def each(uses: list[Used]) -> Iterator[tuple[Used, str, Segment]]:
    for used in uses:
        for name, segment in SEGMENTS.items():
            yield used, name, segment


def test_what_carries_a_packet_does_not_matter(uses: list[Used]) -> None:
    for used, name, segment in each(uses):
        for family, carriers in CARRIERS.items():
            first, *others = [used.outcome(made(segment, carrier)) for carrier in carriers]
            assert others == [first] * len(others), f"{used.where}: {name}, {family}"


def test_where_options_stand_does_not_matter(uses: list[Used]) -> None:
    """At odd offsets with NOPs between them, or together with all NOPs behind."""
    for used, name, segment in each(uses):
        size = sum(len(one.encode()) for one in segment.options)
        nops = len(segment.options) + (-(size + len(segment.options)) % 4)
        if size + nops > 40:
            continue
        scattered = [part for one in segment.options for part in (Nop(), one)]
        scattered += [Nop()] * (nops - len(segment.options))
        together = [*segment.options, *[Nop()] * nops]
        for carrier in ({}, V6):
            seen = [used.outcome(made(segment, carrier, options)) for options in (scattered, together)]
            assert seen[0] == seen[1], f"{used.where}: {name}"


FULL = [
    [Nop(), Nop(), TIME, Dss(data_ack=1, dsn=5, subflow_seq=1, data_length=36, checksum=3)],
    [TIME, PRIO, Dss(data_ack=1, dsn=5, subflow_seq=1, data_length=36), Nop()],
    [MpJoinAck(bytes(20)), Other(253, bytes(14))],
    [NEW, NEW, ACK],
]


def test_a_payload_of_options_behind_a_full_header_does_not_matter(uses: list[Used]) -> None:
    hostile = (HOSTILE * 3 + MINE.encode() + PRIO.encode())[:36]
    for used in uses:
        for block, carrier in itertools.product(FULL, ({}, V6)):
            seen = [used.outcome(made(Segment((), payload=one), carrier, block)) for one in (DATA, hostile)]
            assert seen[0] == seen[1], f"{used.where}: {block}"


@pytest.mark.parametrize("signature", [Other(19, bytes(16)), Other(29, bytes(14))], ids=["TCP-MD5", "TCP-AO"])
def test_what_is_signed_stays_as_it_is(uses: list[Used], signature: Other) -> None:
    """It is selected like any other."""
    stranger = Other(99, signature.value)
    for used, name, segment in each(uses):
        if sum(len(one.encode()) for one in (*segment.options, signature)) > 40:
            continue
        signed, other = (made(segment, {}, [*segment.options, one]) for one in (signature, stranger))
        result, unsigned = used.run(signed), used.run(other)
        assert result.data == signed, f"{used.where}: {name}"
        assert (result.verdict, bool(result.matched)) == (unsigned.verdict, bool(unsigned.matched)), name
        if unsigned.data != other:
            assert result.reason == "signed", f"{used.where}: {name}"


def test_what_can_not_be_checked_stays_as_it_is(uses: list[Used]) -> None:
    """Fragments, IPv6 routing headers on their way, lengths that are not told, and half packets."""
    broken: list[Callable[[Segment], bytes]] = [
        lambda segment: made(segment, {"fragment": (0, True)}),
        lambda segment: made(segment, {"fragment": (3, False)}),
        lambda segment: made(segment, {"ip_length": 0}),
        lambda segment: made(segment, V6 | {"ip_length": 0}),
        lambda segment: made(segment, {"vlan": [1, 2, 3]}),
        lambda segment: made(segment, {})[:54],
        lambda segment: made(segment, V6)[:74],
    ]
    for used, name, segment in each(uses):
        for spoil in broken:
            packet = spoil(segment)
            result = used.runner.run(packet)
            assert result.data == packet, f"{used.where}: {name}"
            assert result.verdict in used.verdicts


def test_the_guard_takes_no_stage_for_one_that_hurts(
    uses: list[Used], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It tries a policy over packets like one that passed, of either way."""
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path))
    pins.open_or_make()
    with closing(Spoilers(CATALOG)) as spoilers:
        for used in uses:
            about = used.runner.loaded.description
            (policy,) = about.policies
            for options, carrier in itertools.product(([TIME, MAP], [TIME], []), ({}, V6)):
                packet = made(Segment((), payload=DATA), {**carrier, "link": "none"}, options)
                assert not spoilers.spoils(about, policy, packet), used.where
                for leaves in (True, False):
                    assert not spoilers.ends_mptcp(about, policy, packet, leaves), used.where


MERGED = bytes(164) + (3).to_bytes(4, "little") + bytes(8) + (500).to_bytes(4, "little") + bytes(12)
"""A ``struct __sk_buff`` with gso_segs and gso_size."""


def test_a_merged_packet_is_changed_in_place_only(uses: list[Used]) -> None:
    for used in (one for one in uses if one.backend == "tc"):
        for block, carrier in itertools.product((*FULL, [TIME, MAP], [PRIO, MAP, Nop()]), ({}, V6)):
            segment = Segment((), payload=bytes(1500))
            merged, single = made(segment, carrier, block), made(segment, carrier, block)
            result = used.run(merged, MERGED)
            assert len(result.data) == len(merged), f"{used.where}: {block}"
            assert bool(result.matched) == bool(used.run(single).matched), f"{used.where}: {block}"
