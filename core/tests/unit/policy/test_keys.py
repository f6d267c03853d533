# SPDX-License-Identifier: Apache-2.0
"""Keys of sets and maps: written, packed, and written again."""

from __future__ import annotations

import ipaddress
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emptcp.errors import EmptcpError
from emptcp.policy.keys import FIELDS, KeyFormat

SUBFLOW = KeyFormat(["endpoint", "endpoint"], symmetric=True)
PAIR = KeyFormat(["ipaddr", "ipaddr"], symmetric=True)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).filter(
    lambda one: one.version == 4 or (one.ipv4_mapped is None and not one.scope_id)
)
PORTS = st.integers(1, 65535)


def network(address: Address, bits: int) -> str:
    most = 32 if address.version == 4 else 95
    return str(ipaddress.ip_network((address, bits % (most + 1)), strict=False))


def endpoint(address: Address, port: int) -> str:
    return f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}"


WRITTEN = {
    "endpoint": st.builds(endpoint, ADDRESSES, PORTS),
    "ipaddr": ADDRESSES.map(str),
    "prefix": st.builds(network, ADDRESSES, st.integers(0, 127)),
    "port": PORTS.map(str),
    "int": st.integers(0, 2**32 - 1).map(str),
    "token": st.integers(0, 2**32 - 1).map("0x{:08x}".format),
}
SIZES = {"endpoint": 18, "ipaddr": 16, "prefix": 20, "port": 2, "int": 4, "token": 4}


@given(
    data=st.data(),
    fields=st.lists(st.sampled_from([one for one in FIELDS if one != "prefix"]), min_size=1, max_size=3),
)
def test_any_key_is_written_again_as_it_was_read(data: st.DataObject, fields: list[str]) -> None:
    form = KeyFormat(fields)
    text = "-".join(data.draw(WRITTEN[field]) for field in fields)
    packed = form.pack(text)
    assert len(packed) == form.size == sum(SIZES[field] for field in fields)
    assert form.text(packed) == text


@given(WRITTEN["prefix"])
def test_any_prefix_is_written_again_as_it_was_read(text: str) -> None:
    form = KeyFormat(["prefix"])
    packed = form.pack(text)
    network = ipaddress.ip_network(text)
    assert int.from_bytes(packed[:4], sys.byteorder) == network.prefixlen + (
        96 if network.version == 4 else 0
    )
    assert packed[4:].endswith(network.network_address.packed)
    assert form.text(packed) == text
    assert form.is_prefix


@given(WRITTEN["endpoint"], WRITTEN["endpoint"])
def test_a_symmetric_key_is_the_same_from_both_ends(one: str, other: str) -> None:
    packed = SUBFLOW.pack(f"{one}-{other}")
    assert packed == SUBFLOW.pack(f"{other}-{one}")
    assert packed[:18] <= packed[18:]
    assert SUBFLOW.text(packed) in (f"{one}-{other}", f"{other}-{one}")
    assert SUBFLOW.pack(SUBFLOW.text(packed)) == packed


def test_bytes_are_those_that_the_packet_has() -> None:
    assert SUBFLOW.pack("10.0.0.2:443-10.0.0.1:4000").hex() == (
        "00" * 10 + "ffff0a000001" + "0fa0" + "00" * 10 + "ffff0a000002" + "01bb"
    )
    assert PAIR.pack("fd00::1-::1").hex() == "00" * 15 + "01" + "fd" + "00" * 14 + "01"
    assert KeyFormat(["ipaddr"]).pack("::ffff:10.0.0.1") == KeyFormat(["ipaddr"]).pack("10.0.0.1")


@pytest.mark.parametrize(
    ("fields", "text", "sentence"),
    [
        (["endpoint"], "10.0.0.1", "is no endpoint"),
        (["endpoint"], "fd00::1:443", "is no endpoint"),
        (["endpoint"], "10.0.0.1:0", "'0' is no port"),
        (["endpoint"], "[10.0.0.999]:1", "is no ipaddr"),
        (["ipaddr"], "fe80::1%eth0", "has a scope"),
        (["ipaddr"], "10.0.0.01", "is no ipaddr"),
        (["ipaddr"], "10.0.0.1\0", "is no ipaddr"),
        (["ipaddr", "ipaddr"], "10.0.0.1", "is no such key\nWrite it as in 10.0.0.1-10.0.0.1."),
        (["prefix"], "10.0.0.1/8", "did you mean '10.0.0.0/8'?"),
        (["int"], "-1", "is no such key"),
        (["int"], "4294967296", "does not fit into 32 bits"),
        (["port"], "", "'' is no port"),
    ],
)
def test_what_is_no_key_is_refused_in_a_sentence(fields: list[str], text: str, sentence: str) -> None:
    with pytest.raises(EmptcpError) as caught:
        KeyFormat(fields).pack(text)
    assert sentence in str(caught.value)


@given(st.text(max_size=30), st.sampled_from(FIELDS))
def test_no_text_breaks_a_key(text: str, field: str) -> None:
    form = KeyFormat([field])
    try:
        packed = form.pack(text)
    except EmptcpError:
        return
    assert form.pack(form.text(packed)) == packed


@pytest.mark.parametrize(
    ("fields", "symmetric", "sentence"),
    [
        ([], False, "it has no fields"),
        (["endpoin"], False, "did you mean 'endpoint'?"),
        (["prefix", "int"], False, "a prefix is looked up alone"),
        (["ipaddr", "port"], True, "halves of a symmetric key"),
        (["ipaddr"], True, "halves of a symmetric key"),
        (["endpoint"] * 4, False, "its fields have 72 bytes\nAt most 64"),
    ],
)
def test_fields_that_make_no_key_are_refused(fields: list[str], symmetric: bool, sentence: str) -> None:
    with pytest.raises(EmptcpError) as caught:
        KeyFormat(fields, symmetric)
    assert sentence in str(caught.value)
