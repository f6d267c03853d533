# SPDX-License-Identifier: Apache-2.0
"""Field names, values and option subtypes are exactly tshark's, for right, wrong and cut packets."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from emptcp.packet.build import build, ethernet
from emptcp.packet.layers import Vlan, fragment_header, options_header, routing_header
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
from emptcp.packet.tcp import (
    MaximumSegmentSize,
    Nop,
    Option,
    Other,
    Sack,
    SackPermitted,
    Timestamps,
    WindowScale,
)
from emptcp.trace.fields import fields, subtypes

Shark = Callable[..., list[dict[str, str]]]
KEY = 0x1122334455667788
SUBTYPE = "tcp.options.mptcp.subtype"


def _addresses() -> list[Option]:
    texts = ("2001:db8::1", "::ffff:1.2.3.4", "::1")
    hosts: list[IPv4Address | IPv6Address] = [IPv4Address("192.0.2.1"), *map(IPv6Address, texts)]
    return [
        option
        for host in hosts
        for port in (None, 80)
        for option in (
            AddAddress(3, host, port, hmac=b"abcdefgh"),
            AddAddress(3, host, port, echo=True, reserved=1),
            AddAddress(3, host, port, version=0),
        )
    ]


MPTCP: list[Option] = [
    MpCapable(),
    MpCapable(KEY),
    MpCapable(KEY, 2),
    MpCapable(KEY, 2, 1400),
    MpCapable(KEY, 2, 1400, 0xABCD, flags=0xBF),
    MpCapable(KEY, version=0),
    MpCapable(KEY, KEY, version=0, flags=0x7F),
    MpCapable(version=2, flags=0xFF),
    MpJoinSyn(0xDEADBEEF, 0xFFFFFFFF, 3, True, 5),
    MpJoinSynAck(b"12345678", 77, 4),
    MpJoinAck(bytes(range(20)), 0xABC),
    Dss(),
    Dss(data_ack=1, wide_ack=False, data_fin=True),
    Dss(KEY, KEY, 5, 6),
    Dss(KEY, KEY, 5, 6, 0x1234),
    Dss(None, 5, 5, 6, 1, wide_dsn=False),
    Dss(stray_flags=0xEA, reserved=15),
    *_addresses(),
    RemoveAddress((1,)),
    RemoveAddress(tuple(range(8)), 7),
    MpPrio(True),
    MpPrio(False, 9, 3),
    MpFail(KEY, 0xFFF),
    MpFastclose(KEY, 1),
    MpTcpReset(5, 9),
    MpTcpReset(0x11, 6),
]
PLAIN: list[Option] = [
    MaximumSegmentSize(1400),
    WindowScale(14),
    SackPermitted(),
    Sack(((5, 9), (20, 30))),
    Timestamps(2**32 - 1, 7),
    Other(34, b"12345678"),
    Other(19, b"x" * 16),
    Other(254, b"\xf9\x89abcd"),
    Other(77, b"1"),
]


def whole_packets() -> list[bytes]:
    several: list[Option] = [Dss(KEY), MpPrio(True), MpPrio(False, 2), Nop()]
    return [
        *(build(options=[Nop(), option], payload=b"x") for option in (*MPTCP, *PLAIN)),
        build(family=6, options=several, tos=0x5A, payload=b"hello"),
        build(options=several, flags=0x17B, seq=2**32 - 1, urgent=7, tos=0xB9, ttl=1, frame_length=60),
        build(flags="RA", options=[MpTcpReset(), MpFastclose(KEY)]),
        build(vlan=(Vlan(5, 0x88A8, 3, True), Vlan(4095, priority=7)), options=several),
        build(vlan=(1, 2, 3, 4), options=several),
        build(ip_options=b"\x94\4\0\0", options=several),
        build(identification=0xFFFF, fragment=(0, False), options=several),
        build(fragment=(0, True), options=several, src="10.7.0.1"),
        build(fragment=(9, False), options=several, src="10.7.0.2"),
        build(ip_length=0, options=several),
        build(ip_length=2000, options=several),
        build(ip_length=19, options=several),
        build(ihl=4, options=several),
        build(data_offset=4, options=several),
        build(data_offset=15, options=several),
        build(family=6, extensions=[options_header(), options_header(60, 16)], options=several),
        build(family=6, extensions=[routing_header((IPv6Address("fd00::9"),), 1)], options=several),
        build(family=6, extensions=[fragment_header(more=False)], options=several),
        build(protocol=17, transport=bytes(20)),
        build(checksum=1, ip_checksum=2, options=several),
    ]


def saved(folder: Path, packets: Sequence[tuple[bytes, int]]) -> Path:
    path = folder / "fields.pcap"
    records = b"".join(
        struct.pack("<IIII", n, 0, len(data), size) + data for n, (data, size) in enumerate(packets)
    )
    path.write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1) + records)
    return path


def joined(shown: list[tuple[str, str]], name: str) -> str:
    return ",".join(value for field, value in shown if field == name)


def test_every_field_of_every_option_is_what_tshark_shows(tmp_path: Path, tshark: Shark) -> None:
    packets = whole_packets()
    ours = [fields(packet) for packet in packets]
    names = sorted({name for shown in ours for name, _ in shown})
    theirs = tshark(saved(tmp_path, [(packet, len(packet)) for packet in packets]), names)
    assert len(theirs) == len(packets)
    for number, (mine, row) in enumerate(zip(ours, theirs, strict=True)):
        assert {name: joined(mine, name) for name in names} == row, (
            f"packet {number}: {packets[number].hex()}"
        )


def test_wrong_lengths_are_listed_as_long_as_tshark_lists_them(tmp_path: Path, tshark: Shark) -> None:
    # Each of a connection of its own, because tshark judges keys by what came before.
    packets = [
        build(options=[_of_length(subtype, length), MpPrio(True)], src=f"10.1.{subtype}.{length}")
        for subtype in range(16)
        for length in range(2, 37)
    ]
    rows = tshark(saved(tmp_path, [(packet, len(packet)) for packet in packets]), (SUBTYPE,))
    ours = [",".join(map(str, subtypes(fields(packet)))) for packet in packets]
    assert ours == [row[SUBTYPE] for row in rows]


def _of_length(subtype: int, length: int) -> bytes:
    return (bytes((30, length, subtype << 4 | 1, 5)) + bytes(36))[:length]


def test_a_packet_cut_at_any_byte_shows_the_options_that_tshark_still_sees(
    tmp_path: Path, tshark: Shark
) -> None:
    packet = build(options=[Nop(), Dss(KEY, 5, 6, 7), MpPrio(True, 3), MpTcpReset()], payload=b"abc")
    cuts = [(packet[:end], len(packet)) for end in range(14, len(packet) + 1)]
    names = (
        SUBTYPE,
        "tcp.option_kind",
        "tcp.options",
        "tcp.options.mptcp.rawdataack",
        "tcp.payload",
        "ip.src",
    )
    rows = tshark(saved(tmp_path, cuts), names)
    for (data, size), row in zip(cuts, rows, strict=True):
        shown = fields(data, size=size)
        assert {name: joined(shown, name) for name in names} == row, f"cut to {len(data)}"


def tunnels() -> dict[str, bytes]:
    inner4, inner6 = (
        build(link="none", family=family, options=[Dss(KEY), MpPrio(True)]) for family in (4, 6)
    )
    frame = build(options=[MpPrio(True)], vlan=(3,))
    udp = struct.Struct("!HHHH")

    def in_udp(port: int, body: bytes) -> bytes:
        return build(protocol=17, transport=udp.pack(5555, port, 8 + len(body), 0) + body)

    def in_gre(head: bytes, body: bytes) -> bytes:
        return build(protocol=47, transport=head + body)

    return {
        "IPIP": build(protocol=4, transport=inner4),
        "6in4": build(protocol=41, transport=inner6),
        "4in6": build(family=6, protocol=4, transport=inner4),
        "GRE": in_gre(b"\x00\x00\x08\x00", inner4),
        "GRE with key and sequence": in_gre(b"\x30\x00\x86\xdd" + bytes(8), inner6),
        "GRE with Ethernet": in_gre(b"\x00\x00\x65\x58", frame),
        "VXLAN": in_udp(4789, b"\x08\0\0\0\0\0\x05\0" + frame),
        "GTP-U": in_udp(2152, b"\x30\xff" + struct.pack("!HI", len(inner4), 1) + inner4),
        "GTP-U, extended": in_udp(
            2152, b"\x34\xff" + struct.pack("!HI", 8 + len(inner6), 1) + b"\0\0\0\x85\x01\x10\0\0" + inner6
        ),
        "MPLS": ethernet(bytes(6), bytes(6), 0x8847, b"\0\x01\0\xff\0\x02\x01\xff" + inner4),
        "PPPoE": ethernet(
            bytes(6), bytes(6), 0x8864, b"\x11\0\0\x01" + struct.pack("!HH", 2 + len(inner6), 0x57) + inner6
        ),
        "LLC": ethernet(bytes(6), bytes(6), 8 + len(inner4), b"\xaa\xaa\x03\0\0\0\x08\0" + inner4),
        "ICMP error": build(protocol=1, transport=b"\x03\x04" + bytes(6) + inner4),
        "ICMPv6 error": build(family=6, protocol=58, transport=b"\x02\0" + bytes(6) + inner6),
        "UDP of another port": in_udp(4790, b"\x08\0\0\0\0\0\x05\0" + frame),
    }


def test_what_is_in_tunnels_is_seen_where_tshark_sees_it(tmp_path: Path, tshark: Shark) -> None:
    packets = tunnels()
    rows = tshark(
        saved(tmp_path, [(one, len(one)) for one in packets.values()]), (SUBTYPE, "ip.len", "ipv6.plen")
    )
    ours = {name: {field: joined(fields(one), field) for field in rows[0]} for name, one in packets.items()}
    assert ours == dict(zip(packets, rows, strict=True))
    assert sum(bool(row[SUBTYPE]) for row in rows) == len(packets) - 1


def test_random_option_blocks_show_the_subtypes_that_tshark_sees(tmp_path: Path, tshark: Shark) -> None:
    chance = random.Random(8684)
    packets = [_random_packet(chance) for _ in range(2000)]
    rows = tshark(
        saved(tmp_path, [(packet, len(packet)) for packet in packets]), (SUBTYPE, "tcp.option_kind")
    )
    for packet, row in zip(packets, rows, strict=True):
        shown = fields(packet)
        assert {name: joined(shown, name) for name in row} == row, packet.hex()


def _random_packet(chance: random.Random) -> bytes:
    """Return a packet of odd options, of a connection of its own.

    No two of them in one packet are MPTCP keys or joins, and one SACK at most: behind those tshark
    4.0 shows what it makes of the connection ("dissector bug"), not what the packet holds.
    """
    block, kinds = b"", [30, 30, 30, 2, 3, 4, 5, 8, 0, 1, 99]
    while len(block) < 36:
        kind = chance.choice(kinds)
        if kind == 5:
            kinds.remove(5)
        body = chance.randbytes(chance.choice((0, 1, 2, 2, 6, 8, 10, 16)))
        if kind == 30:
            body = bytes((chance.randrange(2, 16) << 4 | chance.randrange(16),)) + body
        block += (
            bytes((kind,)) if kind < 2 else bytes((kind, chance.choice((len(body) + 2,) * 9 + (1,)))) + body
        )
    source = f"10.{chance.randrange(256)}.{chance.randrange(256)}.{chance.randrange(1, 255)}"
    return build(options=[block[:40]], src=source, sport=chance.randrange(30000, 60000))
