# SPDX-License-Identifier: Apache-2.0
"""The Internet checksum against the definition, word by word, and against a real header."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from emptcp.packet import checksum as sums
from emptcp.packet.build import build


def _word_by_word(data: bytes) -> int:
    total = 0
    for at in range(0, len(data), 2):
        total += int.from_bytes(data[at : at + 2].ljust(2, b"\0"), "big")
        total = (total & 0xFFFF) + (total >> 16)
    return total


@given(st.binary(max_size=300))
def test_the_sum_equals_adding_words_with_end_around_carry(data: bytes) -> None:
    assert sums.ones_sum(data) == _word_by_word(data)


def test_a_header_from_a_textbook_has_the_checksum_printed_there() -> None:
    # The example of the encyclopedias: 192.168.0.1 to 192.168.0.199, UDP.
    header = bytes.fromhex("450000730000400040110000c0a80001c0a800c7")
    assert sums.checksum(header) == 0xB861


@given(st.integers(0, 0xFFFF), st.binary(min_size=2, max_size=60).filter(lambda data: any(data)))
def test_an_updated_checksum_equals_one_computed_anew(new: int, rest: bytes) -> None:
    # A header is never all zero, so that the two representations of zero do not come into play.
    rest += b"\0" * (len(rest) & 1)
    old = int.from_bytes(rest[:2], "big")
    tail = b"\x45\x00" + rest[2:]
    before = sums.checksum(rest[:2] + tail)
    assert sums.updated(before, old, new) == sums.checksum(new.to_bytes(2, "big") + tail)


@given(st.integers(1, 0xFFFE), st.integers(0, 0xFFFF))
def test_a_wrong_checksum_stays_wrong_when_updated(error: int, new: int) -> None:
    right = sums.checksum(b"\x45\x00\x00\x54\x12\x34")
    wrong = (right + error) % 0xFFFF
    assert sums.updated(wrong, 0x0054, new) != sums.updated(right, 0x0054, new)


def test_a_built_segment_is_right_and_one_flipped_bit_makes_it_wrong() -> None:
    packet = build(link="none", payload=b"odd")
    src, dst, segment = packet[12:16], packet[16:20], packet[20:]
    assert sums.tcp_checksum_right(src, dst, segment)
    assert not sums.tcp_checksum_right(src, dst, segment[:-1] + bytes((segment[-1] ^ 1,)))
