# SPDX-License-Identifier: Apache-2.0
"""Link headers of captures: take them off to what a program can run on, and put them back.

A program runs on packets that begin with Ethernet or with IP. Numbers are LINKTYPE_ values
(https://www.tcpdump.org/linktypes.html).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from emptcp.errors import EmptcpError
from emptcp.packet.layers import Ethernet, EtherType, Link

ETHERNET = 1
PPP = 9
RAW = 101
SLL = 113
SLL2 = 276

_PPP_IP = (0x21, 0x57)


@dataclass(frozen=True, slots=True)
class Carried:
    """A packet without the capture's link header.

    ``head`` goes back in front of it; ``made`` is how many bytes of ``packet`` were made up for it.
    """

    packet: bytes
    link: Link
    head: bytes = b""
    made: int = 0

    def restored(self, packet: bytes) -> bytes:
        """Return what the capture holds when a program left ``packet``."""
        return self.head + packet[self.made :]


def carried(link_type: int, data: bytes) -> Carried | None:
    """Return what a program can run on; None where that is no Ethernet frame or IP packet.

    Raises EmptcpError for a link type that is not known.
    """
    take = _LINKS.get(link_type)
    if take is None:
        known = ", ".join(f"{name} ({number})" for number, name in _NAMES.items())
        raise EmptcpError(f"link type {link_type} is not known", fix=f"known are {known}")
    return take(data)


def _ethernet(data: bytes) -> Carried | None:
    return Carried(data, "ethernet") if len(data) >= 14 else None


def _raw(data: bytes) -> Carried | None:
    return Carried(data, "none") if data and data[0] >> 4 in (4, 6) else None


def _cooked(data: bytes, size: int, protocol_at: int) -> Carried | None:
    if len(data) < size:
        return None
    protocol = int.from_bytes(data[protocol_at : protocol_at + 2], "big")
    head, packet = data[:size], data[size:]
    if protocol in (EtherType.IPV4, EtherType.IPV6):
        return Carried(packet, "none", head)
    # VLAN tags can follow: they need a type in front that announces them.
    frame = Ethernet(bytes(6), bytes(6), protocol).encode()
    return Carried(frame + packet, "ethernet", head, len(frame))


def _sll(data: bytes) -> Carried | None:
    return _cooked(data, 16, 14)


def _sll2(data: bytes) -> Carried | None:
    return _cooked(data, 20, 0)


def _ppp(data: bytes) -> Carried | None:
    # Address and control are left out where the peers agreed (RFC 1661 §6.6), so is a protocol's zero byte.
    at = 2 if data[:2] == b"\xff\x03" else 0
    size = 1 if data[at : at + 1] and data[at] & 1 else 2
    end = at + size
    if int.from_bytes(data[at:end], "big") not in _PPP_IP or len(data) <= end:
        return None
    return Carried(data[end:], "none", data[:end])


_LINKS: dict[int, Callable[[bytes], Carried | None]] = {
    ETHERNET: _ethernet,
    PPP: _ppp,
    50: _ppp,
    12: _raw,
    14: _raw,
    RAW: _raw,
    228: _raw,
    229: _raw,
    SLL: _sll,
    SLL2: _sll2,
}
_NAMES = {ETHERNET: "Ethernet", PPP: "PPP", RAW: "raw IP", SLL: "Linux cooked", SLL2: "Linux cooked v2"}
