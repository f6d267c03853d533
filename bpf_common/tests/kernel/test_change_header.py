# SPDX-License-Identifier: Apache-2.0
"""Rewriting the TCP header in place, and capping the window."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from emptcp.chain import reasons
from emptcp.packet.build import build
from emptcp.packet.checksum import tcp_checksum
from emptcp.packet.decode import decode
from emptcp.packet.mptcp import Dss, MpTcpReset
from emptcp.packet.tcp import Timestamps

pytestmark = pytest.mark.kernel

IP4 = 34
TS = b"\x01\x01" + Timestamps(11, 12).encode()
DSS = Dss(1, 2).encode()


def error_of(packet: bytes) -> int:
    """Return how far a packet's (IPv4, no options) TCP checksum is off (0: right)."""
    seen = decode(packet)
    assert seen.tcp is not None
    right = tcp_checksum(packet[26:30], packet[30:34], packet[IP4:])
    return (seen.tcp.checksum - right) % 0xFFFF


@pytest.mark.parametrize("at", [4, 5, 6, 7, 8, 9, 10, 14, 18])
@pytest.mark.parametrize("payload", [b"", b"odd", b"even"])
def test_header_fields_are_rewritten(change: Any, at: int, payload: bytes) -> None:
    packet = build(options=[TS, DSS], payload=payload)
    changed = change(packet, "rewrite", number=IP4 + at, data=b"\xab\xcd")
    assert changed.done, changed.reason
    assert decode(changed.packet).valid
    wanted = packet[: IP4 + at] + b"\xab\xcd" + packet[IP4 + at + 2 :]
    check = slice(IP4 + 16, IP4 + 18)
    assert changed.packet == wanted[: check.start] + changed.packet[check] + wanted[check.stop :]


@pytest.mark.parametrize("at", [0, 1, 2, 3, 11, 12, 15, 16, 17])
def test_ports_length_and_checksum_are_not_rewritten(change: Any, at: int) -> None:
    packet = build(options=[TS, DSS])
    changed = change(packet, "rewrite", number=IP4 + at, data=b"\xab\xcd")
    assert (changed.done, changed.reason, changed.packet) == (False, "unsafe", packet)


@pytest.mark.parametrize("at", [-2, -1, 19, 59, 60, 61, 30000])
def test_nothing_outside_of_the_header_is_rewritten(change: Any, at: int) -> None:
    packet = build(options=[TS, DSS], payload=b"payload")
    changed = change(packet, "rewrite", number=IP4 + at, data=b"\xab\xcd")
    assert not changed.done
    assert changed.packet == packet


@pytest.mark.parametrize("at", range(24, 28))
def test_timestamps_are_rewritten_at_any_offset(change: Any, at: int) -> None:
    packet = build(options=[TS, DSS], payload=b"payload")
    changed = change(packet, "rewrite_odd", number=IP4 + at, data=b"\x00\xff\x01\xfe\x80")
    assert changed.done, changed.reason
    assert decode(changed.packet).valid
    assert changed.packet[IP4 + at : IP4 + at + 5] == b"\x00\xff\x01\xfe\x80"
    assert changed.found.block[:38] == changed.packet[IP4 + 20 : IP4 + 58]


@pytest.mark.parametrize("at", [18, 20, 21, 22, 23, 28, 29, 30, 31])
def test_edges_of_options_are_not_rewritten(change: Any, at: int) -> None:
    packet = build(options=[TS, DSS], payload=b"payload")
    changed = change(packet, "rewrite_odd", number=IP4 + at, data=b"\xaa\xbb\xcc\xdd\xee")
    assert not changed.done
    assert changed.packet == packet


def test_flags_are_known_after_their_rewrite(change: Any) -> None:
    packet = build(options=[TS])
    changed = change(packet, "rewrite", number=IP4 + 13, data=bytes((0x11, 0x01)))
    assert changed.done
    assert (changed.found.tcp_flags, changed.found.flags & 2) == (0x11, 0)
    back = change(changed.packet, "rewrite", number=IP4 + 13, data=packet[IP4 + 13 : IP4 + 15])
    assert (back.found.tcp_flags, back.found.flags & 2) == (0x10, 2)
    assert back.packet == packet


@pytest.mark.parametrize(
    ("window", "scale", "cap", "expected"),
    [
        (500, 0, 100, 100),
        (500, 3, 800, 100),
        (500, 3, 807, 100),
        (500, 14, 100 << 14, 100),
        (500, 7, 500 << 7, 500),
        (500, 7, 501 << 7, 500),
        (500, 7, 4_000_000_000, 500),
        (500, 7, 127, 1),
        (500, 7, 0, 1),
        (0, 7, 128, 0),
        (0, 7, 0, 0),
        (65535, 10, 24 * 1024, 24),
    ],
)
@pytest.mark.parametrize("family", [4, 6])
def test_the_window_is_capped_and_never_raised(
    change: Any, family: Any, window: int, scale: int, cap: int, expected: int
) -> None:
    packet = build(family=family, options=[TS, DSS], window=window, payload=b"odd")
    changed = change(packet, "cap", number=cap, scale=(scale + 1, 0))
    seen = decode(changed.packet)
    assert changed.done
    assert seen.valid
    assert seen.tcp is not None
    assert seen.tcp.window == expected
    assert (changed.packet == packet) == (window == expected)


