# SPDX-License-Identifier: Apache-2.0
"""TCP options: every way a block can be broken, every legal form of every MPTCP option, against a model.

The model is written after ``mptcp_get_options`` and ``mptcp_parse_option`` (net/mptcp/options.c), and after
RFC 6824 for version 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emptcp.packet.build import build
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
    MpTcpReset,
    RemoveAddress,
)
from emptcp.packet.tcp import Flag, Sack, Timestamps, WindowScale

pytestmark = pytest.mark.kernel

HEADER = 20
NOP, EOL, MPTCP = 1, 0, 30


@dataclass
class Model:
    """What the parser should find in a block."""

    at: dict[int, int]
    length: dict[int, int]
    repeated: set[int]
    walked: int = 0
    reason: str = "ok"
    timestamps: int = 0
    sack: int = 0
    window_scale: int = 0
    old: bool = False


def capable(raw: bytes, flags: int, payload: bool) -> bool:
    """MP_CAPABLE: the form is told by SYN, ACK and data."""
    version, length = raw[2] & 0xF, len(raw)
    if raw[3] & 0x5F != 1:
        return False
    if flags & Flag.SYN:
        return length == (4 if version and not flags & Flag.ACK else 12)
    return length in ((22, 24) if version and payload else (20,))


def dss(raw: bytes) -> bool:
    """DSS: as long as its flags say, or two bytes more."""
    ack = (4, 8)[raw[3] >> 1 & 1] if raw[3] & 1 else 0
    mapping = (10, 14)[raw[3] >> 3 & 1] if raw[3] & 4 else 0
    return len(raw) - 4 - ack - mapping in (0, 2)


def old_add_addr(raw: bytes) -> bool:
    """ADD_ADDR of version 0."""
    return (raw[2] & 0xF, len(raw)) in {(4, 8), (4, 10), (6, 20), (6, 22)}


def add_addr(raw: bytes) -> bool:
    """ADD_ADDR: an echo, an announcement with HMAC, or one of version 0."""
    if raw[2] & 1:
        return len(raw) in (8, 10, 20, 22)
    return len(raw) in (16, 18, 28, 30) or old_add_addr(raw)


def legal(raw: bytes, flags: int, payload: bool) -> bool:
    """Tell whether the kernel (or version 0) takes an MPTCP option."""
    if len(raw) < 3:
        return False
    # A DSS or MP_CAPABLE of three bytes has no flags; its length is legal for no flags.
    padded = raw + b"\0" if len(raw) == 3 else raw
    match raw[2] >> 4:
        case 0:
            return len(raw) > 3 and raw[2] & 0xF < 2 and capable(padded, flags, payload)
        case 1:
            return len(raw) in (12, 16, 24)
        case 2:
            return len(raw) > 3 and dss(padded)
        case 3:
            return add_addr(raw)
        case 4:
            return 4 <= len(raw) <= 11
        case 5:
            return len(raw) == 3
        case 6 | 7:
            return len(raw) == 12
        case 8:
            return len(raw) == 4 and bool(flags & Flag.RST)
    return False


def note(model: Model, at: int, raw: bytes, flags: int, payload: bool) -> None:
    """Take note of one option."""
    place = HEADER + at
    match raw[0], len(raw):
        case 8, 10:
            model.timestamps = place
        case 5, 10 | 18 | 26 | 34:
            model.sack = place
        case 3, 3:
            model.window_scale = place
        case 19 | 29, _:
            forbid(model, "signed")
        case 34, _ if flags & Flag.SYN:
            forbid(model, "syn_data")
        case 254, _ if flags & Flag.SYN and raw[2:4] == b"\xf9\x89":
            forbid(model, "syn_data")
    if raw[0] == MPTCP and len(raw) > 3 and raw[2] >> 4 == 0 and raw[2] & 0xF > 1:
        forbid(model, "bad_version")
    if raw[0] == MPTCP and legal(raw, flags, payload):
        subtype = raw[2] >> 4
        if subtype in model.at:
            model.repeated.add(subtype)
        model.at[subtype], model.length[subtype] = place, len(raw)
        model.old |= (subtype == 0 and raw[2] & 0xF == 0) or (subtype == 3 and old_add_addr(raw))


def forbid(model: Model, reason: str) -> None:
    """The first reason stands."""
    if model.reason == "ok":
        model.reason = reason


def expected(block: bytes, flags: int, payload: bool) -> Model:
    """Walk a block as the kernel does."""
    model = Model({}, {}, set())
    if flags & Flag.SYN and payload:
        model.reason = "syn_data"
    at = 0
    while at < len(block) and block[at] != EOL:
        length = 1
        if block[at] != NOP:
            length = block[at + 1] if at + 1 < len(block) else 0
            if length < 2 or at + length > len(block):
                break
            note(model, at, block[at : at + length], flags, payload)
        at += length
    model.walked = at
    return model


def check(parse: Any, block: bytes, flags: str = "A", payload: bytes = b"", family: Any = 4) -> Any:
    """Parse a packet with this block, compare all with the model, return what was parsed."""
    padded = block + b"\0" * (-len(block) % 4)
    parsed = parse(build(family=family, options=[padded], flags=flags, payload=payload))
    model = expected(padded, Flag.of(flags), bool(payload))
    found = parsed.found
    assert parsed.tcp
    assert parsed.reason == model.reason
    assert parsed.subtypes == set(model.at)
    assert {n for n in range(16) if found.repeated >> n & 1} == model.repeated
    assert {n: found.at[n] for n in range(16) if found.at[n]} == model.at
    assert {n: found.len[n] for n in range(16) if found.len[n]} == model.length
    assert found.options_len == model.walked
    assert (found.timestamps, found.sack) == (model.timestamps, model.sack)
    assert found.window_scale == model.window_scale
    assert bool(found.flags & 1) == bool(model.at)
    assert bool(found.flags & 0x20) == model.old
    return parsed


KEY, TOKEN = 0x1122334455667788, 0xCAFEBABE
V4, V6 = IPv4Address("10.9.8.7"), IPv6Address("fd00::9")
HMAC8 = b"hmachmac"

# An option, the flags it comes with, whether data does.
FORMS = [
    (MpCapable(), "S", False),
    (MpCapable(sender_key=KEY), "SA", False),
    (MpCapable(sender_key=KEY, receiver_key=KEY), "A", False),
    (MpCapable(sender_key=KEY, receiver_key=KEY, data_length=9), "A", True),
    (MpCapable(sender_key=KEY, receiver_key=KEY, data_length=9, checksum=1), "A", True),
    (MpCapable(sender_key=KEY, version=0), "S", False),
    (MpCapable(sender_key=KEY, version=0), "SA", False),
    (MpCapable(sender_key=KEY, receiver_key=KEY, version=0), "A", False),
    (MpCapable(sender_key=KEY, receiver_key=KEY, version=0), "A", True),
    (MpJoinSyn(TOKEN, 1), "S", False),
    (MpJoinSynAck(HMAC8, 1), "SA", False),
    (MpJoinAck(bytes(20)), "A", False),
    *[
        (Dss(ack, dsn, checksum=check_, wide_ack=wide_ack, wide_dsn=wide_dsn), "A", dsn is not None)
        for ack in (None, 5)
        for dsn in (None, 6)
        for check_ in ((None, 7) if dsn else (None,))
        for wide_ack in ((True, False) if ack else (True,))
        for wide_dsn in ((True, False) if dsn else (True,))
    ],
    (Dss(5, 6, data_fin=True), "A", False),
    (Dss(5, 6, stray_flags=0xE0), "A", True),
    (Dss(5, None, stray_flags=0x08), "A", True),
    (Dss(None, 6, stray_flags=0x02), "A", True),
    *[
        (AddAddress(1, address, port, hmac, echo=hmac is None), "A", False)
        for address in (V4, V6)
        for port in (None, 443)
        for hmac in (HMAC8, None)
    ],
    *[(AddAddress(1, address, port, version=0), "A", False) for address in (V4, V6) for port in (None, 443)],
    *[(RemoveAddress(tuple(range(count))), "A", False) for count in range(1, 9)],
    (MpPrio(True), "A", False),
    (MpPrio(False), "A", True),
    (MpFail(KEY), "A", False),
    (MpFastclose(KEY), "A", False),
    (MpTcpReset(1), "R", False),
    (MpTcpReset(1), "RA", False),
    *[(AddAddress(0, IPv4Address(a), None, HMAC8), "A", False) for a in ("127.0.0.1", "0.0.0.0")],
    (AddAddress(2, IPv6Address("::ffff:1.2.3.4"), 0, HMAC8), "A", False),
]


@pytest.mark.parametrize(("option", "flags", "data"), FORMS, ids=str)
def test_every_legal_form_of_every_option_is_found(parse: Any, option: Any, flags: str, data: bool) -> None:
    parsed = check(parse, option.encode(), flags, b"data" if data else b"")
    assert parsed.subtypes == {option.subtype}


@pytest.mark.parametrize("change", [-1, 1])
@pytest.mark.parametrize(("option", "flags", "data"), FORMS, ids=str)
def test_an_option_one_byte_off_is_ignored_and_its_neighbour_is_not(
    parse: Any, option: Any, flags: str, data: bool, change: int
) -> None:
    raw = option.encode()
    wrong = bytes((raw[0], len(raw) + change)) + (raw + b"\0")[2 : len(raw) + change]
    other = MpPrio(True) if option.subtype != 5 else RemoveAddress((1,))
    found = check(parse, wrong + other.encode(), flags, b"data" if data else b"").subtypes
    # REMOVE_ADDR has eight lengths in a row.
    also = {4} if option.subtype == 4 and 4 <= len(wrong) <= 11 else set()
    assert found == {other.subtype} | also


@pytest.mark.parametrize("subtype", range(9, 16))
def test_unknown_subtypes_are_ignored(parse: Any, subtype: int) -> None:
    unknown = bytes((MPTCP, 12, subtype << 4)) + bytes(9)
    assert check(parse, unknown + MpPrio(True).encode()).subtypes == {5}


@pytest.mark.parametrize("length", [2, 3])
def test_options_too_short_for_a_subtype_are_ignored(parse: Any, length: int) -> None:
    short = bytes((MPTCP, length, 0x20))[:length]
    assert check(parse, short + MpPrio(True).encode()).subtypes == {5}


@pytest.mark.parametrize(
    ("block", "walked"),
    [
        (b"\x1e\x00" + MpPrio(True).encode(), 0),
        (b"\x1e\x01" + MpPrio(True).encode(), 0),
        (b"\x05\xff" + MpPrio(True).encode(), 0),
        (b"\x1e\x09" + MpPrio(True).encode() + b"\x01", 0),
        (b"\x01\x01\x01\x1e", 3),
        (b"\x01\x01\x01\x08", 3),
        (b"\x00" + MpPrio(True).encode(), 0),
        (b"\x01\x00\x00\x00" + MpPrio(True).encode() + b"\x01", 1),
        (b"\x01" * 40, 40),
        (b"\x01" * 37 + MpPrio(True).encode(), 40),
        (b"\x01\x04\x02" * 13 + b"\x01", 40),
        (b"\x01\x1e\x02" * 12 + b"\x01" + MpPrio(True).encode(), 40),
        (b"\x04\x02" * 20, 40),
        (MpPrio(True).encode() + b"\x00" + b"\x01" * 8, 3),
    ],
    ids=lambda value: value.hex() if isinstance(value, bytes) else "",
)
def test_the_walk_stops_where_the_kernel_stops(parse: Any, block: bytes, walked: int) -> None:
    assert check(parse, block, payload=b"\x1e\x03\x51" * 20).found.options_len == walked


@pytest.mark.parametrize(
    ("options", "subtypes"),
    [
        ([Dss(1), AddAddress(1, V4, None, HMAC8)], {2, 3}),
        ([Dss(1), MpPrio(True)], {2, 5}),
        ([MpFail(1), MpTcpReset(1)], {6, 8}),
        ([MpFastclose(1), MpTcpReset(1)], {7, 8}),
        ([MpTcpReset(1), Timestamps(1, 2), MpFastclose(1), RemoveAddress((1, 2))], {4, 7, 8}),
    ],
)
def test_several_mptcp_options_are_all_found(parse: Any, options: Any, subtypes: set[int]) -> None:
    block = b"".join(option.encode() for option in options)
    assert check(parse, block, "RA").subtypes == subtypes


def test_of_two_with_one_subtype_the_last_counts(parse: Any) -> None:
    block = RemoveAddress((1,)).encode() + MpPrio(True).encode() + RemoveAddress((2, 3)).encode()
    found = check(parse, block).found
    assert (found.at[4], found.len[4], found.repeated) == (27, 5, 1 << 4)


def test_an_illegal_one_behind_a_legal_one_is_no_repeat(parse: Any) -> None:
    block = MpPrio(True).encode() + MpPrio(True, address_id=3).encode()
    found = check(parse, block).found
    assert (found.at[5], found.repeated) == (20, 0)


@pytest.mark.parametrize("version", [2, 7, 15])
def test_an_unknown_version_is_left_alone(parse: Any, version: int) -> None:
    parsed = check(parse, MpCapable(version=version).encode(), "S")
    assert (parsed.subtypes, parsed.reason) == (set(), "bad_version")


def test_the_old_layout_under_the_new_version_is_ignored(parse: Any) -> None:
    assert check(parse, MpCapable(sender_key=KEY, version=1).encode(), "S").subtypes == set()


@pytest.mark.parametrize("flags", [0x00, 0x41, 0x81 | 0x40, 0x03, 0x21, 0x81])
def test_mp_capable_needs_the_known_algorithm_and_no_extension(parse: Any, flags: int) -> None:
    assert check(parse, MpCapable(flags=flags).encode(), "S").subtypes == (
        {0} if flags & 0x5F == 1 else set()
    )


def test_eight_bytes_of_add_addr_are_told_apart_by_the_last_bit(parse: Any) -> None:
    old, echo = AddAddress(1, V4, version=0).encode(), AddAddress(1, V4, echo=True).encode()
    assert len(old) == len(echo) == 8
    assert check(parse, old).found.flags & 0x20
    assert not check(parse, echo).found.flags & 0x20


@pytest.mark.parametrize("kind", [19, 29])
@pytest.mark.parametrize("length", [2, 4, 18])
def test_signed_segments_are_parsed_and_never_changed(parse: Any, kind: int, length: int) -> None:
    block = bytes((kind, length)) + bytes(length - 2) + MpPrio(True).encode()
    parsed = check(parse, block)
    assert (parsed.subtypes, parsed.reason) == ({5}, "signed")


@pytest.mark.parametrize("cookie", [b"\x22\x02", b"\x22\x0a" + bytes(8), b"\xfe\x04\xf9\x89"])
def test_fast_open_on_a_syn_is_parsed_and_never_changed(parse: Any, cookie: bytes) -> None:
    parsed = check(parse, cookie + MpCapable().encode(), "S")
    assert (parsed.subtypes, parsed.reason) == ({0}, "syn_data")
    assert check(parse, cookie, "A").reason == "ok"


def test_mp_tcprst_counts_beside_rst_only(parse: Any) -> None:
    assert check(parse, MpTcpReset(1).encode(), "A").subtypes == set()


@pytest.mark.parametrize("shift", range(40))
def test_an_option_may_begin_at_any_offset(parse: Any, shift: int) -> None:
    block = (b"\x01" * shift + MpPrio(True).encode())[:40]
    found = check(parse, block, payload=b"\x1e\x03\x51\x51").subtypes
    assert found == ({5} if shift <= 37 else set())


def raw_options() -> st.SearchStrategy[bytes]:
    """Whole options: legal forms, any kind with any length, MPTCP with any subtype."""
    any_kind = st.builds(
        lambda kind, value: bytes((kind, 2 + len(value))) + value,
        st.sampled_from([2, 3, 4, 5, 8, 19, 29, 30, 34, 77, 254]),
        st.binary(max_size=20),
    )
    forms = st.sampled_from([option.encode() for option, _, _ in FORMS])
    return st.one_of(forms, any_kind, st.just(b"\x01"), st.just(b"\x01\x01"), st.just(b"\x00"))


USUAL = b"\x01\x01" + Timestamps(1, 2).encode()
BLOCKS = st.one_of(
    st.binary(max_size=40),
    st.lists(raw_options(), max_size=12).map(lambda parts: b"".join(parts)[:40]),
    st.lists(raw_options(), max_size=6).map(
        lambda parts: (b"\x01\x01" + Timestamps(1, 2).encode() + b"".join(parts))[:40]
    ),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    block=BLOCKS,
    flags=st.sampled_from(["A", "S", "SA", "RA", "R", "FA", "PA"]),
    payload=st.sampled_from([b"", b"x", b"\x1e\x03\x51" * 15]),
    family=st.sampled_from([4, 6]),
)
def test_any_block_is_read_as_the_kernel_reads_it(
    parse: Any, block: bytes, flags: str, payload: bytes, family: int
) -> None:
    check(parse, block, flags, payload, family)


@pytest.mark.parametrize("flags", range(32))
def test_a_dss_behind_timestamps_is_judged_like_any_other(parse: Any, flags: int) -> None:
    for length in range(32):
        option = bytes((MPTCP, length, 0x20, flags)) + bytes(max(0, length - 4))
        for behind in (b"", b"\x01\x01", option):
            check(parse, (USUAL + option + behind)[:40])


def test_all_option_kinds_have_their_places(parse: Any) -> None:
    block = WindowScale(7).encode() + Timestamps(1, 2).encode() + Sack(((1, 2),)).encode()
    found = check(parse, block).found
    assert (found.window_scale, found.timestamps, found.sack) == (20, 23, 33)
