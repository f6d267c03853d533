# SPDX-License-Identifier: Apache-2.0
"""The fields that tshark shows for a TCP header and its options."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from emptcp.packet.tcp import Flag, Kind
from emptcp.trace.fields_mptcp import mptcp
from emptcp.trace.view import View

_TCP_FLAGS = {
    "tcp.flags.ae": 0x100,
    "tcp.flags.cwr": 0x080,
    "tcp.flags.ece": 0x040,
    "tcp.flags.urg": 0x020,
    "tcp.flags.ack": 0x010,
    "tcp.flags.push": 0x008,
    "tcp.flags.reset": 0x004,
    "tcp.flags.syn": 0x002,
    "tcp.flags.fin": 0x001,
}


def tcp(view: View) -> None:
    """Add the fields of a TCP segment, its options and its payload."""
    view.raw(0, 4)
    view.decimal("tcp.srcport", 0, 2)
    view.decimal("tcp.dstport", 2, 2)
    view.raw(0, 16)
    size = (view.number(12, 1) >> 4) * 4
    if size <= view.size:
        view.put("tcp.len", view.size - size)
    view.decimal("tcp.seq_raw", 4, 4)
    if size >= 20:
        view.decimal("tcp.ack_raw", 8, 4)
    view.put("tcp.hdr_len", size)
    if size >= 20:
        _rest(view, size)


def _rest(view: View, size: int) -> None:
    bits = view.hexadecimal("tcp.flags", 12, 2, 0xFFF)
    view.put("tcp.flags.res", bits >> 9 > 0)
    view.bits(bits, _TCP_FLAGS)
    view.decimal("tcp.window_size_value", 14, 2)
    view.hexadecimal("tcp.checksum", 16, 2)
    view.decimal("tcp.urgent_pointer", 18, 2)
    if size > 20:
        view.put("tcp.options", view.data[20:size].hex() or "<MISSING>")
        for option in _options(view, size):
            _option(option)
    # What comes with a reset is shown as the text of its cause.
    if view.size > size and not bits & Flag.RST:
        view.put("tcp.payload", view.data[size:].hex())


def _options(view: View, end: int) -> Iterator[View]:
    at = 20
    while at < end:
        kind = view.number(at, 1)
        if kind in (Kind.EOL, Kind.NOP):
            yield view.part(at, at + 1)
            at += 1
            # Zero bytes behind EOL are shown as more of it, anything else is not.
            if kind == Kind.EOL and any(view.data[at : at + 1]):
                return
            continue
        length = view.number(at + 1, 1) if at + 1 < end else 0
        if length < 2 or at + length > end:
            return
        yield view.part(at, at + length)
        at += length


def _option(view: View) -> None:
    kind = view.decimal("tcp.option_kind", 0, 1)
    if kind in (Kind.EOL, Kind.NOP):
        return
    view.decimal("tcp.option_len", 1, 1)
    if kind == Kind.MPTCP:
        mptcp(view)
    elif kind in _PLAIN:
        _PLAIN[kind](view)


def _mss(view: View) -> None:
    if view.size == 4:
        view.decimal("tcp.options.mss_val", 2, 2)


def _window_scale(view: View) -> None:
    if view.size == 3:
        view.decimal("tcp.options.wscale.shift", 2, 1)


def _timestamps(view: View) -> None:
    if view.size == 10:
        view.decimal("tcp.options.timestamp.tsval", 2, 4)
        view.decimal("tcp.options.timestamp.tsecr", 6, 4)


def _sack(view: View) -> None:
    # The edges are shown relative to the connection's start, which one packet can't tell.
    view.raw(2, view.size - 2)
    view.put("tcp.options.sack.count", (view.size - 2) // 8)
    # It looks for a duplicate in the first block even where there is none.
    view.raw(2, 8)


_PLAIN: dict[int, Callable[[View], None]] = {
    Kind.MSS: _mss,
    Kind.WINDOW_SCALE: _window_scale,
    Kind.TIMESTAMPS: _timestamps,
    Kind.SACK: _sack,
}
