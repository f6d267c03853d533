# SPDX-License-Identifier: Apache-2.0
"""The answer of sock_diag, taken apart."""

from __future__ import annotations

import socket
import struct

from hypothesis import given
from hypothesis import strategies as st

from emptcp.lab import meter
from emptcp.mptcp import diag


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def message(family: int, local: bytes, remote: bytes, flags: int | None) -> bytes:
    head = struct.pack("=4B", family, 1, 0, 0) + struct.pack("!HH", 1000, 2000)
    head += local.ljust(16, b"\0") + remote.ljust(16, b"\0") + bytes(32)
    info = bytearray(240)
    struct.pack_into("=I", info, 68, 20_500)
    struct.pack_into("=I", info, 100, 7)
    struct.pack_into("=Q", info, 120, 1 << 40)
    body = attribute(2, bytes(info))
    if flags is not None:
        mptcp = attribute(1, bytes(4)) + attribute(8, struct.pack("=I", flags))
        body += attribute(19, attribute(1, b"mptcp\0") + attribute(3 | 0x8000, mptcp))
    return head + body


V4 = message(socket.AF_INET, bytes([10, 0, 1, 1]), bytes([10, 0, 1, 2]), 1 << 4)


def test_a_subflow_is_read_with_bytes_rtt_and_the_peers_backup_bit() -> None:
    assert meter.decode(V4) == meter.Reading(
        local="10.0.1.1",
        local_port=1000,
        remote="10.0.1.2",
        remote_port=2000,
        acked=1 << 40,
        retransmitted=7,
        rtt=0.0205,
        backup=True,
        own_backup=False,
    )


def test_addresses_are_those_on_the_wire() -> None:
    six = meter.decode(message(socket.AF_INET6, bytes(15) + b"\1", bytes(15) + b"\2", 1 << 5))
    mapped = meter.decode(message(socket.AF_INET6, bytes(10) + b"\xff\xff\x0a\0\1\1", bytes(16), 0))
    assert six is not None
    assert mapped is not None
    assert (six.local, six.remote, six.backup, six.own_backup) == ("::1", "::2", False, True)
    assert mapped.local == "10.0.1.1"


def test_a_plain_tcp_socket_is_no_subflow() -> None:
    assert meter.decode(message(socket.AF_INET, bytes(4), bytes(4), None)) is None


@given(cut=st.integers(0, len(V4)), junk=st.binary(max_size=64))
def test_whatever_is_cut_off_or_added_does_no_harm(cut: int, junk: bytes) -> None:
    meter.decode(V4[: max(cut, 72)] + junk)
    list(diag.split(V4[:cut] + junk))
