# SPDX-License-Identifier: Apache-2.0
"""Build whole packets from their parts: correct by default, broken only where the caller says so."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Literal

from emptcp.errors import EmptcpError
from emptcp.packet import checksum as sums
from emptcp.packet.layers import Address, Ethernet, EtherType, Extension, Link, Protocol, Vlan
from emptcp.packet.tcp import Flag, Kind, Option, encode_options

SRC_MAC = bytes.fromhex("020000000001")
DST_MAC = bytes.fromhex("020000000002")
_DEFAULT_ADDRESSES = {4: ("10.0.0.1", "10.0.0.2"), 6: ("fd00::1", "fd00::2")}


def build(
    *,
    link: Link = "ethernet",
    vlan: Sequence[Vlan | int] = (),
    family: Literal[4, 6] = 4,
    src: Address | str | None = None,
    dst: Address | str | None = None,
    sport: int = 40000,
    dport: int = 5001,
    seq: int = 1000,
    ack: int = 2000,
    flags: str | int = "A",
    window: int = 512,
    urgent: int = 0,
    options: Sequence[Option | bytes] = (),
    payload: bytes = b"",
    tos: int = 0,
    ttl: int = 64,
    identification: int = 1,
    fragment: tuple[int, bool] | None = None,
    ip_options: bytes = b"",
    extensions: Sequence[Extension] = (),
    protocol: int = Protocol.TCP,
    transport: bytes | None = None,
    option_pad: int = Kind.NOP,
    src_mac: bytes = SRC_MAC,
    dst_mac: bytes = DST_MAC,
    frame_length: int = 0,
    trailer: bytes = b"",
    final_dst: IPv6Address | None = None,
    data_offset: int | None = None,
    checksum: int | None = None,
    ihl: int | None = None,
    ip_length: int | None = None,
    ip_checksum: int | None = None,
    ethertype: int | None = None,
) -> bytes:
    """Return a packet from its first link byte (``link="none"``: from IP) to its last.

    vlan: tags, outermost first; a plain number is an 802.1Q tag with that VLAN ID.
    flags: letters of ``FSRPAUECN``, or the nine bits as a number.
    options: TCP options in order; raw bytes stand as they are. The block is filled to a multiple of 4
        with ``option_pad``.
    fragment: IPv4 fragment offset in units of 8 bytes and the MF bit; None sets DF instead.
    ip_options: bytes of IPv4 options, filled to a multiple of 4 with EOL. extensions: IPv6 headers in order.
    transport: bytes that take the TCP segment's place, with ``protocol``.
    frame_length: zero bytes are added behind the IP packet up to this length (60: the shortest Ethernet
        frame without its check sequence), then ``trailer``.
    final_dst: address for the pseudo-header when a routing header has segments left.
    data_offset, ihl: header lengths in 32-bit words as told, whatever the truth.
    checksum, ip_checksum, ip_length (IPv4 total length, IPv6 payload length), ethertype: likewise.
    """
    default_src, default_dst = _DEFAULT_ADDRESSES[family]
    source, target = _packed(src or default_src, family), _packed(dst or default_dst, family)
    segment = transport
    if segment is None:
        bits = Flag.of(flags) if isinstance(flags, str) else flags
        head = struct.pack("!HHII", sport, dport, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF)
        block = encode_options(options, option_pad)
        words = _header_words(block) if data_offset is None else data_offset
        head += struct.pack("!HHHH", (words & 0xF) << 12 | bits, window, 0, urgent) + block
        segment = _sealed(source, final_dst.packed if final_dst else target, head + payload, checksum)
    if family == 4:
        place = fragment[0] | fragment[1] << 13 if fragment else 0x4000
        fixed = struct.pack("!HHBB", identification, place, ttl, protocol)
        packet = _ipv4(tos, fixed, source + target, ip_options, segment, ihl, ip_length, ip_checksum)
    else:
        packet = _ipv6(tos, ttl, protocol, source + target, extensions, segment, ip_length)
    if link == "ethernet":
        packet = _ethernet(dst_mac + src_mac, vlan, _type_of(family, ethertype)) + packet
    return packet + bytes(max(0, frame_length - len(packet))) + trailer


def _packed(address: Address | str, family: int) -> bytes:
    return (IPv4Address(address) if family == 4 else IPv6Address(address)).packed


def _header_words(block: bytes) -> int:
    if len(block) > 40:
        raise EmptcpError(
            f"a TCP header holds 40 bytes of options, these take {len(block)}",
            fix="leave an option out, or give data_offset for a deliberately broken header",
        )
    return 5 + len(block) // 4


def _sealed(source: bytes, target: bytes, segment: bytes, told: int | None) -> bytes:
    value = sums.tcp_checksum(source, target, segment) if told is None else told
    return segment[:16] + value.to_bytes(2, "big") + segment[18:]


def _ipv4(
    tos: int,
    fixed: bytes,
    addresses: bytes,
    options: bytes,
    segment: bytes,
    ihl: int | None,
    length: int | None,
    told: int | None,
) -> bytes:
    options += bytes(-len(options) % 4)
    size = 20 + len(options)
    total = size + len(segment) if length is None else length
    words = size // 4 if ihl is None else ihl
    head = struct.pack("!BBH", 0x40 | words, tos, total & 0xFFFF) + fixed
    value = sums.checksum(head + addresses + options) if told is None else told
    return head + value.to_bytes(2, "big") + addresses + options + segment


def _ipv6(
    tos: int,
    ttl: int,
    protocol: int,
    addresses: bytes,
    extensions: Sequence[Extension],
    segment: bytes,
    length: int | None,
) -> bytes:
    kinds = [header.kind for header in extensions] + [protocol]
    chain = b"".join(
        bytes((follower,)) + header.rest for header, follower in zip(extensions, kinds[1:], strict=True)
    )
    size = len(chain) + len(segment) if length is None else length
    head = struct.pack("!IHBB", 6 << 28 | tos << 20, size & 0xFFFF, kinds[0], ttl)
    return head + addresses + chain + segment


def _type_of(family: int, told: int | None) -> int:
    return (EtherType.IPV4 if family == 4 else EtherType.IPV6) if told is None else told


def _ethernet(addresses: bytes, vlan: Sequence[Vlan | int], ethertype: int) -> bytes:
    tags = [Vlan(tag) if isinstance(tag, int) else tag for tag in vlan]
    pairs = b"".join(struct.pack("!HH", tag.tpid, tag.tci) for tag in tags)
    return addresses + pairs + struct.pack("!H", ethertype)


def ethernet(dst: bytes, src: bytes, ethertype: int, body: bytes = b"") -> bytes:
    """Return an Ethernet frame around ``body``, for what is not IP (ARP, MPLS, PPPoE ...)."""
    return Ethernet(dst, src, ethertype).encode() + body
