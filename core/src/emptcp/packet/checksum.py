# SPDX-License-Identifier: Apache-2.0
"""The Internet checksum (RFC 1071): of headers, of TCP segments with their pseudo-header, by increments."""

from __future__ import annotations

import struct

TCP = 6


def ones_sum(data: bytes) -> int:
    """Return the 16-bit one's complement sum of ``data``; an odd last byte is padded with zero."""
    # 2**16 is 1 modulo 0xffff, so the whole buffer read as one number has the same residue as its words' sum.
    total = int.from_bytes(data + b"\0" * (len(data) & 1), "big")
    return total % 0xFFFF or (0xFFFF if total else 0)


def checksum(data: bytes) -> int:
    """Return the Internet checksum of ``data``, as it stands in a header whose checksum field was zero."""
    return ones_sum(data) ^ 0xFFFF


def pseudo_header(src: bytes, dst: bytes, length: int, protocol: int = TCP) -> bytes:
    """Return the pseudo-header for addresses of 4 (RFC 9293 §3.1) or 16 bytes (RFC 8200 §8.1)."""
    tail = struct.pack("!BBH", 0, protocol, length) if len(src) == 4 else struct.pack("!II", length, protocol)
    return src + dst + tail


def tcp_checksum(src: bytes, dst: bytes, segment: bytes) -> int:
    """Return the checksum of a TCP segment (header and payload) whose own checksum field is taken as zero.

    ``src`` and ``dst`` are packed addresses, 4 or 16 bytes each.
    """
    blank = segment[:16] + b"\0\0" + segment[18:]
    return checksum(pseudo_header(src, dst, len(segment)) + blank)


def tcp_checksum_right(src: bytes, dst: bytes, segment: bytes) -> bool:
    """Tell whether the checksum that stands in ``segment`` is right."""
    return ones_sum(pseudo_header(src, dst, len(segment)) + segment) == 0xFFFF


def updated(check: int, old: int, new: int) -> int:
    """Return ``check`` after one covered 16-bit word went from ``old`` to ``new`` (RFC 1624, equation 3).

    A checksum that was wrong stays wrong by the same amount.
    """
    total = (check ^ 0xFFFF) + (old ^ 0xFFFF) + new
    total = (total & 0xFFFF) + (total >> 16)
    return ((total & 0xFFFF) + (total >> 16)) ^ 0xFFFF
