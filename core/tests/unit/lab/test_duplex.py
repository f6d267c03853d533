# SPDX-License-Identifier: Apache-2.0
"""What a transfer sends, and how it is compared."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from emptcp.lab.duplex import CLIENT_START, SERVER_START, compare, content

SIZE = 300_000
SENT = content(SIZE, CLIENT_START)


def test_every_byte_value_stands_in_every_place_of_a_word() -> None:
    for place in range(4):
        assert set(SENT[place::4]) == set(range(256))


def test_the_two_directions_differ_everywhere() -> None:
    back = content(SIZE, SERVER_START)
    assert all(one != other for one, other in zip(SENT, back, strict=True))


def test_the_same_bytes_compare_equal() -> None:
    assert compare(SENT, content(SIZE, CLIENT_START)) == (0, None)


@given(at=st.integers(0, SIZE - 1), flip=st.integers(1, 255))
def test_one_changed_byte_is_found_at_its_offset(at: int, flip: int) -> None:
    got = bytearray(SENT[:4096])
    at %= len(got)
    got[at] ^= flip
    assert compare(bytes(got), SENT[:4096]) == (1, at)


@given(at=st.integers(0, 1000), length=st.integers(1, 50))
def test_a_piece_lost_moved_or_doubled_is_found(at: int, length: int) -> None:
    block = 256 * length
    sent = SENT[:20_000]
    lost = sent[:at] + sent[at + block :]
    doubled = sent[: at + block] + sent[at:-block]
    assert compare(lost, sent)[0] >= block
    assert compare(doubled, sent)[0] > 0


def test_what_is_missing_at_the_end_counts_as_wrong() -> None:
    assert compare(SENT[:-3], SENT) == (3, SIZE - 3)
    assert compare(b"", SENT) == (SIZE, 0)
