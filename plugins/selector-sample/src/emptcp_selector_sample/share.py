# SPDX-License-Identifier: Apache-2.0
"""Which subflows are in a share, in plain Python: those whose place is less than the share."""

from __future__ import annotations

from ipaddress import ip_address

MIXER = 0x9E3779B97F4A7C15


def place(source: str, sport: int, target: str, dport: int, seed: int = 0) -> float:
    """Return the subflow's place, from 0 to below 1, whichever end is given first."""
    (low, low_port), (high, high_port) = sorted((_end(source, sport), _end(target, dport)))
    words = [int.from_bytes((low + high)[at : at + 8], "big") for at in (0, 8, 16, 24)]
    number = seed
    for word in (*words, low_port << 16 | high_port):
        number = (number ^ word) * MIXER % 2**64
        number ^= number >> 32
    return (number * MIXER % 2**64 >> 32) / 2**32


def _end(address: str, port: int) -> tuple[bytes, int]:
    packed = ip_address(address).packed
    return (packed if len(packed) == 16 else bytes(10) + b"\xff\xff" + packed, port)
