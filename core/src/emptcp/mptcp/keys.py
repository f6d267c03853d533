# SPDX-License-Identifier: Apache-2.0
"""What the two ends of a connection work out of their keys (RFC 6824 and RFC 8684, sections 3.1 and 3.2)."""

from __future__ import annotations

import hashlib
import hmac
from ipaddress import IPv4Address, IPv6Address

Address = IPv4Address | IPv6Address


def token(key: bytes, version: int) -> int:
    """Return the token by which the end with this key (8 bytes as on the wire) knows the connection."""
    return int.from_bytes(_hash(key, version)[:4], "big")


def initial_sequence(key: bytes, version: int) -> int:
    """Return the initial data sequence number (IDSN) of the end with this key: its data begins one later."""
    return int.from_bytes(_hash(key, version)[-8:], "big")


def address_hmac(ours: bytes, theirs: bytes, address_id: int, address: Address, port: int | None) -> bytes:
    """Return the 8 bytes by which an ADD_ADDR of the end with key ``ours`` is known to be its own.

    The rightmost 64 bits of HMAC-SHA256 over ID, address and port, 0 where none is told (RFC 8684, §3.4.1).
    """
    message = bytes((address_id,)) + address.packed + (port or 0).to_bytes(2, "big")
    return hmac.digest(ours + theirs, message, "sha256")[-8:]


def _hash(key: bytes, version: int) -> bytes:
    return (hashlib.sha256 if version else hashlib.sha1)(key).digest()
