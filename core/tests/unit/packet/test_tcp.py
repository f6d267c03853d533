# SPDX-License-Identifier: Apache-2.0
"""TCP option blocks are walked as the kernel walks them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emptcp.packet.mptcp import Dss, MpPrio
from emptcp.packet.tcp import (
    EndOfList,
    Flag,
    MaximumSegmentSize,
    Nop,
    Option,
    Other,
    Sack,
    SackPermitted,
    Timestamps,
    WindowScale,
    decode_option,
    encode_options,
    walk,
    walked_length,
)

WORD = st.integers(0, 2**32 - 1)
PLAIN: st.SearchStrategy[Option] = st.one_of(
    st.just(Nop()),
    st.builds(MaximumSegmentSize, st.integers(0, 0xFFFF)),
    st.builds(WindowScale, st.integers(0, 255)),
    st.just(SackPermitted()),
    st.builds(Sack, st.lists(st.tuples(WORD, WORD), min_size=1, max_size=4).map(tuple)),
    st.builds(Timestamps, WORD, WORD),
    st.builds(Other, st.sampled_from((19, 29, 34, 253)), st.binary(max_size=16)),
)
PRIO = MpPrio(True).encode()


@given(st.lists(PLAIN, max_size=6))
def test_a_block_read_back_has_the_options_that_were_written(options: list[Option]) -> None:
    block = encode_options(options)
    read = [placed.option for placed in walk(block)]
    assert len(block) % 4 == 0
    assert read[: len(options)] == options
    assert set(read[len(options) :]) <= {Nop()}


@given(st.binary(max_size=40))
def test_any_bytes_are_walked_within_their_bounds_and_in_one_piece(block: bytes) -> None:
    options = walk(block)
    assert b"".join(option.raw for option in options) == block[: walked_length(options)]
    assert all(placed.offset + placed.length <= len(block) for placed in options)


@pytest.mark.parametrize(
    ("block", "kinds"),
    [
        (b"\x01\x00" + PRIO, [1, 0]),
        (b"\x05\x00" + PRIO, []),
        (b"\x05\x01" + PRIO, []),
        (b"\x01\x05\x0a\x00", [1]),
        (b"\x01\x01\x01\x1e", [1, 1, 1]),
        (b"\x1e\x02" + PRIO, [30, 30]),
        (b"\x01" * 40, [1] * 40),
    ],
    ids=["EOL", "length 0", "length 1", "past the end", "kind alone", "MPTCP of 2", "40 NOPs"],
)
def test_the_walk_stops_where_the_kernel_stops(block: bytes, kinds: list[int]) -> None:
    assert [placed.kind for placed in walk(block)] == kinds


def test_options_of_a_wrong_length_are_listed_but_not_read() -> None:
    block = b"\x1e\x04\x51\x01" + b"\x1e\x05\x51\x01\x01" + b"\x1e\x03\x90" + PRIO
    assert [placed.valid_mptcp for placed in walk(block)] == [True, False, False, True]
    assert decode_option(b"\x02\x03\x05") == Other(2, b"\x05")


def test_places_count_from_the_first_option_byte() -> None:
    dss = Dss(data_ack=5)
    placed = walk(encode_options([Nop(), dss, EndOfList()]))
    assert [(one.offset, one.length) for one in placed] == [(0, 1), (1, 12), (13, 1)]
    assert placed[1].option == dss


def test_flags_are_read_from_letters() -> None:
    assert Flag.of("SA") == 0x12
    assert Flag.of("FSRPAUECN") == 0x1FF
    assert Flag.of("") == 0
