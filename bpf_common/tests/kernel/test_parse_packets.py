# SPDX-License-Identifier: Apache-2.0
"""The shapes a packet can have from the link layer to the TCP header, and what the parser makes of each."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv6Address
from itertools import product
from typing import Any

import pytest

from emptcp.packet.build import build, ethernet
from emptcp.packet.layers import Extension, Vlan, fragment_header, options_header, routing_header
from emptcp.packet.mptcp import Dss, MpPrio
from emptcp.packet.tcp import Timestamps

pytestmark = pytest.mark.kernel

ETHERNET, IP4, IP6 = 14, 20, 40
DSS = Dss(data_ack=7, dsn=9, subflow_seq=1, data_length=4)
HERE = {"options": [DSS], "payload": b"data"}
SEGMENT = build(**HERE)[ETHERNET + IP4 :]


def jumbo() -> Extension:
    """A hop-by-hop header with a jumbo payload option."""
    return Extension(0, bytes((0, 0xC2, 4)) + struct.pack("!I", 70000))


@dataclass(frozen=True)
class Shape:
    """A packet and what is expected of it: TCP or not, the reason, some of what was found."""

    what: str
    packet: bytes
    tcp: bool = True
    reason: str = "ok"
    found: dict[str, Any] | None = None
    link: Any = "ethernet"

    def __str__(self) -> str:
        return self.what


def left(what: str, packet: bytes, reason: str = "ok", link: str = "ethernet") -> Shape:
    """Return a shape that is left alone."""
    return Shape(what, packet, False, reason, link=link)


def second_length(packet: bytes, value: int) -> bytes:
    """Return an IPv6 packet whose first extension header claims another length (in units of 8, less 1)."""
    at = ETHERNET + IP6 + 1
    return packet[:at] + bytes((value,)) + packet[at + 1 :]


V6 = {"family": 6, **HERE}
GTP = struct.pack("!HHHHBBHI", 2152, 2152, 0, 0, 0x30, 0xFF, 60, 7) + build(link="none", **HERE)
UDP6 = {"family": 6, "protocol": 17, "transport": bytes(8)}
NOTHING6 = {"family": 6, "protocol": 59, "transport": b""}
ROUTE = (IPv6Address("fd00::77"),)
NO_OPTIONS = {"l4": ETHERNET + IP4, "payload": ETHERNET + IP4 + 20, "options_len": 0, "subtypes": 0}

SHAPES = [
    Shape("plain IPv4", build(**HERE), found={"family": 4, "l3": 14, "l4": 34, "payload_len": 4}),
    Shape("plain IPv6", build(**V6), found={"family": 6, "l3": 14, "l4": 54, "payload_len": 4}),
    Shape("no options at all", build(payload=b"x"), found=NO_OPTIONS),
    *[
        Shape(
            f"IPv4 with {size} bytes of options",
            build(**HERE, ip_options=b"\x01" * size),
            found={"l4": 34 + size},
        )
        for size in range(4, 44, 4)
    ],
    left("an IPv4 header shorter than 20 bytes", build(**HERE, ihl=4), "bad_header"),
    left("an IPv4 header past the end", build(ihl=15), "truncated"),
    left("IPv4 version 6 behind an IPv4 type", build(**V6, ethertype=0x0800)),
    left("IP version 5", build(link="none", **HERE).replace(b"\x45", b"\x55", 1), link="none"),
    Shape("a first IPv4 fragment", build(**HERE, fragment=(0, True)), reason="fragment"),
    left("a later IPv4 fragment", build(**HERE, fragment=(3, True)), "fragment"),
    left("the last IPv4 fragment", build(**HERE, fragment=(3, False)), "fragment"),
    Shape("IPv6 hop-by-hop", build(**V6, extensions=[options_header(0)]), found={"l4": 62}),
    Shape("IPv6 destination options", build(**V6, extensions=[options_header(60, 24)]), found={"l4": 78}),
    Shape(
        "an IPv6 extension header of 2048 bytes",
        build(**V6, extensions=[Extension(60, bytes((255,)) + bytes(2046))]),
        found={"l4": 54 + 2048},
    ),
    Shape("a finished routing header", build(**V6, extensions=[routing_header(ROUTE, 0)]), found={"l4": 78}),
    Shape(
        "a routing header with segments left",
        build(**V6, extensions=[routing_header(ROUTE, 1)], final_dst=ROUTE[0]),
        reason="routing_header",
    ),
    Shape("eight extension headers", build(**V6, extensions=[options_header(60)] * 8), found={"l4": 54 + 64}),
    left("nine extension headers", build(**V6, extensions=[options_header(60)] * 9), "too_many_headers"),
    Shape("a first IPv6 fragment", build(**V6, extensions=[fragment_header()]), reason="fragment"),
    Shape("a lone IPv6 fragment", build(**V6, extensions=[fragment_header(more=False)]), reason="fragment"),
    left("a later IPv6 fragment", build(**V6, extensions=[fragment_header(5)]), "fragment"),
    left("IPv6 authentication header", build(**V6, extensions=[Extension(51, bytes(11))])),
    left("IPv6 ESP", build(**V6, extensions=[Extension(50, bytes(15))])),
    left("an unknown IPv6 header", build(**V6, extensions=[Extension(200, bytes(7))])),
    left(
        "an unknown IPv6 header behind one that is known",
        build(**V6, extensions=[options_header(60), Extension(200, bytes(7))]),
    ),
    left("UDP behind eight extension headers", build(**UDP6, extensions=[options_header(60)] * 8)),
    left("nothing behind an extension header", build(**NOTHING6, extensions=[options_header(60)])),
    left(
        "an IPv6 extension header past the end",
        second_length(build(**V6, extensions=[options_header(60)]), 200),
        "truncated",
    ),
    Shape("one VLAN tag", build(**HERE, vlan=[5]), found={"l3": 18, "flags": 0x11}),
    Shape("802.1ad and 802.1Q", build(**HERE, vlan=[Vlan(9, 0x88A8), 5]), found={"l3": 22, "flags": 0x11}),
    Shape("two 802.1Q tags", build(**V6, vlan=[9, 5]), found={"l3": 22, "l4": 62}),
    left("three tags", build(**HERE, vlan=[9, 5, 6]), "too_many_headers"),
    Shape("a priority tag", build(**HERE, vlan=[Vlan(0, priority=5)]), found={"l3": 18, "flags": 0x01}),
    Shape("a priority tag inside of a VLAN", build(**HERE, vlan=[7, Vlan(0)]), found={"flags": 0x11}),
    left("IP in IP", build(protocol=4, transport=build(link="none", **HERE))),
    left("IPv6 in IPv4", build(protocol=41, transport=build(link="none", **V6))),
    left("IPv4 in IPv6", build(family=6, protocol=4, transport=build(link="none", **HERE))),
    left("GRE", build(protocol=47, transport=bytes(4) + build(link="none", **HERE))),
    left("VXLAN", build(protocol=17, transport=bytes(16) + build(**HERE))),
    left("GTP-U", build(protocol=17, transport=GTP)),
    left("UDP", build(protocol=17, transport=bytes(64))),
    left("MPLS", ethernet(b"\2" * 6, b"\4" * 6, 0x8847, bytes(64))),
    left("PPPoE", ethernet(b"\2" * 6, b"\4" * 6, 0x8864, bytes(64))),
    left("an 802.3 length", ethernet(b"\2" * 6, b"\4" * 6, 100, bytes(100))),
    left("ARP", ethernet(b"\2" * 6, b"\4" * 6, 0x0806, bytes(46))),
    Shape("IPv4 without a link layer", build(link="none", **HERE), link="none", found={"l3": 0, "l4": 20}),
    Shape("IPv6 without a link layer", build(link="none", **V6), link="none", found={"l3": 0, "l4": 40}),
    left("a TCP header of four words", build(**HERE, data_offset=4), "bad_header"),
    left("TCP options past the frame", build(data_offset=15), "truncated"),
    left("TCP options past the IP packet", build(data_offset=15, trailer=bytes(60)), "bad_header"),
    left("an IP packet that ends before its TCP header", build(**HERE, ip_length=30), "bad_header"),
    left("an IPv4 length below its own header", build(**HERE, ip_length=19), "bad_header"),
    left("an IPv4 length past the frame", build(**HERE, ip_length=2000), "truncated"),
    left("an IPv6 length past the frame", build(**V6, ip_length=2000), "truncated"),
    left("an IPv6 length that ends before the TCP header", build(**V6, ip_length=19), "bad_header"),
    Shape("IPv4 length 0", build(**HERE, ip_length=0), reason="length_unknown", found={"ip_end": 0}),
    Shape("IPv6 length 0", build(**V6, ip_length=0), reason="length_unknown", found={"ip_end": 0}),
    Shape(
        "a jumbogram",
        build(**V6, extensions=[jumbo()], ip_length=0),
        reason="length_unknown",
        found={"l4": 62, "flags": 1},
    ),
    Shape("a wrong checksum", build(**HERE, checksum=0x1234)),
    Shape("SYN with data", build(flags="S", payload=b"hello"), reason="syn_data"),
    Shape("a padded pure ACK", build(frame_length=60), found={"payload_len": 0, "flags": 2, "ip_end": 54}),
    Shape("a pure ACK without padding", build(options=[DSS]), found={"payload_len": 0, "flags": 3}),
    Shape("FIN is no pure ACK", build(flags="FA"), found={"flags": 0}),
    Shape("RST is no pure ACK", build(flags="RA"), found={"flags": 0}),
    Shape("SYN/ACK is no pure ACK", build(flags="SA"), found={"flags": 0}),
    Shape("PSH without data is a pure ACK", build(flags="PA"), found={"flags": 2}),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_shape_of_a_packet_is_parsed_or_left_alone(parse: Any, shape: Shape) -> None:
    parsed = parse(shape.packet, link=shape.link)
    assert (parsed.tcp, parsed.reason) == (shape.tcp, shape.reason)
    for name, value in (shape.found or {}).items():
        assert getattr(parsed.found, name) == value, name
    assert parsed.packet == shape.packet


@pytest.mark.parametrize("family", [4, 6])
def test_a_packet_cut_anywhere_is_left_alone(parse_xdp: Any, family: Any) -> None:
    packet = build(family=family, options=[Timestamps(1, 2), DSS])
    for length in range(14, len(packet)):
        assert not parse_xdp(packet[:length]).tcp, length
    assert parse_xdp(packet).tcp


@pytest.mark.parametrize("family", [4, 6])
def test_what_lies_behind_the_options_never_matters(parse_xdp: Any, family: Any) -> None:
    # Forty bytes are copied at once where the packet is long enough, words where it ends before.
    for payload in range(0, 48):
        packet = build(
            family=family, options=[DSS, b"\x01\x01\x01\x01"], payload=b"\x1e\x03\x51"[:1] * payload
        )
        parsed = parse_xdp(packet)
        assert parsed.subtypes == {2}
        assert parsed.found.options_len == 32
        assert parsed.found.payload_len == payload


@pytest.mark.parametrize("inside", [0, 1, 2])
def test_a_tag_in_the_skb_counts_as_one(change_tc: Any, inside: int) -> None:
    packet = build(options=[DSS], vlan=[7] * inside)
    changed = change_tc(packet, "insert_prio", tag=5)
    assert changed.done == (inside < 2)
    if inside == 2:
        assert changed.reason == "too_many_headers"
    else:
        assert changed.found.flags & 0x10
        assert changed.found.l3 == 14 + 4 * inside


def test_a_priority_tag_in_the_skb_is_no_vlan(change_tc: Any) -> None:
    assert not change_tc(build(**HERE), "nothing", tag=5 << 13).found.flags & 0x10


def test_a_gso_packet_is_known_as_one(parse_tc: Any, gso_ctx: bytes) -> None:
    packet = build(options=[DSS], payload=bytes(1000))
    assert parse_tc(packet, ctx=gso_ctx).found.flags == 0x09
    assert parse_tc(packet).found.flags == 0x01


@pytest.mark.parametrize("family", [4, 6])
def test_both_directions_have_one_key(parse: Any, family: Any) -> None:
    low, high = ("10.0.0.1", "10.0.0.2") if family == 4 else ("fd00::1", "fd00::2")
    there = parse(build(family=family, src=low, dst=high, sport=50000, dport=80)).found
    back = parse(build(family=family, src=high, dst=low, sport=80, dport=50000)).found
    assert there.key == back.key
    assert (there.direction, back.direction) == (0, 1)
    prefix = bytes(10) + b"\xff\xff" if family == 4 else b""
    addresses = build(family=family, link="none", src=low, dst=high)
    raw = addresses[12:20] if family == 4 else addresses[8:40]
    size = len(raw) // 2
    assert there.key == prefix + raw[:size] + prefix + raw[size:] + struct.pack("!HH", 50000, 80)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize(("sport", "dport", "direction"), [(1, 256, 0), (256, 1, 1), (9, 9, 0)])
def test_between_equal_addresses_the_ports_decide(
    parse: Any, family: Any, sport: int, dport: int, direction: int
) -> None:
    address = "127.0.0.1" if family == 4 else "::1"
    found = parse(build(family=family, src=address, dst=address, sport=sport, dport=dport)).found
    assert found.direction == direction
    assert found.key[-4:] == struct.pack("!HH", *sorted((sport, dport)))


@pytest.mark.parametrize(
    ("low", "high"),
    [("fd00::1", "fd00:0:0:1::"), ("fd00::1:0:0:0", "fd00::ff00:0:0:0"), ("::ffff:1.2.3.4", "fe80::1")],
)
def test_ipv6_addresses_are_ordered_by_their_bytes(parse: Any, low: str, high: str) -> None:
    assert parse(build(family=6, src=low, dst=high)).found.direction == 0
    assert parse(build(family=6, src=high, dst=low)).found.direction == 1


def test_only_what_is_needed_is_written(parse: Any) -> None:
    usual = [b"\x01\x01", Timestamps(1, 2), DSS]
    packet = build(options=usual, src="10.0.0.9", dst="10.0.0.1")
    before = parse(build(options=[MpPrio(True)], src="10.0.0.3", dst="10.0.0.4"))
    without = parse(packet, needs=0)
    assert (without.subtypes, without.found.direction, without.found.at) == ({2}, 0, before.found.at)
    assert (without.found.l4, without.found.payload, without.found.tcp) == (34, 0, before.found.tcp)
    assert parse(packet, needs=1).found.at[2] == 32
    assert parse(packet, needs=2).found.direction == 1
    assert parse(packet, needs=8).found.tcp == packet[34:54]
    assert parse(packet, needs=16).found.payload == 34 + 20 + 12 + 28


@pytest.mark.parametrize("flags", ["A", "PA", "AU"])
@pytest.mark.parametrize("payload", [b"", b"data"])
@pytest.mark.parametrize("behind", [b"", b"\x01\x01"])
def test_a_usual_packet_is_parsed_as_thoroughly_as_others(
    parse: Any, flags: str, payload: bytes, behind: bytes
) -> None:
    lengths = range(8, 27, 2)
    for length, bits in product(lengths, range(32)):
        dss = bytes([30, length, 0x20, bits]) + bytes(length - 4)
        if (len(dss) + len(behind)) % 4 or len(dss) + len(behind) > 28:
            continue
        packet = build(
            flags=flags, options=[b"\x01\x01", Timestamps(1, 2), dss, behind], payload=payload, dst="9.9.9.9"
        )
        one, other = (vars(parse(packet, thorough=thorough).found) for thorough in (False, True))
        for found in (one, other):
            found["block"] = found["block"][: found["options_len"]]
            del found["argument"], found["cursor"]  # what the walk over options works with
        assert one == other


def test_nothing_of_one_packet_is_left_in_the_next(parse: Any) -> None:
    full = build(vlan=[5], flags="S", options=[Timestamps(1, 2), b"\x03\x03\x07", b"\x1e\x0c\x10" + bytes(9)])
    bare = build(flags="A", payload=b"x")
    first = parse(bare).found
    parse(full)
    second = parse(bare).found
    # What only the headers' own functions read may hold anything.
    for name in vars(first):
        if name not in ("block", "cursor", "argument", "key"):
            assert getattr(first, name) == getattr(second, name), name
