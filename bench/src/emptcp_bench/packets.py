# SPDX-License-Identifier: Apache-2.0
"""The packets of the measurements: one of the flows that are looked for, and those that are not meant."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

from emptcp.packet.build import build
from emptcp.packet.mptcp import Dss
from emptcp.packet.tcp import Nop, Option, Timestamps

FLOWS = 10_000
"""Flows that the selector and the hand-written look-up know."""

_PAYLOAD = bytes(range(200))
_WANTED = FLOWS // 2
_UDP = 17


def key(number: int) -> bytes:
    """Return the 4-tuple of a flow as it is on the wire (``struct bench_flow``)."""
    source, target = IPv4Address("10.1.0.0") + number // 50, IPv4Address("10.2.0.1")
    return source.packed + target.packed + struct.pack("!HH", 20000 + number % 50, 443)


def wanted() -> bytes:
    """Return the 4-tuple of the packet that is selected."""
    return key(_WANTED)


def packets() -> dict[str, bytes]:
    """Return the packets by what they are. All have 200 bytes of payload behind an Ethernet header."""
    usual = (Nop(), Nop(), Timestamps(1, 2))
    mapping = Dss(data_ack=7, dsn=8, subflow_seq=1, data_length=len(_PAYLOAD))
    missed = key(FLOWS + 7)
    return {
        "selected": _tcp(wanted(), (*usual, mapping)),
        "missed": _tcp(missed, (*usual, mapping)),
        "plain": _tcp(missed, usual),
        "udp": _udp(missed),
    }


def _tcp(flow: bytes, options: tuple[Option, ...]) -> bytes:
    source, target, sport, dport = struct.unpack("!4s4sHH", flow)
    return build(
        src=IPv4Address(source),
        dst=IPv4Address(target),
        sport=sport,
        dport=dport,
        flags="A",
        options=options,
        payload=_PAYLOAD,
    )


def _udp(flow: bytes) -> bytes:
    source, target, sport, dport = struct.unpack("!4s4sHH", flow)
    datagram = struct.pack("!HHHH", sport, dport, 8 + len(_PAYLOAD), 0) + _PAYLOAD
    return build(src=IPv4Address(source), dst=IPv4Address(target), protocol=_UDP, transport=datagram)
