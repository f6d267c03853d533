# SPDX-License-Identifier: Apache-2.0
"""Every MPTCP option of both RFCs: what is written is read back, and wrong lengths are ignored."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emptcp.packet import mptcp
from emptcp.packet.mptcp import (
    AddAddress,
    Dss,
    MpCapable,
    MpFail,
    MpFastclose,
    MpJoinAck,
    MpJoinSyn,
    MpJoinSynAck,
    MpPrio,
    MptcpOption,
    MpTcpReset,
    RemoveAddress,
)


def bits(count: int) -> st.SearchStrategy[int]:
    return st.integers(0, 2**count - 1)


KEYS = st.tuples(bits(64), bits(64), bits(16), bits(16))
CAPABLE = st.builds(
    lambda parts, keys, flags, version: replace(MpCapable(*keys[:parts]), flags=flags, version=version),
    st.integers(0, 4),
    KEYS,
    bits(8),
    bits(4),
)
JOIN = st.one_of(
    st.builds(MpJoinSyn, bits(32), bits(32), bits(8), st.booleans(), bits(3)),
    st.builds(MpJoinSynAck, st.binary(min_size=8, max_size=8), bits(32), bits(8), st.booleans(), bits(3)),
    st.builds(MpJoinAck, st.binary(min_size=20, max_size=20), bits(12)),
)


@st.composite
def dss_options(draw: st.DrawFn) -> Dss:
    wide_ack, wide_dsn = draw(st.booleans()), draw(st.booleans())
    ack = draw(st.none() | bits(64 if wide_ack else 32))
    dsn = draw(st.none() | bits(64 if wide_dsn else 32))
    mapped = dsn is not None
    stray = 0xE0 | (0x02 if ack is None else 0) | (0x08 if dsn is None else 0)
    return Dss(
        data_ack=ack,
        dsn=dsn,
        subflow_seq=draw(bits(32)) if mapped else 0,
        data_length=draw(bits(16)) if mapped else 0,
        checksum=draw(st.none() | bits(16)),
        data_fin=draw(st.booleans()),
        wide_ack=wide_ack or ack is None,
        wide_dsn=wide_dsn or dsn is None,
        stray_flags=draw(bits(8)) & stray,
        reserved=draw(bits(4)),
    )


@st.composite
def address_options(draw: st.DrawFn) -> AddAddress:
    address = draw(bits(32).map(IPv4Address) | bits(128).map(IPv6Address))
    identifier, port = draw(bits(8)), draw(st.none() | bits(16))
    form = draw(st.sampled_from(("announce", "echo", "v0")))
    if form == "v0":
        return AddAddress(identifier, address, port, version=0)
    hmac = draw(st.binary(min_size=8, max_size=8)) if form == "announce" else None
    return AddAddress(identifier, address, port, hmac, form == "echo", reserved=draw(bits(3)))


OPTIONS: st.SearchStrategy[MptcpOption] = st.one_of(
    CAPABLE,
    JOIN,
    dss_options(),
    address_options(),
    st.builds(RemoveAddress, st.lists(bits(8), min_size=1, max_size=8).map(tuple), bits(4)),
    st.builds(MpPrio, st.booleans(), st.none() | bits(8), bits(3)),
    st.builds(MpFail, bits(64), bits(12)),
    st.builds(MpFastclose, bits(64), bits(12)),
    st.builds(MpTcpReset, bits(8), bits(4)),
)


@given(OPTIONS)
def test_an_option_read_back_is_the_one_that_was_written(option: MptcpOption) -> None:
    raw = option.encode()
    assert raw[0] == mptcp.KIND
    assert raw[1] == len(raw) <= 40
    assert raw[2] >> 4 == option.subtype
    assert mptcp.decode(raw) == option


@given(st.integers(2, 40), st.binary(min_size=38, max_size=38))
def test_what_is_read_from_any_bytes_is_written_back_as_the_same_bytes(length: int, body: bytes) -> None:
    raw = bytes((mptcp.KIND, length)) + body[: length - 2]
    option = mptcp.decode(raw)
    assert option is None or option.encode() == raw


LEGAL = {
    0: {4, 12, 20, 22, 24},
    1: {12, 16, 24},
    4: set(range(4, 12)),
    5: {3, 4},
    6: {12},
    7: {12},
    8: {4},
}


@pytest.mark.parametrize("subtype", [0, 1, *range(4, 16)])
def test_only_the_lengths_of_the_rfcs_are_read(subtype: int) -> None:
    raw = {length: bytes((mptcp.KIND, length, subtype << 4)) + bytes(40) for length in range(2, 41)}
    read = {length for length in raw if mptcp.decode(raw[length][:length]) is not None}
    assert read == LEGAL.get(subtype, set())


@pytest.mark.parametrize("flags", range(256))
def test_a_dss_has_the_length_that_its_flags_ask_for_and_two_more_with_a_checksum(flags: int) -> None:
    ack = (8 if flags & 2 else 4) if flags & 1 else 0
    mapping = (14 if flags & 8 else 10) if flags & 4 else 0
    read = [
        length
        for length in range(3, 41)
        if mptcp.decode((bytes((mptcp.KIND, length, 0x20, flags)) + bytes(40))[:length]) is not None
    ]
    assert read == [4 + ack + mapping, 6 + ack + mapping]


# Low nibble of byte 2 -> lengths, by RFC 6824 (4 and 6 are the IP version) and RFC 8684 (bit 0 is the echo).
ADDRESS_LENGTHS = {
    0: {16, 18, 28, 30},
    1: {8, 10, 20, 22},
    4: {8, 10, 16, 18, 28, 30},
    6: {20, 22, 16, 18, 28, 30},
}


@pytest.mark.parametrize("nibble", sorted(ADDRESS_LENGTHS))
def test_add_addr_is_told_from_its_length_and_its_nibble(nibble: int) -> None:
    read = {
        length
        for length in range(3, 41)
        if mptcp.decode((bytes((mptcp.KIND, length, 0x30 | nibble)) + bytes(40))[:length]) is not None
    }
    assert read == ADDRESS_LENGTHS[nibble]


def test_eight_bytes_of_add_addr_are_an_announcement_in_v0_and_an_echo_in_v1() -> None:
    address = IPv4Address("192.0.2.1")
    old, echo = AddAddress(3, address, version=0), AddAddress(3, address, echo=True)
    assert (old.encode().hex(), echo.encode().hex()) == ("1e083403c0000201", "1e083103c0000201")
    assert mptcp.decode(old.encode()) == old
    assert mptcp.decode(echo.encode()) == echo


def test_the_forms_have_the_sizes_of_the_rfcs() -> None:
    v4, v6 = IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1")
    sizes: dict[MptcpOption, int] = {
        MpCapable(): 4,
        MpCapable(1): 12,
        MpCapable(1, 2): 20,
        MpCapable(1, 2, 3): 22,
        MpCapable(1, 2, 3, 4): 24,
        MpJoinSyn(1, 2): 12,
        MpJoinSynAck(bytes(8), 1): 16,
        MpJoinAck(bytes(20)): 24,
        Dss(data_ack=1, wide_ack=False): 8,
        Dss(data_ack=1): 12,
        Dss(data_ack=1, wide_ack=False, dsn=1): 22,
        Dss(data_ack=1, dsn=1): 26,
        Dss(data_ack=1, dsn=1, checksum=1): 28,
        AddAddress(1, v4, hmac=bytes(8)): 16,
        AddAddress(1, v4, 80, hmac=bytes(8)): 18,
        AddAddress(1, v6, hmac=bytes(8)): 28,
        AddAddress(1, v6, 80, hmac=bytes(8)): 30,
        RemoveAddress((1, 2)): 5,
        MpPrio(True): 3,
        MpPrio(True, 1): 4,
        MpFail(1): 12,
        MpFastclose(1): 12,
        MpTcpReset(): 4,
    }
    assert {option: len(option.encode()) for option in sizes} == sizes
