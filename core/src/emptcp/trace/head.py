# SPDX-License-Identifier: Apache-2.0
"""Run over-long packets on their head: a test run takes a page, captures hold merged packets of 64 KiB.

The IP length is lowered to what the head holds, and raised again in what comes back. The IPv4 header
checksum follows by increment, so that a wrong one stays wrong; the TCP checksum needs no care, because
programs update it by increments too.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from emptcp.errors import EmptcpError
from emptcp.packet.checksum import updated
from emptcp.packet.decode import Decoded, decode
from emptcp.packet.layers import Ipv4, Link

LIMIT = 2048
"""Longest packet that is run whole: above any Ethernet MTU, under what XDP and TC test runs take (3.5 KB)."""


@dataclass(frozen=True, slots=True)
class Head:
    """What a program runs on, and what restores the whole.

    ``hidden`` is how many bytes the IP length was lowered by, ``rest`` the bytes that were cut off.
    """

    packet: bytes
    link: Link
    rest: bytes = b""
    hidden: int = 0


def head(packet: bytes, link: Link, limit: int = LIMIT) -> Head:
    """Return the packet itself if it is short enough, else its head."""
    if len(packet) <= limit:
        return Head(packet, link)
    found = decode(packet, link)
    # A length of 0, or past the end, is the packet's own oddity: the program shall see it.
    known = found.ip is not None and found.ip.length and limit < found.ip_end
    hidden = found.ip_end - limit if known else 0
    return Head(_lengthened(packet, found, -hidden)[:limit], link, packet[limit:], hidden)


def restore(cut: Head, packet: bytes) -> bytes:
    """Return the whole packet, with what a program did to its head.

    Raises EmptcpError when the head came back without its IP header.
    """
    if not cut.rest:
        return packet
    whole = packet + cut.rest
    return _lengthened(whole, decode(packet, cut.link), cut.hidden)


def _lengthened(packet: bytes, found: Decoded, delta: int) -> bytes:
    if not delta:
        return packet
    if found.ip is None:
        raise EmptcpError(
            "a packet that was run on its head came back without an IP header",
            fix="an actor of the policy damages packets; trace with fewer of them to find which",
        )
    at = found.ip.offset + (2 if isinstance(found.ip, Ipv4) else 4)
    length = (found.ip.length + delta) & 0xFFFF
    packet = _patched(packet, at, length)
    if isinstance(found.ip, Ipv4):
        check = updated(found.ip.checksum, found.ip.length, length)
        packet = _patched(packet, found.ip.offset + 10, check)
    return packet


def _patched(packet: bytes, at: int, value: int) -> bytes:
    return packet[:at] + struct.pack("!H", value) + packet[at + 2 :]
