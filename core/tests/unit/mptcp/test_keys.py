# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
from ipaddress import IPv4Address, IPv6Address

import pytest

from emptcp.mptcp import keys

OURS, THEIRS = bytes(range(8)), bytes(range(8, 16))


@pytest.mark.parametrize("address", [IPv4Address("10.0.9.1"), IPv6Address("fd09::1")])
@pytest.mark.parametrize(("port", "told"), [(None, b"\0\0"), (443, b"\x01\xbb")])
def test_an_announcement_is_signed_over_id_address_and_port(
    address: IPv4Address | IPv6Address, port: int | None, told: bytes
) -> None:
    """RFC 8684 §3.4.1, by the general construction of RFC 2104."""
    key = (OURS + THEIRS).ljust(64, b"\0")
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in key) + b"\x07" + address.packed + told).digest()
    outer = hashlib.sha256(bytes(b ^ 0x5C for b in key) + inner).digest()
    assert keys.address_hmac(OURS, THEIRS, 7, address, port) == outer[-8:]
    assert keys.address_hmac(THEIRS, OURS, 7, address, port) != outer[-8:]
