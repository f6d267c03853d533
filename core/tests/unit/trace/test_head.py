# SPDX-License-Identifier: Apache-2.0
"""Over-long packets: what a program is given of them, and what becomes of its changes."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emptcp.errors import EmptcpError
from emptcp.packet.build import build
from emptcp.packet.checksum import updated
from emptcp.packet.decode import decode
from emptcp.packet.layers import Link
from emptcp.packet.mptcp import Dss
from emptcp.trace.head import LIMIT, head, restore

LONG = bytes(range(256)) * 200


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("link", ["ethernet", "none"])
def test_the_head_of_a_long_packet_is_a_whole_packet_of_its_own(family: Literal[4, 6], link: Link) -> None:
    packet = build(family=family, link=link, payload=LONG, options=[Dss(data_ack=1)])
    cut = head(packet, link)
    found = decode(cut.packet, link)
    assert len(cut.packet) == LIMIT
    assert found.reason is None
    assert found.ip_end == LIMIT
    assert found.ip_checksum_right is not False
    assert found.subtypes == (2,)
    assert restore(cut, cut.packet) == packet


def test_a_header_that_changed_in_the_head_is_right_in_the_whole() -> None:
    packet = build(payload=LONG)
    cut = head(packet, "ethernet")
    # What a program does: rewrite TTL and protocol's word, the window, and both checksums by increments.
    changed = bytearray(cut.packet)
    for at, new, check in ((22, 0x0306, 24), (48, 7, 50)):
        old = int.from_bytes(changed[at : at + 2], "big")
        value = updated(int.from_bytes(changed[check : check + 2], "big"), old, new)
        changed[at : at + 2], changed[check : check + 2] = new.to_bytes(2, "big"), value.to_bytes(2, "big")
    whole = restore(cut, bytes(changed))
    assert whole == build(payload=LONG, ttl=3, window=7)
    assert decode(whole).valid


def test_a_grown_head_leaves_a_grown_packet() -> None:
    packet = build(payload=LONG, ip_checksum=0x1234)
    cut = head(packet, "ethernet")
    grown = bytearray(cut.packet) + b"tail"
    length = int.from_bytes(grown[16:18], "big")
    grown[16:18] = (length + 4).to_bytes(2, "big")
    whole = restore(cut, bytes(grown))
    assert int.from_bytes(whole[16:18], "big") == len(packet) - 14 + 4
    assert whole[24:26] == b"\x12\x34"
    assert whole.endswith(b"tail" + packet[LIMIT:])


@pytest.mark.parametrize(
    "packet",
    [
        build(payload=LONG, ip_length=0),
        build(payload=LONG, ip_length=65535),
        build(payload=b"x", trailer=LONG),
        build(protocol=17, transport=LONG),
        build(payload=LONG, ethertype=0x1234),
        build(family=6, payload=LONG, ip_length=0),
    ],
    ids=["length 0", "length too large", "long trailer", "UDP", "no IP", "jumbo"],
)
def test_odd_long_packets_come_back_unchanged(packet: bytes) -> None:
    cut = head(packet, "ethernet")
    assert len(cut.packet) == LIMIT
    assert restore(cut, cut.packet) == packet


def test_a_length_that_lies_is_left_for_the_program_to_see() -> None:
    packet = build(payload=LONG, ip_length=65535)
    assert head(packet, "ethernet").packet == packet[:LIMIT]


@given(size=st.integers(0, 5000), link=st.sampled_from(("ethernet", "none")), wrong=st.integers(0, 0xFFFF))
def test_restoring_an_untouched_head_gives_the_packet_back(size: int, link: Link, wrong: int) -> None:
    packet = build(link=link, payload=bytes(size), ip_checksum=wrong)
    cut = head(packet, link, 100)
    whole = restore(cut, cut.packet)
    # A wrong checksum may come back as the other one of the two zeros.
    assert whole == packet or {wrong, decode(whole, link).ip.checksum} == {0, 0xFFFF}  # type: ignore[union-attr]


def test_a_head_that_lost_its_ip_header_is_a_sentence() -> None:
    cut = head(build(payload=LONG), "ethernet")
    with pytest.raises(EmptcpError, match="without an IP header"):
        restore(cut, b"")
