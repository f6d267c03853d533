# SPDX-License-Identifier: Apache-2.0
"""The flow table: who makes an entry, what its head says, and how a new SYN begins anew."""

from __future__ import annotations

import random
import struct
from ipaddress import IPv4Address
from types import SimpleNamespace
from typing import Any

import pytest

from emptcp.packet.build import build
from emptcp.packet.mptcp import AddAddress, Dss, MpCapable, MpJoinAck, MpJoinSyn, MpPrio
from emptcp.packet.tcp import MaximumSegmentSize, SackPermitted, Timestamps, WindowScale
from emptcp.pybpf import Btf

pytestmark = pytest.mark.kernel

FORWARD = {"src": "10.0.0.1", "dst": "10.0.0.2", "sport": 40000, "dport": 80}
BACKWARD = {"src": "10.0.0.2", "dst": "10.0.0.1", "sport": 80, "dport": 40000}
KEY = 0x1122334455667788
USUAL = [MaximumSegmentSize(1460), SackPermitted(), Timestamps(1, 0)]


class Flows:
    """The flow program of one back-end and its table."""

    def __init__(self, parse: Any) -> None:
        self.table = parse.loaded.maps["emptcp_flows"]
        self.program = parse.program("flow")
        self.config = parse.loaded.maps["config"]
        self.btf: Btf = parse.loaded.btf
        self.config.update(bytes(4), struct.pack("<IHBBI", 3, 14, 0, 0, 0))
        self.clear()

    def clear(self) -> None:
        for key in list(self.table.keys()):
            self.table.delete(key)

    def see(self, packet: bytes) -> bool:
        """Show it a packet; tell whether there is an entry now."""
        return self.program.test_run(packet).retval == 1

    def head(self) -> SimpleNamespace:
        """Return the head of the only entry."""
        (value,) = [value for _, value in self.table.items()]
        found = self.btf.find("emptcp_flow", "struct")
        assert found is not None
        parts = {m.name: value[m.offset : m.offset + m.size] for m in self.btf.members(found.id)}
        return SimpleNamespace(
            since=int.from_bytes(parts["since"], "little"),
            known=parts["known"][0],
            version=parts["version"][0],
            opener=parts["opener"][0],
            wscale=tuple(parts["wscale"]),
            inconsistent=parts["inconsistent"][0],
            key=tuple(int.from_bytes(parts["key"][n : n + 8], "big") for n in (0, 8)),
            token=tuple(int.from_bytes(parts["token"][n : n + 4], "big") for n in (0, 4)),
        )

    def slots(self) -> bytes:
        (value,) = [value for _, value in self.table.items()]
        return bytes(value[64:])


@pytest.fixture
def flows(parse: Any) -> Flows:
    return Flows(parse)


def test_a_packet_without_mptcp_makes_no_entry(flows: Flows) -> None:
    assert not flows.see(build(**FORWARD, options=[Timestamps(1, 2)], payload=b"x"))
    assert not list(flows.table.keys())


@pytest.mark.parametrize("family", [4, 6])
def test_an_mptcp_option_in_mid_connection_makes_one_that_knows_nothing_else(
    flows: Flows, family: Any
) -> None:
    assert flows.see(build(family=family, options=[Dss(1)]))
    head = flows.head()
    assert head.since
    assert (head.known, head.version, head.opener, head.wscale, head.token) == (1, 0, 0, (0, 0), (0, 0))


def test_both_directions_share_an_entry(flows: Flows) -> None:
    flows.see(build(**FORWARD, options=[Dss(1)]))
    assert flows.see(build(**BACKWARD, payload=b"plain"))
    assert len(list(flows.table.keys())) == 1


def test_a_handshake_tells_scales_opener_and_version(flows: Flows) -> None:
    flows.see(build(**FORWARD, flags="S", options=[*USUAL, WindowScale(7), MpCapable()]))
    assert flows.head().wscale == (8, 0)
    flows.see(build(**BACKWARD, flags="SA", options=[*USUAL, WindowScale(10), MpCapable(sender_key=KEY)]))
    flows.see(build(**FORWARD, options=[MpCapable(sender_key=KEY, receiver_key=KEY)]))
    head = flows.head()
    assert (head.known, head.version, head.opener, head.wscale) == (1, 2, 1, (8, 11))


OTHER = 0x99AABBCCDDEEFF00


@pytest.mark.parametrize(
    ("last", "inconsistent"),
    [((KEY, OTHER), 0), ((KEY, OTHER + 1), 1), ((OTHER, KEY), 1)],
)
def test_a_key_that_changes_between_syn_ack_and_ack_marks_the_flow(
    flows: Flows, last: tuple[int, int], inconsistent: int
) -> None:
    flows.see(build(**FORWARD, flags="S", options=[MpCapable()]))
    flows.see(build(**BACKWARD, flags="SA", options=[MpCapable(sender_key=OTHER)]))
    assert (flows.head().key, flows.head().inconsistent) == ((0, OTHER), 0)
    flows.see(build(**FORWARD, options=[MpCapable(sender_key=last[0], receiver_key=last[1])]))
    assert flows.head().inconsistent == inconsistent
    assert flows.head().key == (last[0], OTHER)
    flows.see(build(**FORWARD, options=[MpCapable(sender_key=last[0] + 1, receiver_key=last[1])]))
    assert flows.head().inconsistent == 1
    flows.see(build(**FORWARD, flags="S", options=[MpCapable()]))
    assert (flows.head().key, flows.head().inconsistent) == ((0, 0), 0)


