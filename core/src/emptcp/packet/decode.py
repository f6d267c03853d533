# SPDX-License-Identifier: Apache-2.0
"""Read a packet the way emptcp's parser in the kernel does, so that one can be checked against the other.

Nothing raises: a packet that is not TCP, or broken, is described as far as it could be read, with the
reason. Bytes behind the end of the IP packet are link padding, never payload.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address

from emptcp.packet import checksum as sums
from emptcp.packet.layers import Ethernet, EtherType, Extension, Ipv4, Ipv6, Link, Protocol, Vlan
from emptcp.packet.tcp import Flag, Kind, Placed, walk

MAX_TAGS = 2
MAX_EXTENSIONS = 8


class Reason(StrEnum):
    """Why a packet is left alone. Without ``Decoded.tcp`` it is not even looked at."""

    NOT_TCP = "not_tcp"
    FRAGMENT = "fragment"
    TRUNCATED = "truncated"
    BAD_HEADER = "bad_header"
    TOO_MANY_HEADERS = "too_many_headers"
    ROUTING_HEADER = "routing_header"
    LENGTH_UNKNOWN = "length_unknown"
    SIGNED = "signed"
    SYN_DATA = "syn_data"


@dataclass(frozen=True, slots=True)
class Tcp:
    """A TCP header as it stands; ``offset`` counts from the first byte of the packet."""

    offset: int
    sport: int
    dport: int
    seq: int
    ack: int
    data_offset: int
    flags: Flag
    window: int
    checksum: int
    urgent: int
    block: bytes
    options: tuple[Placed, ...]

    @property
    def length(self) -> int:
        """Bytes of the header with its options."""
        return self.data_offset * 4

    @property
    def mptcp(self) -> tuple[Placed, ...]:
        """The MPTCP options that a receiver would read, in order."""
        return tuple(option for option in self.options if option.valid_mptcp)


@dataclass(frozen=True, slots=True)
class Decoded:
    """A packet as far as it could be read.

    reason: why the packet must not be changed; None when it may be. With ``tcp`` None the reason is why
        TCP was not reached.
    payload, trailer: bytes behind the TCP header up to the end of the IP packet, and bytes behind that.
    ip_checksum_right: None for IPv6. tcp_checksum_right: None where it can't be told: fragments, routing
        headers with segments left, unknown length.
    """

    data: bytes
    link: Link
    ethernet: Ethernet | None = None
    vlans: tuple[Vlan, ...] = ()
    ip: Ipv4 | Ipv6 | None = None
    ip_end: int = 0
    tcp: Tcp | None = None
    payload: bytes = b""
    trailer: bytes = b""
    reason: Reason | None = None
    ip_checksum_right: bool | None = None
    tcp_checksum_right: bool | None = None

    @property
    def subtypes(self) -> tuple[int, ...]:
        """Subtypes of the MPTCP options that a receiver would read, in order."""
        return tuple(option.raw[2] >> 4 for option in self.tcp.mptcp) if self.tcp else ()

    @property
    def valid(self) -> bool:
        """Whether it is a whole TCP packet whose lengths and checksums are all right."""
        return (
            self.tcp is not None and self.ip_checksum_right is not False and self.tcp_checksum_right is True
        )


class _Stop(Exception):
    """Reading ends here, with what was found so far and the reason."""

    def __init__(self, found: Decoded, reason: Reason) -> None:
        super().__init__(reason)
        self.found = replace(found, reason=reason)


def decode(data: bytes, link: Link = "ethernet") -> Decoded:
    """Read a packet that begins with an Ethernet header, or with IP (``link="none"``)."""
    start = Decoded(data, link)
    try:
        found, at, ethertype = _link(start)
        if ethertype == EtherType.IPV4:
            found, at = _ipv4(found, at)
        elif ethertype == EtherType.IPV6:
            found, at = _ipv6(found, at)
        else:
            raise _Stop(found, Reason.NOT_TCP)
        return _tcp(found, at)
    except _Stop as stop:
        return stop.found


def _need(found: Decoded, end: int) -> None:
    if len(found.data) < end:
        raise _Stop(found, Reason.TRUNCATED)


def _link(found: Decoded) -> tuple[Decoded, int, int]:
    data = found.data
    if found.link == "none":
        _need(found, 1)
        return found, 0, {4: EtherType.IPV4, 6: EtherType.IPV6}.get(data[0] >> 4, 0)
    _need(found, 14)
    ethertype, at = int.from_bytes(data[12:14], "big"), 14
    found = replace(found, ethernet=Ethernet(data[:6], data[6:12], ethertype))
    while ethertype in (EtherType.VLAN, EtherType.QINQ):
        if len(found.vlans) == MAX_TAGS:
            raise _Stop(found, Reason.TOO_MANY_HEADERS)
        _need(found, at + 4)
        tci, following = struct.unpack_from("!HH", data, at)
        tag = Vlan(tci & 0xFFF, ethertype, tci >> 13, bool(tci & 0x1000), following)
        found, ethertype, at = replace(found, vlans=(*found.vlans, tag)), following, at + 4
    return found, at, ethertype


def _ipv4(found: Decoded, at: int) -> tuple[Decoded, int]:
    data = found.data
    _need(found, at + 20)
    first, tos, length, identification, place, ttl, protocol, check = struct.unpack_from(
        "!BBHHHBBH", data, at
    )
    header = Ipv4(
        offset=at,
        ihl=first & 0xF,
        tos=tos,
        length=length,
        identification=identification,
        flags=place >> 13,
        fragment_offset=place & 0x1FFF,
        ttl=ttl,
        protocol=protocol,
        checksum=check,
        src=IPv4Address(data[at + 12 : at + 16]),
        dst=IPv4Address(data[at + 16 : at + 20]),
    )
    found, size = replace(found, ip=header), header.ihl * 4
    if first >> 4 != 4 or size < 20:
        raise _Stop(found, Reason.BAD_HEADER)
    _need(found, at + size)
    found = replace(
        found,
        ip=replace(header, options=data[at + 20 : at + size]),
        ip_checksum_right=sums.ones_sum(data[at : at + size]) == 0xFFFF,
    )
    found = _ended(found, at, length, size)
    return _after_ipv4(found, header), at + size


def _after_ipv4(found: Decoded, header: Ipv4) -> Decoded:
    if header.fragment_offset:
        raise _Stop(found, Reason.FRAGMENT)
    if header.protocol != Protocol.TCP:
        raise _Stop(found, Reason.NOT_TCP)
    reason = Reason.FRAGMENT if header.more_fragments else found.reason
    return replace(found, reason=reason)


def _ended(found: Decoded, at: int, length: int, least: int) -> Decoded:
    """Note where the IP packet ends: ``length`` after ``at``, or where the frame does when that is 0."""
    if not length:
        return replace(found, ip_end=len(found.data), reason=Reason.LENGTH_UNKNOWN)
    if length < least:
        raise _Stop(found, Reason.BAD_HEADER)
    _need(found, at + length)
    return replace(found, ip_end=at + length, trailer=found.data[at + length :])


def _ipv6(found: Decoded, at: int) -> tuple[Decoded, int]:
    data = found.data
    _need(found, at + 40)
    first, length, following, hops = struct.unpack_from("!IHBB", data, at)
    header = Ipv6(
        offset=at,
        traffic_class=first >> 20 & 0xFF,
        flow_label=first & 0xFFFFF,
        length=length,
        next_header=following,
        hop_limit=hops,
        src=IPv6Address(data[at + 8 : at + 24]),
        dst=IPv6Address(data[at + 24 : at + 40]),
    )
    found = replace(found, ip=header)
    if first >> 28 != 6:
        raise _Stop(found, Reason.BAD_HEADER)
    found = _ended(found, at, length + 40 if length else 0, 40)
    return _extensions(found, header, at + 40)


def _extensions(found: Decoded, header: Ipv6, at: int) -> tuple[Decoded, int]:
    following, reason = header.next_header, found.reason
    walked: list[Extension] = []
    while following in (Protocol.HOP_BY_HOP, Protocol.ROUTING, Protocol.DESTINATION, Protocol.FRAGMENT):
        if len(walked) == MAX_EXTENSIONS:
            raise _Stop(found, Reason.TOO_MANY_HEADERS)
        _within(found, at + 8)
        size = 8 if following == Protocol.FRAGMENT else 8 * (found.data[at + 1] + 1)
        _within(found, at + size)
        extension = Extension(following, found.data[at + 1 : at + size])
        walked.append(extension)
        found = replace(found, ip=replace(header, extensions=tuple(walked)))
        reason = _extension_reason(found, extension) or reason
        following, at = found.data[at], at + size
    if following != Protocol.TCP:
        raise _Stop(found, Reason.NOT_TCP)
    return replace(found, reason=reason), at


def _within(found: Decoded, end: int) -> None:
    if end > found.ip_end:
        raise _Stop(found, Reason.TRUNCATED)


def _extension_reason(found: Decoded, extension: Extension) -> Reason | None:
    if extension.kind == Protocol.FRAGMENT:
        if int.from_bytes(extension.rest[1:3], "big") >> 3:
            raise _Stop(found, Reason.FRAGMENT)
        return Reason.FRAGMENT
    if extension.kind == Protocol.ROUTING and extension.rest[2]:
        return Reason.ROUTING_HEADER
    return None


def _tcp(found: Decoded, at: int) -> Decoded:
    data = found.data
    _within(found, at + 20)
    sport, dport, seq, ack, bits, window, check, urgent = struct.unpack_from("!HHIIHHHH", data, at)
    size = (bits >> 12) * 4
    if size < 20:
        raise _Stop(found, Reason.BAD_HEADER)
    _within(found, at + size)
    block = data[at + 20 : at + size]
    header = Tcp(
        at, sport, dport, seq, ack, bits >> 12, Flag(bits & 0x1FF), window, check, urgent, block, walk(block)
    )
    payload = data[at + size : found.ip_end]
    return replace(
        found,
        tcp=header,
        payload=payload,
        reason=found.reason or _tcp_reason(header, payload),
        tcp_checksum_right=None if found.reason else _checksum_right(found, at),
    )


def _tcp_reason(header: Tcp, payload: bytes) -> Reason | None:
    kinds = {option.kind for option in header.options}
    if kinds & {Kind.MD5, Kind.AO}:
        return Reason.SIGNED
    if header.flags & Flag.SYN and (payload or Kind.FAST_OPEN in kinds):
        return Reason.SYN_DATA
    return None


def _checksum_right(found: Decoded, at: int) -> bool:
    assert found.ip is not None
    return sums.tcp_checksum_right(found.ip.src.packed, found.ip.dst.packed, found.data[at : found.ip_end])
