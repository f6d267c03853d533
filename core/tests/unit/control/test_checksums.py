# SPDX-License-Identifier: Apache-2.0
"""When a TCP checksum is wrong, and when that is somebody's doing here."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Literal

import pytest

from emptcp.control import streaks
from emptcp.control.checksums import LONGEST, Checksums, is_right
from emptcp.control.streaks import Ends
from emptcp.packet import checksum
from emptcp.packet.build import build
from emptcp.packet.decode import decode

ENDS: Ends = (ip_address("10.0.0.1"), 4000), (ip_address("10.0.0.2"), 443)

# A packet that passes: in or out, right or wrong.
Passing = tuple[Literal["in", "out"], bool]
IN, OUT, BAD_IN, BAD_OUT = ("in", True), ("out", True), ("in", False), ("out", False)


def told(*passing: Passing, step: float = 0.1) -> list[bool]:
    known = Checksums()
    return [
        known.spoilt(number * step, way, ENDS, right, way == "out")
        for number, (way, right) in enumerate(passing)
    ]


def test_what_comes_right_and_goes_wrong_three_times_tells_once() -> None:
    assert told(*[IN, BAD_OUT] * 4) == [False] * 5 + [True, False, False]


def test_what_this_host_sends_wrong_tells_without_anything_before() -> None:
    assert told(*[BAD_OUT] * 4) == [False, False, True, False]


def test_what_came_wrong_goes_wrong_and_nobody_here_is_to_blame() -> None:
    assert not any(told(*[BAD_IN, BAD_OUT] * 6))


def test_what_was_right_on_the_way_out_and_is_wrong_now_tells_although_it_seems_to_come_so() -> None:
    """A program before the place where packets are heard, as XDP is: they come in wrong already."""
    assert told(OUT, *[BAD_IN, BAD_OUT] * 3)[-1]


def test_some_wrong_ones_among_right_ones_are_a_lines_noise() -> None:
    assert not any(told(*[BAD_OUT, BAD_OUT, OUT] * 6))


def test_what_came_wrong_long_ago_excuses_nobody() -> None:
    assert told(BAD_IN, *[BAD_OUT] * 3, step=streaks.MEMORY + 1)[-1]


def test_what_can_not_be_told_tells_nothing() -> None:
    known = Checksums()
    assert not any(known.spoilt(0.0, "e", ENDS, None, True) for _ in range(9))


def spoil(packet: bytes, at: int) -> bytes:
    return packet[:at] + bytes((packet[at] ^ 1,)) + packet[at + 1 :]


@pytest.mark.parametrize(("family", "tcp"), [(4, 20), (6, 40)])
def test_a_checksum_that_is_filled_in_covers_every_byte(family: Literal[4, 6], tcp: int) -> None:
    packet = build(link="none", family=family, payload=b"data")
    assert is_right(decode(packet, "none"), filled=True)
    for at in (tcp + 14, tcp + 16, len(packet) - 1):
        assert is_right(decode(spoil(packet, at), "none"), filled=True) is False


@pytest.mark.parametrize(("family", "tcp"), [(4, 20), (6, 40)])
def test_one_that_is_not_is_the_sum_of_the_pseudo_header(family: Literal[4, 6], tcp: int) -> None:
    whole = build(link="none", family=family, payload=b"data" * 5000)
    found = decode(whole, "none")
    assert found.ip is not None
    pseudo = checksum.pseudo_header(found.ip.src.packed, found.ip.dst.packed, len(whole) - tcp)
    packet = whole[: tcp + 16] + checksum.ones_sum(pseudo).to_bytes(2, "big") + whole[tcp + 18 :]
    assert is_right(decode(packet, "none"), filled=False)
    assert is_right(decode(spoil(packet, tcp + 14), "none"), filled=False)  # the device sums that up
    assert is_right(decode(spoil(packet, tcp + 16), "none"), filled=False) is False


def test_a_long_packet_that_is_filled_in_may_be_a_merged_one() -> None:
    packet = build(link="none", payload=bytes(LONGEST))
    assert is_right(decode(spoil(packet, 36), "none"), filled=True) is None
    assert is_right(decode(spoil(packet, 36), "none"), filled=True, single=True) is False
    assert is_right(decode(packet, "none"), filled=True, single=True)


def test_what_seems_to_come_wrong_is_suspicious_three_times_in_a_row_once() -> None:
    known = Checksums()
    found = []
    for number, right in enumerate([False, False, True, None, *[False] * 5]):
        known.spoilt(number * 0.1, "e", ENDS, right, leaves=False)
        found.append(known.suspicious("e", ENDS, right))
    assert [number for number, told in enumerate(found) if told] == [6]