def test_the_scale_is_that_of_the_sender(change: Any) -> None:
    there, back = build(window=500), build(src="10.0.0.2", dst="10.0.0.1", window=500)
    for packet, expected in ((there, 100), (back, 25)):
        window = decode(change(packet, "cap", number=800, scale=(4, 6)).packet).tcp
        assert window is not None
        assert window.window == expected


def test_which_options_are_legal_is_known_after_a_rewrite_of_the_flags(change: Any) -> None:
    packet = build(flags="R", options=[MpTcpReset(1)])
    assert change(packet, "nothing").found.subtypes == 1 << 8
    changed = change(packet, "rewrite", number=IP4 + 13, data=b"\x10\x02")
    assert (changed.done, changed.found.subtypes) == (True, 0)
    cookie = build(options=[b"\x22\x02"])
    changed = change(cookie, "rewrite", number=IP4 + 13, data=b"\x02\x02")
    assert (changed.done, reasons.name(changed.found.no_modify)) == (True, "syn_data")


@pytest.mark.parametrize(("payload", "forbidden"), [(b"", 0), (b"x", 8)])
def test_what_becomes_a_syn_with_data_is_left_alone_from_then_on(
    change: Any, payload: bytes, forbidden: int
) -> None:
    packet = build(options=[TS, DSS], payload=payload)
    changed = change(packet, "rewrite", number=IP4 + 13, data=b"\x02")
    assert changed.done
    assert changed.found.no_modify == forbidden


@pytest.mark.parametrize("flags", ["S", "SA"])
def test_a_syn_keeps_its_window(change: Any, flags: str) -> None:
    packet = build(flags=flags, window=500)
    assert change(packet, "cap", number=1, scale=(1, 1)).packet == packet


@pytest.mark.parametrize("scale", [0, 16, 255])
def test_without_a_scale_the_window_stays(change: Any, scale: int) -> None:
    packet = build(window=500)
    changed = change(packet, "cap", number=1, scale=(scale, 5))
    assert (changed.done, changed.reason, changed.packet) == (False, "unknown_state", packet)


def test_a_signed_segment_keeps_its_window(change: Any) -> None:
    packet = build(window=500, options=[b"\x13\x12" + bytes(16)])
    changed = change(packet, "cap", number=1, scale=(1, 1))
    assert (changed.done, changed.reason, changed.packet) == (False, "signed", packet)


@pytest.mark.parametrize("wrong", [0x0000, 0x0001, 0x1234, 0x8000, 0xFFFE, 0xFFFF])
def test_a_wrong_checksum_stays_wrong_by_as_much(change: Any, wrong: int) -> None:
    packet = build(options=[TS, DSS], window=500, payload=b"some data", checksum=wrong)
    before = error_of(packet)
    jobs = (
        ("cap", {"number": 100, "scale": (1, 1)}),
        ("remove", {"number": 2, "unsafe": True}),
        ("rewrite", {"number": IP4 + 5, "data": b"\x12\x34"}),
        ("insert", {"data": b"\x63\x02"}),
    )
    for job, how in jobs:
        changed = change(packet, job, **how)
        assert changed.done, job
        assert changed.packet != packet
        assert error_of(changed.packet) == before, job


def test_a_wrong_checksum_survives_growing(change: Any) -> None:
    packet = build(options=[TS], checksum=0x4321)
    changed = change(packet, "insert", data=b"\x1e\x03\x51")
    assert error_of(changed.packet) == error_of(packet)


@pytest.mark.parametrize("value", range(0, 65536, 257))
def test_no_value_of_the_checksum_is_special(changers: Any, value: int) -> None:
    # The acknowledgement number is chosen so that the checksum takes every value, 0 and 0xffff among them.
    blank = build(seq=0, ack=0, window=500)
    base = decode(blank).tcp
    assert base is not None
    ack = (base.checksum - value) % 0xFFFF
    packet = build(seq=0, ack=ack, window=500)
    results = [one(packet, "cap", number=value % 499 + 1, scale=(1, 1)).packet for one in changers]
    assert results[0] == results[1]
    assert decode(results[0]).valid


def test_ip_options_and_addresses_are_untouched(change: Any) -> None:
    packet = build(ip_options=b"\x07\x03\x04\x00", window=500, options=[TS])
    changed = change(packet, "cap", number=5, scale=(1, 1))
    assert changed.packet[:38] == packet[:38]
    assert struct.unpack_from("!H", changed.packet, 38 + 14)[0] == 5
