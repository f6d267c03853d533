# SPDX-License-Identifier: Apache-2.0
"""The parameter types: text, Python value, bytes."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emptcp.errors import EmptcpError
from emptcp.policy import values
from emptcp.policy.model import Listing, Scalar
from emptcp.policy.values import Field

U8, U16, U32, U64 = (Field(0, size) for size in (1, 2, 4, 8))


def packed(kind: values.ValueType, text: str, field: Field) -> bytes:
    """Return the bytes that a written value is packed into."""
    return kind.pack(kind.parse(text), field, values.no_devices)


def number(kind: str, text: str, field: Field = U64, **settings: Any) -> int:
    """Return the whole number that a written value is packed into."""
    return int.from_bytes(
        packed(values.of(kind, **settings), text, field), sys.byteorder, signed=field.signed
    )


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("int", "5", 5),
        ("int", "-5", -5),
        ("int", "0x1F", 31),
        ("bool", "true", True),
        ("bool", "False", False),
        # tc(8), RATES: bits are decimal, bps are bytes per second, i means 1024.
        ("rate", "8bit", 1),
        ("rate", "10mbit", 1_250_000),
        ("rate", "1.5MBit", 187_500),
        ("rate", "5kbps", 5_000),
        ("rate", "1kibps", 1_024),
        ("rate", "1gibit", 2**30 // 8),
        ("rate", "0", 0),
        # tc(8), SIZES: k is 1024; kbit is 1024 bits.
        ("size", "1500", 1500),
        ("size", "1500b", 1500),
        ("size", "64k", 65_536),
        ("size", "1mb", 2**20),
        ("size", "8kbit", 1024),
        ("time", "20ms", 20_000_000),
        ("time", "1.5s", 1_500_000_000),
        ("time", "3usecs", 3_000),
        ("time", "2min", 120 * 10**9),
        ("percent", "5%", 50_000),
        ("percent", "0.01%", 100),
        ("percent", "100%", 1_000_000),
        ("port", "443", 443),
        ("dev", "wlp0s20f3", "wlp0s20f3"),
        ("string(5)", "ab cd", "ab cd"),
        ("string(2)", "é", "é"),
    ],
)
def test_a_value_is_read_as_it_is_written_in_tc(kind: str, text: str, value: object) -> None:
    assert values.of(kind).parse(text) == value


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        ("int", "5.0", "is no int"),
        ("int", "9" * 100, "is no int"),
        ("int", "", "is no int"),
        ("bool", "1", "is no bool"),
        ("rate", "10", "lacks its unit"),
        ("rate", "10mbits", "did you mean 'mbit'?"),
        ("rate", "-1mbit", "is no rate"),
        ("rate", "1bit", "too small"),
        ("rate", "1" * 30 + "bit", "is no rate"),
        ("size", "64q", "has no unit 'q'"),
        ("time", "20", "Write it as in 20ms"),
        ("time", "20 ms", "is no time"),
        ("percent", "101%", "over 100%"),
        ("percent", "5", "lacks its unit"),
        ("ipaddr", "10.0.0.1/32", "is no ipaddr"),
        ("ipaddr", "fe80::1%eth0", "has a scope"),
        ("prefix", "10.0.0.1/8", "did you mean '10.0.0.0/8'?"),
        ("prefix", "10.0.0.0/33", "is no prefix"),
        ("prefix", "fd00::/129", "is no prefix"),
        ("port", "0", "is no port"),
        ("port", "65536", "is no port"),
        ("port", "http", "is no port"),
        ("dev", "a/b", "is no dev"),
        ("dev", "a" * 16, "is no dev"),
        ("string(3)", "éé", "has 4 bytes"),
        ("string(3)", "\0", "is no string"),
        ("chain", "a b", "is no chain"),
    ],
)
def test_a_value_that_is_none_is_refused_in_one_sentence_with_a_fix(kind: str, text: str, words: str) -> None:
    with pytest.raises(EmptcpError) as caught:
        values.of(kind).parse(text)
    assert words in str(caught.value)
    assert caught.value.fix
    assert "\n" not in caught.value.sentence


def test_an_unknown_type_is_refused_with_a_hint() -> None:
    with pytest.raises(EmptcpError, match="did you mean 'percent'"):
        values.of("percnt")


def test_rates_are_bytes_per_second_unless_the_manifest_says_bits() -> None:
    assert number("rate", "10mbit") == 1_250_000
    assert number("rate", "10mbit", unit="bit") == 10_000_000


def test_a_time_is_packed_in_the_manifests_unit() -> None:
    assert [number("time", "20ms", unit=unit) for unit in ("", "ns", "us", "ms", "s")] == [
        20_000_000,
        20_000_000,
        20_000,
        20,
        0,
    ]


def test_addresses_are_packed_as_v6_mapped_ones() -> None:
    kind, field = values.of("ipaddr"), Field(0, 16)
    assert packed(kind, "10.0.0.1", field) == bytes(10) + b"\xff\xff\x0a\0\0\1"
    assert packed(kind, "fd00::1", field) == b"\xfd" + bytes(14) + b"\x01"


@pytest.mark.parametrize(
    ("text", "bits"),
    [("10.0.0.0/8", 104), ("10.1.2.3", 128), ("0.0.0.0/0", 96), ("fd00::/8", 8), ("::/0", 0)],
)
def test_the_bits_of_a_prefix_count_from_the_mapped_address(text: str, bits: int) -> None:
    whole = packed(values.of("prefix"), text, Field(0, 20))
    assert len(whole) == 20
    assert int.from_bytes(whole[16:], sys.byteorder) == bits


def test_flags_are_bits_or_several_bits() -> None:
    kind = values.of("flags", names={"us": 1, "peer": 2, "both": 3})
    assert [
        int.from_bytes(packed(kind, text, U32), sys.byteorder) for text in ("peer", "us|peer", "both")
    ] == [
        2,
        3,
        3,
    ]
    assert kind.read(Listing((Scalar("us"), Scalar("peer")))) == ("us", "peer")
    with pytest.raises(EmptcpError, match="did you mean 'peer'"):
        kind.parse("per")


def test_a_named_int_takes_its_names_only() -> None:
    kind = values.of("int", names={"low": -1, "high": 7})
    assert kind.parse("high") == 7
    assert kind.format(-1) == "low"
    with pytest.raises(EmptcpError, match="none of its values"):
        kind.parse("7")


def test_a_list_fills_an_array_from_its_start() -> None:
    kind = values.of("list(3)", item="port")
    value = kind.read(Listing((Scalar("80"), Scalar("443"))))
    assert value == (80, 443)
    field = Field(0, 2, count=3)
    assert kind.pack(value, field, values.no_devices) == b"".join(
        p.to_bytes(2, sys.byteorder) for p in (80, 443, 0)
    )
    with pytest.raises(EmptcpError, match="Write at most 3"):
        kind.read(Listing((Scalar("1"),) * 4))


def test_a_device_is_packed_as_its_ifindex() -> None:
    kind = values.of("dev")
    assert kind.pack("eth0", U32, {"eth0": 7}.__getitem__) == (7).to_bytes(4, sys.byteorder)
    with pytest.raises(EmptcpError, match="there is no device 'eth0'"):
        kind.pack("eth0", U32, values.no_devices)


def test_text_is_packed_with_zeros_behind_it() -> None:
    assert packed(values.of("string(4)"), "ab", Field(0, 1, count=8)) == b"ab" + bytes(6)


@pytest.mark.parametrize(
    ("field", "largest"), [(U8, 255), (U16, 65_535), (U32, 2**32 - 1), (Field(0, 1, 1, True), 127)]
)
def test_a_number_that_does_not_fit_its_member_is_refused(field: Field, largest: int) -> None:
    assert number("int", str(largest), field) == largest
    with pytest.raises(EmptcpError, match=f"does not fit into {field.size * 8} bits"):
        number("int", str(largest + 1), field)


@pytest.mark.parametrize(
    ("kind", "fits", "does_not"),
    [
        ("int", U32, Field(0, 4, count=2)),
        ("ipaddr", Field(0, 16), U64),
        ("prefix", Field(0, 20), Field(0, 16)),
        ("dev", U32, U16),
        ("string(4)", Field(0, 1, count=4), Field(0, 1, count=3)),
        ("list(4)", Field(0, 4, count=4), Field(0, 4, count=3)),
    ],
)
def test_a_type_knows_which_members_it_fits(kind: str, fits: Field, does_not: Field) -> None:
    assert values.of(kind).misfit(fits) == ""
    assert values.of(kind).misfit(does_not) != ""


@given(st.sampled_from(["int", "rate", "size", "time", "percent", "port"]), st.integers(0, 2**40))
def test_what_a_type_prints_it_reads_back(kind: str, value: int) -> None:
    limits = {"percent": 1_000_000, "port": 65_534}
    value = value % limits.get(kind, 2**41) + (kind == "port")
    assert values.of(kind).parse(values.of(kind).format(value)) == value


@given(st.sampled_from(values.TYPES[:10]), st.text(max_size=20))
def test_a_type_reads_any_text_or_refuses_it(kind: str, text: str) -> None:
    try:
        value = values.of(kind).parse(text)
    except EmptcpError:
        return
    assert values.of(kind).parse(values.of(kind).format(value)) == value
