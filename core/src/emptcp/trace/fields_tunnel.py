# SPDX-License-Identifier: Apache-2.0
"""What carries a packet inside another, as far as tshark follows it by default: where the inner one begins.

The tunnels' own fields are not listed: no program here changes them.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Literal

from emptcp.trace.view import View

Inner = tuple[Literal["ethernet", "ip"], View]

_ETHERNET_IN_GRE = 0x6558
_IP_TYPES = (0x0800, 0x86DD)
_VXLAN, _GTP_U = 4789, 2152
_ERRORS = {1: (3, 4, 5, 11, 12), 58: (1, 2, 3, 4)}


class Carrier(IntEnum):
    """Ethernet types of MPLS and of PPPoE's session stage."""

    MPLS = 0x8847
    PPPOE = 0x8864


def inside_ip(body: View, protocol: int) -> Inner | None:
    """Return what an IP packet's body carries: IP in IP, GRE, VXLAN, GTP-U, what an ICMP error quotes."""
    if protocol in (4, 41):
        return "ip", body
    if protocol in _ERRORS:
        return ("ip", body.part(8)) if body.number(0, 1) in _ERRORS[protocol] else None
    opener = {17: _udp, 47: _gre}.get(protocol)
    return opener(body) if opener else None


def inside_ethernet(view: View, ethertype: int) -> Inner | None:
    """Return what a frame's body carries behind MPLS labels, a PPPoE header or LLC with SNAP."""
    if ethertype == Carrier.MPLS:
        return _mpls(view)
    if ethertype == Carrier.PPPOE:
        end = min(6 + view.number(4, 2), view.size)
        return ("ip", view.part(8, end)) if view.number(6, 2) in (0x21, 0x57) else None
    if ethertype <= 1500 and view.raw(0, 6) == b"\xaa\xaa\x03\0\0\0":
        return ("ip", view.part(8)) if view.number(6, 2) in _IP_TYPES else None
    return None


def _mpls(view: View) -> Inner | None:
    at = 4
    while not view.number(at - 2, 1) & 1:
        at += 4
    return ("ip", view.part(at)) if view.number(at, 1) >> 4 in (4, 6) else None


def _gre(view: View) -> Inner | None:
    flags, kind = view.number(0, 2), view.number(2, 2)
    if flags & 7:
        return None
    at = 4 + 4 * bool(flags & 0xC000) + 4 * bool(flags & 0x2000) + 4 * bool(flags & 0x1000)
    if kind == _ETHERNET_IN_GRE:
        return "ethernet", view.part(at)
    return ("ip", view.part(at)) if kind in _IP_TYPES else None


def _udp(view: View) -> Inner | None:
    ports = view.number(0, 2), view.number(2, 2)
    body = view.part(8, min(view.number(4, 2), view.size))
    openers: dict[int, Callable[[View], Inner | None]] = {_VXLAN: _vxlan, _GTP_U: _gtp}
    found = next((openers[port] for port in ports if port in openers), None)
    return found(body) if found else None


def _vxlan(view: View) -> Inner | None:
    return "ethernet", view.part(8)


def _gtp(view: View) -> Inner | None:
    flags, kind = view.number(0, 1), view.number(1, 1)
    if flags >> 4 != 3 or kind != 255:
        return None
    at = 12 if flags & 7 else 8
    following = view.number(11, 1) if flags & 4 else 0
    while following:
        at += 4 * max(1, view.number(at, 1))
        following = view.number(at - 1, 1)
    return ("ip", view.part(at)) if view.number(at, 1) >> 4 in (4, 6) else None
