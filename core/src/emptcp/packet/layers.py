# SPDX-License-Identifier: Apache-2.0
"""What stands in front of TCP: Ethernet, VLAN tags, IPv4, IPv6 and its extension headers."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Literal

Link = Literal["ethernet", "none"]
"""What a packet begins with: an Ethernet header, or IP at once (tun, WireGuard, raw IP captures)."""

Address = IPv4Address | IPv6Address


class EtherType(IntEnum):
    """The types that are followed."""

    IPV4 = 0x0800
    IPV6 = 0x86DD
    VLAN = 0x8100
    QINQ = 0x88A8


class Protocol(IntEnum):
    """IP protocols and IPv6 extension headers that mean something here."""

    HOP_BY_HOP = 0
    TCP = 6
    UDP = 17
    ROUTING = 43
    FRAGMENT = 44
    ESP = 50
    AH = 51
    DESTINATION = 60


@dataclass(frozen=True, slots=True)
class Ethernet:
    """An Ethernet II header; addresses are six bytes each."""

    dst: bytes
    src: bytes
    ethertype: int

    def encode(self) -> bytes:
        """Return the 14 bytes."""
        return self.dst + self.src + struct.pack("!H", self.ethertype)


@dataclass(frozen=True, slots=True)
class Vlan:
    """One tag. ``tpid`` is the type that announces it, ``ethertype`` (decode only) the one that follows."""

    id: int
    tpid: int = EtherType.VLAN
    priority: int = 0
    drop_eligible: bool = False
    ethertype: int = 0

    @property
    def tci(self) -> int:
        """Priority, drop-eligible bit and VLAN ID as on the wire."""
        return self.priority << 13 | self.drop_eligible << 12 | self.id


@dataclass(frozen=True, slots=True)
class Ipv4:
    """An IPv4 header as it stands; ``offset`` counts from the first byte of the packet."""

    offset: int
    ihl: int
    tos: int
    length: int
    identification: int
    flags: int
    fragment_offset: int
    ttl: int
    protocol: int
    checksum: int
    src: IPv4Address
    dst: IPv4Address
    options: bytes = b""

    @property
    def more_fragments(self) -> bool:
        """The MF bit."""
        return bool(self.flags & 1)


@dataclass(frozen=True, slots=True)
class Extension:
    """An IPv6 extension header: its own protocol number and all its bytes after the next-header byte."""

    kind: int
    rest: bytes


@dataclass(frozen=True, slots=True)
class Ipv6:
    """An IPv6 header as it stands, with the extension headers that were walked."""

    offset: int
    traffic_class: int
    flow_label: int
    length: int
    next_header: int
    hop_limit: int
    src: IPv6Address
    dst: IPv6Address
    extensions: tuple[Extension, ...] = ()


def options_header(kind: Literal[0, 60] = 0, size: int = 8) -> Extension:
    """Return a hop-by-hop (0) or destination options (60) header of ``size`` bytes, filled with PadN."""
    return Extension(kind, bytes((size // 8 - 1, 1, size - 4)) + bytes(size - 4))


def routing_header(addresses: tuple[IPv6Address, ...], segments_left: int, kind: int = 2) -> Extension:
    """Return a routing header (RFC 8200 §4.4) with a list of addresses."""
    body = b"".join(address.packed for address in addresses)
    return Extension(Protocol.ROUTING, bytes((len(body) // 8, kind, segments_left)) + bytes(4) + body)


def fragment_header(offset: int = 0, more: bool = True, identification: int = 1) -> Extension:
    """Return a fragment header (RFC 8200 §4.5); ``offset`` in units of 8 bytes."""
    rest = struct.pack("!BHI", 0, offset << 3 | more, identification)
    return Extension(Protocol.FRAGMENT, rest)
