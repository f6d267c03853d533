# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

from hypothesis import given
from hypothesis import strategies as st

from emptcp.mptcp.events import Event, decode


def attribute(kind: int, value: bytes) -> bytes:
    return (struct.pack("=HH", 4 + len(value), kind) + value).ljust(4 + len(value) + 3 & ~3, b"\0")


def message(command: int, *attributes: bytes) -> bytes:
    body = struct.pack("=BBH", command, 1, 0) + b"".join(attributes)
    return struct.pack("=IHHII", 16 + len(body), 32, 0, 0, 0) + body


def test_an_event_has_what_it_carries_and_none_else() -> None:
    raw = message(
        13,
        attribute(1, struct.pack("=I", 0xCAFE)),
        attribute(5, bytes([10, 0, 0, 1])),
        attribute(8, IPv6Address("fd00::2").packed),
        attribute(9, struct.pack("!H", 443)),
        attribute(11, b"\1"),
    )
    assert list(decode(raw)) == [
        Event(
            "SF_PRIO",
            token=0xCAFE,
            local=IPv4Address("10.0.0.1"),
            local_port=443,
            remote=IPv6Address("fd00::2"),
            backup=True,
        )
    ]


def test_several_events_of_a_datagram_are_told_and_unknown_ones_skipped() -> None:
    assert [event.name for event in decode(message(1) + message(99) + message(3))] == ["CREATED", "CLOSED"]


@given(st.binary(max_size=200))
def test_no_bytes_make_it_hang_or_fail(raw: bytes) -> None:
    assert len(list(decode(raw))) <= len(raw) // 20
