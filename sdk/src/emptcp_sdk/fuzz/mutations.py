# SPDX-License-Identifier: Apache-2.0
"""Break a packet a little: bits, bytes, runs of bytes, lengths, options."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random

from emptcp.packet import checksum as sums
from emptcp.packet.decode import decode
from emptcp.packet.layers import Ipv4
from emptcp_sdk.fuzz.packets import Packet, block, option

SHORTEST, LONGEST = 14, 3000
"""A trial takes nothing shorter than an Ethernet header, and XDP nothing longer than a page with its room."""

HEADERS = 150
INTERESTING = (0, 1, 2, 3, 4, 5, 8, 10, 0x0F, 19, 20, 29, 30, 34, 40, 0x45, 0x7F, 0x80, 0xFE, 0xFF)


def _place(random: Random, data: bytearray) -> int:
    """An offset, nearly always in the headers."""
    return random.randrange(min(len(data), HEADERS) if random.random() < 0.95 else len(data))


def _flip(random: Random, data: bytearray) -> None:
    data[_place(random, data)] ^= 1 << random.randrange(8)


def _set(random: Random, data: bytearray) -> None:
    data[_place(random, data)] = random.choice(INTERESTING)


def _step(random: Random, data: bytearray) -> None:
    at = _place(random, data)
    data[at] = (data[at] + random.choice((-4, -1, 1, 4))) & 0xFF


def _truncate(random: Random, data: bytearray) -> None:
    del data[_place(random, data) :]


def _lengthen(random: Random, data: bytearray) -> None:
    data += random.randbytes(random.choice((1, 2, 20, 46)))


def _duplicate(random: Random, data: bytearray) -> None:
    at, size = _place(random, data), random.choice((1, 2, 4, 8, 12))
    data[at:at] = data[at : at + size]


def _delete(random: Random, data: bytearray) -> None:
    at = _place(random, data)
    del data[at : at + random.choice((1, 2, 4, 8))]


def _move(random: Random, data: bytearray) -> None:
    at, to, size = _place(random, data), _place(random, data), random.choice((1, 2, 4, 10))
    taken = data[at : at + size]
    data[to : to + len(taken)] = taken


MUTATIONS: Sequence[Callable[[Random, bytearray], None]] = (
    _flip,
    _flip,
    _set,
    _set,
    _step,
    _truncate,
    _lengthen,
    _duplicate,
    _delete,
    _move,
)


def _options_anew(random: Random, packet: Packet) -> Packet | None:
    """Write other options into the space that there is, or one option somewhere into it."""
    tcp = decode(packet.data, packet.link).tcp
    if tcp is None or not tcp.block:
        return None
    size, at = len(tcp.block), tcp.offset + 20
    new = bytearray(tcp.block)
    if random.random() < 0.5:
        new = bytearray(block(random).ljust(size, b"\x01")[:size])
    else:
        one, place = option(random), random.randrange(size)
        new[place : place + len(one)] = one
    data = packet.data[:at] + bytes(new[:size]) + packet.data[at + size :]
    return replace(packet, data=data)


def repaired(packet: Packet) -> Packet:
    """Make both checksums right, where they can be told."""
    found = decode(packet.data, packet.link)
    if found.tcp is None or found.ip is None:
        return packet
    data = bytearray(packet.data)
    if isinstance(found.ip, Ipv4):
        at, size = found.ip.offset, found.ip.ihl * 4
        struct.pack_into("!H", data, at + 10, 0)
        struct.pack_into("!H", data, at + 10, sums.checksum(bytes(data[at : at + size])))
    segment = bytes(data[found.tcp.offset : found.ip_end])
    right = sums.tcp_checksum(found.ip.src.packed, found.ip.dst.packed, segment)
    struct.pack_into("!H", data, found.tcp.offset + 16, right)
    return replace(packet, data=bytes(data))


def mutated(random: Random, packet: Packet) -> Packet:
    """Return the packet after one to four changes; half of them with right checksums again."""
    if random.random() < 0.3:
        packet = _options_anew(random, packet) or packet
    else:
        data = bytearray(packet.data)
        for _ in range(random.choice((1, 1, 1, 2, 4))):
            if data:
                random.choice(MUTATIONS)(random, data)
        packet = replace(packet, data=bytes(data[:LONGEST]).ljust(SHORTEST, b"\0"))
    return repaired(packet) if random.random() < 0.5 else packet
