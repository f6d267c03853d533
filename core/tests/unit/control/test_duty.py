# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

from emptcp.control.duty import decode
from emptcp.plugins.occasions import StageEvent

OWNERS = {"note_join": "hold"}


def record(source: bytes = b"note_join", data: bytes = b"", length: int | None = None) -> bytes:
    """A struct emptcp_event and what follows it."""
    mapped = bytes(10) + b"\xff\xff" + bytes([10, 0, 0, 1])
    told = len(data) if length is None else length
    head = struct.pack("=QIHBB", 99, 7, told, 1, 1)
    key = mapped + IPv6Address("fd00::2").packed + struct.pack("!HH", 443, 40000)
    return head + key + source.ljust(32, b"\0") + bytes(4) + data


def test_a_record_becomes_the_event_of_its_fragments_plugin() -> None:
    assert decode(record(data=b"abc"), OWNERS) == StageEvent(
        plugin="hold",
        source="note_join",
        type=7,
        time=99,
        hook="egress",
        data=b"abc",
        endpoints=((IPv4Address("10.0.0.1"), 443), (IPv6Address("fd00::2"), 40000)),
        direction=1,
    )


def test_a_records_padding_is_no_data() -> None:
    event = decode(record(data=b"abc\0\0\0\0\0", length=3), OWNERS)
    assert event is not None
    assert event.data == b"abc"


def test_what_no_plugin_sent_is_left_out() -> None:
    assert decode(record(b"stranger"), OWNERS) is None
    assert decode(record()[:-5], OWNERS) is None
    assert decode(b"", OWNERS) is None