def test_the_opener_is_the_end_that_sent_the_syn(flows: Flows) -> None:
    flows.see(build(**BACKWARD, flags="S", options=[MpCapable()]))
    assert flows.head().opener == 2
    flows.clear()
    flows.see(build(**FORWARD, flags="SA", options=[MpCapable(sender_key=KEY)]))
    assert flows.head().opener == 2


@pytest.mark.parametrize(
    ("syn", "synack", "expected"),
    [
        ([WindowScale(0)], [WindowScale(7)], (1, 8)),
        ([WindowScale(7)], [], (1, 1)),
        ([], [], (1, 1)),
        ([WindowScale(14)], [WindowScale(15)], (15, 15)),
        ([WindowScale(255)], [WindowScale(0)], (15, 1)),
    ],
)
def test_scales_are_those_that_both_ends_use(
    flows: Flows, syn: Any, synack: Any, expected: tuple[int, int]
) -> None:
    flows.see(build(**FORWARD, flags="S", options=syn))
    flows.see(build(**BACKWARD, flags="SA", options=synack))
    assert flows.head().wscale == expected


@pytest.mark.parametrize(
    ("options", "flags", "version"),
    [
        ([MpCapable(sender_key=KEY, version=0)], "S", 1),
        ([MpCapable()], "S", 2),
        ([AddAddress(1, IPv4Address("10.1.1.1"), version=0)], "A", 1),
        ([MpPrio(True)], "A", 0),
    ],
)
def test_the_version_is_what_a_packet_says(flows: Flows, options: Any, flags: str, version: int) -> None:
    flows.see(build(**FORWARD, flags=flags, options=options))
    assert flows.head().version == version


def test_an_announcement_of_another_version_does_not_change_that_of_the_handshake(flows: Flows) -> None:
    flows.see(build(**FORWARD, flags="S", options=[MpCapable()]))
    flows.see(build(**FORWARD, options=[AddAddress(1, IPv4Address("10.1.1.1"), version=0)]))
    assert flows.head().version == 2
    flows.see(build(**BACKWARD, flags="SA", options=[MpCapable(sender_key=KEY, version=0)]))
    assert flows.head().version == 1


def test_a_join_tells_the_token(flows: Flows) -> None:
    flows.see(build(**BACKWARD, flags="S", options=[*USUAL, WindowScale(7), MpJoinSyn(0xCAFEBABE, 5)]))
    flows.see(build(**FORWARD, options=[MpJoinAck(bytes(20))]))
    assert flows.head().token == (0, 0xCAFEBABE)


def test_a_new_syn_begins_anew(flows: Flows) -> None:
    flows.see(build(**BACKWARD, flags="S", options=[WindowScale(7), MpJoinSyn(0xCAFEBABE, 5)]))
    (key,) = flows.table.keys()
    value = flows.table.lookup(key)
    assert value is not None
    flows.table.update(key, value[:64] + b"\xff" * 448)
    flows.see(build(**FORWARD, options=[Dss(1)]))
    assert flows.slots() == b"\xff" * 448
    flows.see(build(**FORWARD, flags="S", options=[WindowScale(3)]))
    head = flows.head()
    assert (head.known, head.version, head.opener, head.wscale, head.token) == (0, 0, 1, (4, 0), (0, 0))
    assert flows.slots() == bytes(448)


@pytest.mark.parametrize("flags", ["SA", "SR", "SF"])
def test_other_syns_do_not(flows: Flows, flags: str) -> None:
    flows.see(build(**FORWARD, flags="S", options=[WindowScale(7), MpCapable()]))
    since = flows.head().since
    flows.see(build(**FORWARD, flags=flags, options=[]))
    assert (flows.head().since, flows.head().known) == (since, 1)


def test_a_simultaneous_open_tells_both_scales(flows: Flows) -> None:
    flows.see(build(**FORWARD, flags="S", options=[WindowScale(7)]))
    flows.see(build(**BACKWARD, flags="S", options=[WindowScale(3)]))
    flows.see(build(**FORWARD, flags="SA", options=[WindowScale(7)]))
    flows.see(build(**BACKWARD, flags="SA", options=[WindowScale(3)]))
    assert flows.head().wscale == (8, 4)


def test_a_flood_of_joins_stays_in_the_table(flows: Flows) -> None:
    size = flows.table.info.max_entries
    assert flows.table.info.kind == "lru_hash"
    chance = random.Random(1)
    for number in range(200):
        join = MpJoinSyn(chance.getrandbits(32), chance.getrandbits(32))
        assert flows.see(build(src=f"10.1.{number >> 8}.{number & 255}", flags="S", options=[join]))
    assert len(list(flows.table.keys())) <= size
