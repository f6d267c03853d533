# SPDX-License-Identifier: Apache-2.0
"""The packets that a policy is tried with, as Ethernet frames: like one that was heard, and right."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from emptcp.packet.build import build
from emptcp.packet.decode import Decoded, decode
from emptcp.packet.mptcp import Dss, MpCapable
from emptcp.packet.tcp import Flag, Kind, Option

MOST_PAYLOAD = 1000
"""Bytes of payload that a trial is given; the kernel takes no packet for one that is longer than a page."""

_VALUES_BEGIN = 4
"""Bytes of an option that say what it is: kind, length, of MPTCP's the subtype and the flags."""

_KEYS = 0x6B6579206F6E6521, 0x6B65792074776F21
"""Of the two ends of a connection."""


def alike(packet: bytes) -> Iterator[bytes]:
    """Yield right packets like one that was heard, from its IP header on: as it is, and with other numbers.

    What an actor wrote without a word to the checksum may stand in what was heard. Written into the first
    once more it changes nothing, and into the second something.
    """
    found = decode(packet, "none")
    if found.tcp is None or found.ip is None:
        return
    payload = found.payload[:MOST_PAYLOAD]
    tcp, ends, flags = found.tcp, _ends(found), int(found.tcp.flags)
    as_it_is: dict[str, Any] = {"seq": tcp.seq, "ack": tcp.ack, "window": tcp.window}
    yield build(**ends, **as_it_is, flags=flags, options=[tcp.block], payload=payload)
    others: dict[str, Any] = {"seq": ~tcp.seq, "ack": ~tcp.ack & 0xFFFFFFFF, "window": ~tcp.window & 0xFFFF}
    yield build(**ends, **others, flags=flags, options=[_others(found)], payload=_inverted(payload))


def handshake(packet: bytes, answers: bool) -> Iterator[bytes]:
    """Yield the SYN and the SYN/ACK of an MPTCP connection between the ends of a packet that was heard.

    ``answers``: in the other direction.
    """
    yield from _of_mptcp(packet, answers, "S", [MpCapable()])
    yield from _of_mptcp(packet, answers, "SA", [MpCapable(_KEYS[0])])


def first(packet: bytes, answers: bool) -> Iterator[bytes]:
    """Yield what comes first behind a handshake, as Linux sends it: with the keys or mapped, and the ACKs."""
    payload = decode(packet, "none").payload[:MOST_PAYLOAD]
    for option in (MpCapable(*_KEYS), Dss(data_ack=1)):
        yield from _of_mptcp(packet, answers, "A", [option])
    for option in (MpCapable(*_KEYS, len(payload)), _mapping(payload)):
        yield from _of_mptcp(packet, answers, "PA", [option], payload)


def established(packet: bytes) -> Iterator[bytes]:
    """Yield an ACK and data with a DSS, in both directions between the ends of a packet that was heard."""
    data = b"data"
    for answers in (False, True):
        yield from _of_mptcp(packet, answers, "A", [Dss(data_ack=1)])
        yield from _of_mptcp(packet, answers, "PA", [_mapping(data)], data)


def _mapping(data: bytes) -> Dss:
    return Dss(data_ack=1, dsn=1, subflow_seq=1, data_length=len(data))


def _of_mptcp(
    packet: bytes, answers: bool, flags: str, options: Sequence[Option], payload: bytes = b""
) -> Iterator[bytes]:
    found = decode(packet, "none")
    if found.tcp is None or found.ip is None:
        return
    tcp, times = found.tcp, [one.raw for one in found.tcp.options if one.kind == Kind.TIMESTAMPS]
    yield build(
        **_ends(found, answers),
        seq=tcp.ack if answers else tcp.seq,
        ack=0 if Flag.of(flags) == Flag.SYN else tcp.seq if answers else tcp.ack,
        window=tcp.window,
        flags=flags,
        options=[*(b"\1\1" + one for one in times), *options],
        payload=payload,
    )


def _ends(found: Decoded, answers: bool = False) -> dict[str, Any]:
    assert found.ip is not None
    assert found.tcp is not None
    source, target = (found.ip.src, found.tcp.sport), (found.ip.dst, found.tcp.dport)
    if answers:
        source, target = target, source
    (src, sport), (dst, dport) = source, target
    return {"family": src.version, "src": src, "dst": dst, "sport": sport, "dport": dport}


def _others(found: Decoded) -> bytes:
    """Return the options with other values: each is of the kind and the length that it was."""
    assert found.tcp is not None
    block = bytearray(found.tcp.block)
    for one in found.tcp.options:
        begin, end = one.offset + _VALUES_BEGIN, one.offset + len(one.raw)
        block[begin:end] = _inverted(bytes(block[begin:end]))
    return bytes(block)


def _inverted(data: bytes) -> bytes:
    return bytes(byte ^ 0xFF for byte in data)
