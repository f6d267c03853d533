# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
from hashlib import sha256
from ipaddress import IPv4Address, IPv6Address

import pytest

from emptcp.errors import EmptcpError
from emptcp.mptcp.measured import measured
from emptcp.mptcp.sockets import unpack


def record(family: int, local: bytes, remote: bytes, flags: int = 0, state: int = 1) -> bytes:
    addresses = local.ljust(16, b"\0") + remote.ljust(16, b"\0")
    numbers = (family, 40000, 5001, state, flags, 0xCAFE, 3, 4, *range(10, 20), 7, 10, 0x0123456789ABCDEF, 5)
    return struct.pack("=32sHHHBBIii10I2B2xQQ6Q7I4x", addresses, *numbers, *range(20, 33))


def test_addresses_are_those_on_the_wire() -> None:
    mapped = bytes(10) + b"\xff\xff" + bytes([10, 0, 0, 1])
    v4, v6, v6_for_v4 = unpack(
        record(2, bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2]))
        + record(10, IPv6Address("fd00::1").packed, IPv6Address("fd00::2").packed)
        + record(10, mapped, mapped)
    )
    assert (v4.local, v4.remote, v4.family) == (IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2"), 4)
    assert (v6.local, v6.family) == (IPv6Address("fd00::1"), 6)
    assert (v6_for_v4.local, v6_for_v4.family) == (IPv4Address("10.0.0.1"), 4)
    assert str(v6) == "[fd00::1]:40000 > [fd00::2]:5001"


def test_every_number_lands_in_its_own_field() -> None:
    (found,) = unpack(record(2, b"", b"", flags=2))
    assert (found.token, found.local_id, found.remote_id) == (0xCAFE, 3, 4)
    assert found.remote_token == int.from_bytes(sha256(bytes.fromhex("0123456789abcdef")).digest()[:4], "big")
    assert found.keys == (bytes.fromhex("0000000000000005"), bytes.fromhex("0123456789abcdef"))
    assert "abcdef" not in repr(found)
    assert (found.snd_una, found.snd_nxt, found.send_window, found.write_seq) == (10, 11, 12, 13)
    assert (found.rcv_nxt, found.acknowledged, found.receive_window, found.rtt_us) == (14, 15, 16, 17 / 8)
    assert (found.bound_device, found.device, found.send_scale, found.receive_scale) == (18, 19, 7, 10)
    assert (found.backup, found.request_backup, found.timestamps) == (False, True, False)


def test_what_is_measured_lands_in_its_own_field() -> None:
    ((_, found),) = measured(record(2, b"", b""))
    assert (found.token, found.srtt, found.device) == (0xCAFE, 17, 19)
    assert (found.pacing_rate, found.bytes_sent, found.bytes_acked, found.bytes_received) == (20, 21, 22, 23)
    assert (found.queued, found.outstanding, found.min_rtt, found.rtt_deviation) == (24, 25, 26, 27)
    assert (found.cwnd, found.mss, found.retransmissions) == (28, 29, 30)
    assert (found.rate_delivered, found.rate_interval) == (31, 32)


def test_a_subflow_that_waits_for_its_last_ack_is_not_open() -> None:
    opened, closing = unpack(record(2, b"", b"") + record(2, b"", b"", state=9))
    assert opened.open
    assert not closing.open


def test_records_of_another_size_are_refused() -> None:
    with pytest.raises(EmptcpError, match="no multiple"):
        list(unpack(bytes(95)))
