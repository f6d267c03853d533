# SPDX-License-Identifier: Apache-2.0
"""What a packet is read as, case by case, and why it is left alone."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emptcp.errors import EmptcpError
from emptcp.packet.build import build, ethernet
from emptcp.packet.decode import Decoded, Reason, decode
from emptcp.packet.layers import (
    Extension,
    Ipv4,
    Link,
    Vlan,
    fragment_header,
    options_header,
    routing_header,
)
from emptcp.packet.mptcp import Dss, MpCapable, MpPrio
from emptcp.packet.tcp import Flag, Nop, Option, Other, Timestamps

PRIO = (MpPrio(True),)
FAR = IPv6Address("fd00::9")


@dataclass(frozen=True)
class Case:
    """A packet, whether its TCP header is read, and why it is left alone."""

    packet: bytes
    read: bool = True
    reason: Reason | None = None


def cut(packet: bytes, by: int) -> bytes:
    return packet[: len(packet) - by]


CASES = {
    "plain IPv4": Case(build(options=PRIO)),
    "plain IPv6": Case(build(family=6, options=PRIO)),
    "IPv4 with options": Case(build(ip_options=b"\x94\x04\x00\x00" * 10, options=PRIO)),
    "IHL below 5": Case(build(ihl=4), False, Reason.BAD_HEADER),
    "IHL past the end": Case(cut(build(link="ethernet", ihl=15), 10), False, Reason.TRUNCATED),
    "first fragment": Case(build(fragment=(0, True), options=PRIO), True, Reason.FRAGMENT),
    "later fragment": Case(build(fragment=(5, False)), False, Reason.FRAGMENT),
    "IPv6 hop-by-hop": Case(build(family=6, extensions=[options_header()], options=PRIO)),
    "IPv6 eight headers": Case(build(family=6, extensions=[options_header(60)] * 8, options=PRIO)),
    "IPv6 nine headers": Case(
        build(family=6, extensions=[options_header(60)] * 9), False, Reason.TOO_MANY_HEADERS
    ),
    "routing header done": Case(build(family=6, extensions=[routing_header((FAR,), 0)], options=PRIO)),
    "routing header to go": Case(
        build(family=6, extensions=[routing_header((FAR,), 1)], final_dst=FAR, options=PRIO),
        True,
        Reason.ROUTING_HEADER,
    ),
    "IPv6 first fragment": Case(build(family=6, extensions=[fragment_header()]), True, Reason.FRAGMENT),
    "IPv6 later fragment": Case(
        build(family=6, extensions=[fragment_header(offset=3)]), False, Reason.FRAGMENT
    ),
    "AH": Case(build(family=6, extensions=[Extension(51, bytes(11))]), False, Reason.NOT_TCP),
    "ESP": Case(build(protocol=50, transport=bytes(20)), False, Reason.NOT_TCP),
    "extension past the end": Case(
        build(family=6, extensions=[Extension(0, b"\xff" + bytes(6))]), False, Reason.TRUNCATED
    ),
    "one tag": Case(build(vlan=(5,), options=PRIO)),
    "priority tag": Case(build(vlan=(0,), options=PRIO)),
    "QinQ": Case(build(vlan=(Vlan(7, tpid=0x88A8), 5), options=PRIO)),
    "two 0x8100 tags": Case(build(vlan=(7, 5), options=PRIO)),
    "three tags": Case(build(vlan=(7, 6, 5)), False, Reason.TOO_MANY_HEADERS),
    "IPIP": Case(build(protocol=4, transport=build(link="none")), False, Reason.NOT_TCP),
    "UDP": Case(build(protocol=17, transport=bytes(20)), False, Reason.NOT_TCP),
    "ARP": Case(ethernet(b"\xff" * 6, bytes(6), 0x0806, bytes(28)), False, Reason.NOT_TCP),
    "802.3": Case(ethernet(bytes(6), bytes(6), 40, bytes(40)), False, Reason.NOT_TCP),
    "data offset 4": Case(build(data_offset=4), False, Reason.BAD_HEADER),
    "data offset past the end": Case(build(data_offset=6), False, Reason.TRUNCATED),
    "Ethernet padding": Case(build(frame_length=60)),
    "IP length past the frame": Case(build(ip_length=41), False, Reason.TRUNCATED),
    "IP length below its header": Case(build(ip_length=19), False, Reason.BAD_HEADER),
    "IP length 0": Case(build(ip_length=0, options=PRIO), True, Reason.LENGTH_UNKNOWN),
    "IPv6 length 0": Case(build(family=6, ip_length=0, options=PRIO), True, Reason.LENGTH_UNKNOWN),
    "SYN with data": Case(build(flags="S", payload=b"x", options=[MpCapable()]), True, Reason.SYN_DATA),
    "Fast Open": Case(build(flags="S", options=[Other(34), MpCapable()]), True, Reason.SYN_DATA),
    "TCP-MD5": Case(build(options=[Other(19, bytes(16))]), True, Reason.SIGNED),
    "TCP-AO": Case(build(options=[Other(29, bytes(14))]), True, Reason.SIGNED),
    "empty": Case(b"", False, Reason.TRUNCATED),
    "half an Ethernet header": Case(bytes(13), False, Reason.TRUNCATED),
    "version 6 as IPv4": Case(build(family=6, ethertype=0x0800), False, Reason.BAD_HEADER),
}


@pytest.mark.parametrize("name", CASES)
def test_each_case_is_read_or_left_for_its_reason(name: str) -> None:
    case = CASES[name]
    found = decode(case.packet)
    assert (found.tcp is not None, found.reason) == (case.read, case.reason)


def test_checksums_that_are_right_make_a_packet_valid() -> None:
    clean = {name for name, case in CASES.items() if case.read and case.reason is None}
    assert {name for name, case in CASES.items() if decode(case.packet).valid} >= clean


def test_wrong_checksums_are_told_apart() -> None:
    assert decode(build(checksum=1)).tcp_checksum_right is False
    assert decode(build(ip_checksum=1)).ip_checksum_right is False
    assert decode(build(checksum=1)).ip_checksum_right is True
    assert decode(build(fragment=(0, True))).tcp_checksum_right is None


def test_padding_behind_the_ip_packet_is_no_payload() -> None:
    found = decode(build(payload=b"", frame_length=60))
    assert (found.payload, len(found.trailer)) == (b"", 6)


def test_offsets_count_from_the_first_byte() -> None:
    found = decode(build(vlan=(1, 2), ip_options=bytes(4), options=[Nop(), *PRIO]))
    assert found.ip is not None
    assert found.tcp is not None
    assert (found.ip.offset, found.tcp.offset) == (22, 46)
    assert [(one.offset, one.kind) for one in found.tcp.mptcp] == [(1, 30)]


def test_without_a_link_header_the_packet_begins_with_ip() -> None:
    for family in (4, 6):
        assert decode(build(link="none", family=family), "none").valid
    assert decode(b"\x00" * 40, "none").reason is Reason.NOT_TCP


def test_subtypes_stand_in_order_and_again_when_repeated() -> None:
    found = decode(build(options=[MpPrio(True), Dss(data_ack=1), MpPrio(False)]))
    assert found.subtypes == (5, 2, 5)


def test_more_options_than_fit_are_refused_unless_the_header_lies() -> None:
    long: list[Option] = [Dss(data_ack=1, dsn=2), Timestamps(1), Timestamps(2)]
    with pytest.raises(EmptcpError, match="40 bytes of options, these take 48"):
        build(options=long)
    assert len(build(options=long, data_offset=5)) == 14 + 20 + 20 + 48


@given(st.binary(max_size=120), st.sampled_from(("ethernet", "none")))
def test_no_bytes_at_all_make_reading_fail(data: bytes, link: Link) -> None:
    assert isinstance(decode(data, link), Decoded)


@given(
    family=st.sampled_from((4, 6)),
    ports=st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF)),
    numbers=st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
    flags=st.integers(0, 0x1FF),
    window=st.integers(0, 0xFFFF),
    payload=st.binary(max_size=50),
    tags=st.lists(st.integers(0, 4095), max_size=2),
    options=st.lists(st.sampled_from((Nop(), MpPrio(True), Dss(data_ack=7, wide_ack=False))), max_size=4),
)
def test_what_was_built_is_read_back(
    family: int,
    ports: tuple[int, int],
    numbers: tuple[int, int],
    flags: int,
    window: int,
    payload: bytes,
    tags: list[int],
    options: list[Nop | MpPrio | Dss],
) -> None:
    packet = build(
        family=4 if family == 4 else 6,
        sport=ports[0],
        dport=ports[1],
        seq=numbers[0],
        ack=numbers[1],
        flags=flags,
        window=window,
        payload=payload,
        vlan=tags,
        options=options,
    )
    found = decode(packet)
    assert found.tcp is not None
    assert found.valid
    assert (found.tcp.sport, found.tcp.dport, found.tcp.seq, found.tcp.ack) == (*ports, *numbers)
    assert (found.tcp.flags, found.tcp.window, found.payload) == (Flag(flags), window, payload)
    assert [tag.id for tag in found.vlans] == tags
    assert [placed.option for placed in found.tcp.options][: len(options)] == options


def test_ipv4_header_fields_are_read() -> None:
    found = decode(build(tos=0xB9, ttl=3, identification=77, src="192.0.2.1", dst="192.0.2.2"))
    assert isinstance(found.ip, Ipv4)
    assert (found.ip.tos, found.ip.ttl, found.ip.identification, found.ip.flags) == (0xB9, 3, 77, 2)
    assert (found.ip.src, found.ip.dst) == (IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2"))
