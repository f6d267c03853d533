# SPDX-License-Identifier: Apache-2.0
"""What the two ends of a connection work out of their keys (RFC 6824 and RFC 8684, sections 3.1 and 3.2)."""

from __future__ import annotations

import hashlib


def token(key: bytes, version: int) -> int:
    """Return the token by which the end with this key (8 bytes as on the wire) knows the connection."""
    return int.from_bytes(_hash(key, version)[:4], "big")


def initial_sequence(key: bytes, version: int) -> int:
    """Return the initial data sequence number (IDSN) of the end with this key: its data begins one later."""
    return int.from_bytes(_hash(key, version)[-8:], "big")


def _hash(key: bytes, version: int) -> bytes:
    return (hashlib.sha256 if version else hashlib.sha1)(key).digest()
