# SPDX-License-Identifier: Apache-2.0
"""What sock_diag tells of sockets that end, read from datagrams."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from emptcp.mptcp.destroyed import Destroyed, decode


def message(
    *, family: int = 2, ports: tuple[int, int] = (4000, 80), ends: tuple[str, str] = ("10.0.0.1", "10.0.0.2")
) -> bytes:
    """Return one message as the kernel (6.18) lays it out, with distinct numbers in tcp_info."""
    info = bytearray(280)
    struct.pack_into("=QQ", info, 120, 1111, 2222)
    struct.pack_into("=Q", info, 200, 3333)
    addresses = b"".join(ip_address(one).packed.ljust(16, b"\0") for one in ends)
    body = struct.pack("=BBBB", family, 7, 0, 0) + struct.pack("!HH", *ports) + addresses + bytes(32)
    other = struct.pack("=HHB3x", 5, 8, 6)
    attributes = other + struct.pack("=HH", 4 + len(info), 2) + bytes(info)
    return struct.pack("=IHHII", 16 + len(body) + len(attributes), 20, 0, 0, 0) + body + attributes


def test_ends_and_counts_are_read() -> None:
    ends = (ip_address("10.0.0.1"), 4000), (ip_address("10.0.0.2"), 80)
    assert list(decode(message())) == [Destroyed(*ends, sent=3333, acked=1111, received=2222)]


def test_several_messages_and_both_families() -> None:
    both = message(family=10, ends=("fd00::1", "::ffff:10.0.0.2")) + message(ports=(1, 2))
    first, second = decode(both)
    assert (first.local[0], first.remote[0]) == (ip_address("fd00::1"), ip_address("10.0.0.2"))
    assert (second.local[1], second.remote[1]) == (1, 2)


def test_listeners_and_cut_messages_tell_nothing() -> None:
    assert list(decode(message(ports=(80, 0)))) == []
    assert list(decode(message()[:100])) == []
    assert list(decode(b"")) == []
