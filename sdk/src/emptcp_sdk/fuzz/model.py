# SPDX-License-Identifier: Apache-2.0
"""What the parser must make of a packet, worked out in Python from the independent decoder.

Sources: the table "What the parser makes of a packet" of the headers' reference; for the MPTCP options
``mptcp_parse_option()`` in net/mptcp/options.c.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from emptcp.chain.reasons import REASONS
from emptcp.packet.decode import Decoded, Reason, Tcp
from emptcp.packet.layers import Ipv4, Protocol
from emptcp.packet.mptcp import AddAddress, Dss, MpCapable, MpPrio, MpTcpReset
from emptcp.packet.tcp import Flag, Kind, Placed, walked_length

MPTCP, PURE_ACK, CHANGED, GSO, VLAN, MPTCP_V0 = 1, 2, 4, 8, 16, 32
"""``enum emptcp_pkt_flag``."""

_HEAD = struct.Struct("<I4B4HI8BHH16s16sI36s16s40s")
_NAMES = [
    "size",
    "hook",
    "backend",
    "family",
    "flags",
    "l3",
    "l4",
    "payload",
    "ip_end",
    "payload_len",
    "tcp_flags",
    "direction",
    "options_len",
    "no_modify",
    "reason",
    "timestamps",
    "sack",
    "window_scale",
    "subtypes",
    "repeated",
    "at",
    "len",
    "redirect",
    "key",
    "scratch",
    "block",
]
_OURS = frozenset({"size", "hook", "backend", "redirect", "scratch", "reason"})
FIELDS = tuple(name for name in _NAMES if name not in _OURS)
"""Members of ``struct emptcp_pkt`` that the packet alone decides."""

_NUMBERS = {name: number for number, name in enumerate(REASONS)}
_BEFORE_TCP = (Reason.FRAGMENT, Reason.ROUTING_HEADER, Reason.LENGTH_UNKNOWN)


def members(value: bytes | memoryview) -> dict[str, Any]:
    """Return the first members of a ``struct emptcp_pkt`` by their names."""
    return dict(zip(_NAMES, _HEAD.unpack_from(value), strict=True))


@dataclass(frozen=True, slots=True)
class Expected:
    """Whether a packet is parsed, and what is found; else for which reasons it may be left alone."""

    tcp: bool
    found: dict[str, Any]
    reasons: frozenset[str] = frozenset()


# The parser looks at headers in another order than the decoder, so a packet with two faults may have either
# reason; and it judges an extension header that goes on behind the IP packet's end when it is at TCP.
_LEFT: dict[Reason | None, frozenset[str]] = {
    Reason.NOT_TCP: frozenset({"ok"}),
    Reason.FRAGMENT: frozenset({"fragment"}),
    Reason.TOO_MANY_HEADERS: frozenset({"too_many_headers"}),
    Reason.BAD_HEADER: frozenset({"bad_header", "ok", "fragment", "truncated"}),
    Reason.TRUNCATED: frozenset({"truncated", "bad_header", "ok", "fragment", "too_many_headers"}),
}


def expected(packet: Decoded, *, tag: bool = False) -> Expected:
    """Say what the parser must find; ``tag``: one VLAN tag stands in the skb."""
    if tag and len(packet.vlans) == 2:
        return Expected(False, {}, frozenset({"too_many_headers"}))
    if packet.tcp is None and isinstance(packet.ip, Ipv4) and packet.ip.protocol != Protocol.TCP:
        return Expected(False, {}, _LEFT[Reason.NOT_TCP])
    if packet.tcp is None:
        return Expected(False, {}, _LEFT[packet.reason])
    return Expected(True, _found(packet, packet.tcp, tag))


def _found(packet: Decoded, tcp: Tcp, tag: bool) -> dict[str, Any]:
    assert packet.ip is not None
    end = walked_length(tcp.options) - bool(tcp.options and tcp.options[-1].kind == Kind.EOL)
    unknown = packet.ip.length == 0
    key, direction = _key(packet, tcp)
    return {
        "family": packet.ip.src.version,
        "flags": _flags(packet, tcp, tag, unknown),
        "l3": packet.ip.offset,
        "l4": tcp.offset,
        "payload": tcp.offset + tcp.length,
        "ip_end": 0 if unknown else packet.ip_end,
        "payload_len": len(packet.payload),
        "tcp_flags": int(tcp.flags) & 0xFF,
        "direction": direction,
        "options_len": end,
        "no_modify": _NUMBERS[_forbidden(packet, tcp)],
        "timestamps": _last(tcp, Kind.TIMESTAMPS, lambda n: n == 10),
        "sack": _last(tcp, Kind.SACK, lambda n: n >= 10 and n % 8 == 2),
        "window_scale": _last(tcp, Kind.WINDOW_SCALE, lambda n: n == 3),
        **_mptcp(packet, tcp),
        "key": key,
        "block": tcp.block,
    }


def legal(option: Placed, tcp: Tcp, data: bool) -> bool:
    """Tell whether the kernel would take an MPTCP option on this packet; ``data``: it has payload."""
    match option.option:
        case MpCapable() as capable:
            return option.valid_mptcp and _legal_capable(capable, option.length, tcp, data)
        case MpPrio():
            return option.length == 3
        case MpTcpReset():
            return bool(tcp.flags & Flag.RST)
    return option.valid_mptcp


def _legal_capable(option: MpCapable, length: int, tcp: Tcp, data: bool) -> bool:
    if option.version > 1 or option.flags & 0x5F != 0x01:
        return False
    if tcp.flags & Flag.SYN:
        return length == (12 if tcp.flags & Flag.ACK or option.version == 0 else 4)
    return length in ((22, 24) if option.version == 1 and data else (20,))


def _old(option: Placed) -> bool:
    known = option.option
    return isinstance(known, MpCapable | AddAddress) and known.version == 0


def _mptcp(packet: Decoded, tcp: Tcp) -> dict[str, Any]:
    at, length, seen, repeated = bytearray(16), bytearray(16), 0, 0
    for option in tcp.options:
        if option.kind == Kind.MPTCP and legal(option, tcp, bool(packet.payload)):
            subtype = option.raw[2] >> 4
            repeated |= seen & 1 << subtype
            seen |= 1 << subtype
            at[subtype], length[subtype] = 20 + option.offset, option.length
    return {"subtypes": seen, "repeated": repeated, "at": bytes(at), "len": bytes(length)}


def _flags(packet: Decoded, tcp: Tcp, tag: bool, unknown: bool) -> int:
    legals = [o for o in tcp.options if o.kind == Kind.MPTCP and legal(o, tcp, bool(packet.payload))]
    flags = MPTCP if legals else 0
    flags |= MPTCP_V0 if any(_old(option) for option in legals) else 0
    flags |= VLAN if tag or any(vlan.id for vlan in packet.vlans) else 0
    bare = tcp.flags & (Flag.ACK | Flag.SYN | Flag.FIN | Flag.RST) == Flag.ACK
    return flags | (PURE_ACK if bare and not packet.payload and not unknown else 0)


def _forbidden(packet: Decoded, tcp: Tcp) -> str:
    """Of several reasons not to change a packet the first stands."""
    if packet.reason in _BEFORE_TCP:
        return str(packet.reason)
    if tcp.flags & Flag.SYN and packet.payload:
        return "syn_data"
    for option in tcp.options:
        if option.kind in (Kind.MD5, Kind.AO):
            return "signed"
        fast = option.kind == Kind.FAST_OPEN or (option.kind == 254 and option.raw[2:4] == b"\xf9\x89")
        if tcp.flags & Flag.SYN and fast:
            return "syn_data"
        if option.kind == Kind.MPTCP and option.length >= 4 and 2 <= option.raw[2] <= 15:
            return "bad_version"
    return "ok"


def _last(tcp: Tcp, kind: int, good: Any) -> int:
    places = [20 + option.offset for option in tcp.options if option.kind == kind and good(option.length)]
    return places[-1] if places else 0


def _key(packet: Decoded, tcp: Tcp) -> tuple[bytes, int]:
    assert packet.ip is not None
    mapped = bytes(10) + b"\xff\xff" if packet.ip.src.version == 4 else b""
    ends = [
        (mapped + address.packed, port.to_bytes(2, "big"))
        for address, port in ((packet.ip.src, tcp.sport), (packet.ip.dst, tcp.dport))
    ]
    low, high = sorted(ends)
    return low[0] + high[0] + low[1] + high[1], int(ends[0] > ends[1])


def dss(option: Dss) -> tuple[int, int, int, int, int, bool]:
    """Return the members of ``struct emptcp_dss`` for an option."""
    mapped = option.dsn is not None
    return (
        option.data_ack or 0,
        option.dsn or 0,
        option.subflow_seq if mapped else 0,
        option.data_length if mapped else 0,
        option.flags & 0x1F,
        option.checksum is not None,
    )
