# SPDX-License-Identifier: Apache-2.0
"""Events and decoded options, from a packet to user space."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emptcp.packet.build import build
from emptcp.packet.mptcp import Dss
from emptcp.packet.tcp import Timestamps
from emptcp.pybpf import LoadedObject, RingBuffer, load_object

pytestmark = pytest.mark.kernel

HEAD = struct.Struct("<QIHBB36s32s4x")
DECODED = struct.Struct("<QQIHB?")


@pytest.fixture
def told(objects: dict[str, Path]) -> Iterator[LoadedObject]:
    with load_object(objects["event"]) as loaded:
        yield loaded


def events(told: LoadedObject, backend: str, packet: bytes) -> list[bytes]:
    """Run the program on a packet and return what it sent."""
    sent: list[bytes] = []
    with RingBuffer(told.maps["emptcp_events"], lambda data: sent.append(bytes(data))) as ring:
        told.programs[f"tell_{backend}"].test_run(packet)
        ring.poll(100)
    return sent


DSSES = [
    (Dss(7), (7, 0, 0, 0, 3, False)),
    (Dss(7, wide_ack=False), (7, 0, 0, 0, 1, False)),
    (Dss(7, 9, 3, 100), (7, 9, 3, 100, 15, False)),
    (Dss(7, 9, 3, 100, checksum=1), (7, 9, 3, 100, 15, True)),
    (Dss(None, 9, 3, 100, wide_dsn=False, data_fin=True), (0, 9, 3, 100, 20, False)),
    (Dss(2**63 + 5, 2**64 - 1, 2**32 - 1, 65535), (2**63 + 5, 2**64 - 1, 2**32 - 1, 65535, 15, False)),
    (Dss(7, wide_ack=False, stray_flags=0xE8), (7, 0, 0, 0, 9, False)),
]


@pytest.mark.parametrize(("dss", "expected"), DSSES, ids=str)
@pytest.mark.parametrize("shift", [0, 1, 2, 3])
@pytest.mark.parametrize("backend", ["xdp", "tc"])
def test_an_event_carries_the_packet_s_dss(
    told: LoadedObject, backend: str, shift: int, dss: Dss, expected: tuple[Any, ...]
) -> None:
    packet = build(src="10.0.0.2", dst="10.0.0.1", options=[b"\x01" * shift, dss])
    (event,) = events(told, backend, packet)
    time, kind, length, hook, direction, key, source = HEAD.unpack_from(event)
    assert (kind, length, hook, direction) == (7, DECODED.size, 0, 1)
    assert time > 0
    assert key[12:16] == bytes((10, 0, 0, 1))
    assert source.rstrip(b"\0") == b"tell"
    assert DECODED.unpack_from(event, HEAD.size) == expected


@pytest.mark.parametrize("backend", ["xdp", "tc"])
def test_no_dss_no_event(told: LoadedObject, backend: str) -> None:
    assert events(told, backend, build(options=[Timestamps(1, 2)])) == []
