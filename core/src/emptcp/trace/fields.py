# SPDX-License-Identifier: Apache-2.0
"""A packet as the ordered fields that tshark shows for it, by tshark's names and in its notation.

This is tshark's view, not the kernel's: it lists options that a receiver ignores, looks into tunnels, and
stops where tshark gives a packet up as malformed, also when options follow. Values are those of
``tshark -n -T fields`` 4.0: numbers in decimal, flags and checksums as ``0x..``, bytes as plain hex,
booleans as 0 and 1. Fields that depend on earlier packets (relative sequence numbers, analysis) and
repetitions under a second name (``ip.addr``) are left out. One thing can't be told from a single packet:
keys or a join on a connection of which tshark saw other options first make it stop ("dissector bug").
"""

from __future__ import annotations

from emptcp.packet.layers import EtherType, Link, Protocol
from emptcp.trace.fields_tcp import tcp
from emptcp.trace.fields_tunnel import Inner, inside_ethernet, inside_ip
from emptcp.trace.view import Field, Malformed, View


def fields(packet: bytes, link: Link = "ethernet", size: int = 0) -> list[Field]:
    """Return (field name, value) pairs in the order of the packet's bytes.

    ``size`` is how long the packet was before a capture cut it; 0: it is whole.
    """
    view = View(packet, size or len(packet), [])
    try:
        if link == "ethernet":
            _ethernet(view)
        else:
            _ip(view)
    except Malformed:
        pass
    return view.fields


def subtypes(shown: list[Field]) -> list[int]:
    """Return the MPTCP option subtypes among fields, in order of appearance."""
    return [int(value) for name, value in shown if name == "tcp.options.mptcp.subtype"]


def _ethernet(view: View) -> None:
    view.mac("eth.dst", 0)
    view.mac("eth.src", 6)
    ethertype, at = view.number(12, 2), 14
    if ethertype <= 1500:
        view.put("eth.len", ethertype)
    else:
        view.hexadecimal("eth.type", 12, 2)
    while ethertype in (EtherType.VLAN, EtherType.QINQ):
        ethertype, at = _vlan(view, ethertype, at), at + 4
    if ethertype in (EtherType.IPV4, EtherType.IPV6):
        _ip(view.part(at))
    else:
        _inner(inside_ethernet(view.part(at), ethertype))


def _inner(found: Inner | None) -> None:
    if found is not None:
        (_ethernet if found[0] == "ethernet" else _ip)(found[1])


def _vlan(view: View, tpid: int, at: int) -> int:
    name, following = ("vlan", "vlan") if tpid == EtherType.VLAN else ("ieee8021ad", "ieee8021ah")
    tci = view.number(at, 2)
    view.put(f"{name}.priority", tci >> 13)
    view.put(f"{name}.dei", bool(tci & 0x1000))
    view.put(f"{name}.id", tci & 0xFFF)
    return view.hexadecimal(f"{following}.etype", at + 2, 2)


def _ip(view: View) -> None:
    version = view.number(0, 1) >> 4
    if version == 4:
        _ipv4(view)
    elif version == 6:
        _ipv6(view)


def _ipv4(view: View) -> None:
    view.put("ip.version", 4)
    size = (view.number(0, 1) & 0xF) * 4
    view.put("ip.hdr_len", size)
    if size < 20:
        return
    view.hexadecimal("ip.dsfield", 1, 1)
    view.put("ip.dsfield.dscp", view.number(1, 1) >> 2)
    view.put("ip.dsfield.ecn", view.number(1, 1) & 3)
    # 0 is what segmentation offload leaves there, and shown as the length that the frame has.
    length = view.number(2, 2) or view.size
    view.put("ip.len", length)
    if length < size:
        return
    view.hexadecimal("ip.id", 4, 2)
    place = view.number(6, 2)
    view.put("ip.flags", f"0x{place >> 13:02x}")
    view.bits(place, {"ip.flags.rb": 0x8000, "ip.flags.df": 0x4000, "ip.flags.mf": 0x2000})
    view.put("ip.frag_offset", place & 0x1FFF)
    view.decimal("ip.ttl", 8, 1)
    protocol = view.decimal("ip.proto", 9, 1)
    view.hexadecimal("ip.checksum", 10, 2)
    view.address("ip.src", 12, 4)
    view.address("ip.dst", 16, 4)
    body = view.part(size, min(length, view.size))
    # tshark shows a fragment's contents with the last fragment, when it has them all.
    if not place & 0x3FFF:
        _transport(body, protocol)


def _ipv6(view: View) -> None:
    view.put("ipv6.version", 6)
    view.put("ip.version", 6)
    first = view.number(0, 4)
    view.put("ipv6.tclass", f"0x{first >> 20 & 0xFF:08x}")
    view.put("ipv6.tclass.dscp", first >> 22 & 0x3F)
    view.put("ipv6.tclass.ecn", first >> 20 & 3)
    view.put("ipv6.flow", f"0x{first & 0xFFFFF:06x}")
    length = view.decimal("ipv6.plen", 4, 2)
    following = view.decimal("ipv6.nxt", 6, 1)
    view.decimal("ipv6.hlim", 7, 1)
    view.address("ipv6.src", 8, 16)
    view.address("ipv6.dst", 24, 16)
    _after_extensions(view.part(40, min(40 + length, view.size) if length else None), following)


def _after_extensions(body: View, following: int) -> None:
    while following in (Protocol.HOP_BY_HOP, Protocol.ROUTING, Protocol.DESTINATION, Protocol.FRAGMENT):
        if following == Protocol.FRAGMENT:
            if body.number(2, 2) & 0xFFF9:
                return
            size = 8
        else:
            size = 8 * (body.number(1, 1) + 1)
        following = body.number(0, 1)
        body.raw(0, size)
        body = body.part(size)
    _transport(body, following)


def _transport(body: View, protocol: int) -> None:
    if protocol == Protocol.TCP:
        tcp(body)
    else:
        _inner(inside_ip(body, protocol))
