# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st

from emptcp.hooks import rtnetlink

VALUES = st.dictionaries(st.integers(min_value=1, max_value=0x3FFF), st.binary(max_size=40), max_size=8)


@given(VALUES)
def test_attributes_are_read_as_they_were_written(values: dict[int, bytes]) -> None:
    data = b"".join(rtnetlink.attribute(kind, value) for kind, value in values.items())
    assert len(data) % 4 == 0
    assert rtnetlink.attributes(data) == values


@given(VALUES)
def test_nested_attributes_are_read_as_they_were_written(values: dict[int, bytes]) -> None:
    inner = [rtnetlink.attribute(kind, value) for kind, value in values.items()]
    assert rtnetlink.attributes(rtnetlink.attributes(rtnetlink.nested(2, *inner))[2]) == values


@given(st.binary(max_size=64))
def test_junk_ends_the_walk(data: bytes) -> None:
    rtnetlink.attributes(data)


def test_numbers_are_in_this_machines_order_and_absent_ones_are_zero() -> None:
    assert rtnetlink.number((70000).to_bytes(4, sys.byteorder)) == 70000
    assert rtnetlink.number(None) == 0
    assert rtnetlink.text(b"eth0\0\0") == "eth0"


def test_a_refusal_prefers_the_kernels_sentence() -> None:
    assert rtnetlink.NetlinkRefusal(22, "Exclusivity flag on").reason == "Exclusivity flag on"
    assert "EINVAL" in rtnetlink.NetlinkRefusal(22).reason
