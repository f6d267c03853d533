# SPDX-License-Identifier: Apache-2.0
"""What record's programs keep of a subflow, read from their bytes.

A subflow has a slot in core's flow table (``struct record_state`` of record.bpf.c), and, where more was asked
for, an entry in the plugin's own map (``struct record_flow`` of flow.h).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntFlag

# packets and bytes of both ends; sum, samples, min and last of the RTT
_SLOT = struct.Struct("=4QQIII")
# since, asked, RTTs
_FLOW = struct.Struct("=QI4x16I")
# without the holes
_WAY = struct.Struct("=8Q7IH2B")
_HOLES = 8 * 16

FLOW_BYTES = _FLOW.size + 2 * (_WAY.size + _HOLES)
"""``struct record_flow``."""


Both = tuple[int, int]
"""A number for each end."""


class What(IntFlag):
    """``enum what`` of record.bpf.c, in the order of the manifest's values."""

    PACKETS = 1 << 0
    BYTES = 1 << 1
    RTT = 1 << 2
    RTT_HISTOGRAM = 1 << 3
    RETRANSMISSIONS = 1 << 4
    REORDERING = 1 << 5
    SIZE = 1 << 6
    GOODPUT = 1 << 7
    WINDOW = 1 << 8


class Known(IntFlag):
    """``enum known`` of flow.h."""

    BEGUN = 1 << 0
    MAPPED = 1 << 1
    WIDE = 1 << 2
    OFFERED = 1 << 3


@dataclass(frozen=True)
class Slot:
    """Packets and their bytes by end, the one that sent; round-trip times in microseconds."""

    packets: Both
    volume: Both
    rtt_sum: int
    rtt_samples: int
    rtt_min: int
    rtt_last: int

    @classmethod
    def of(cls, state: bytes) -> Slot:
        """Read the slot of a flow table's entry."""
        packets0, packets1, bytes0, bytes1, *rtt = _SLOT.unpack_from(state)
        return cls((packets0, packets1), (bytes0, bytes1), *rtt)


@dataclass(frozen=True)
class Way:
    """What one end sent: see ``struct record_way``. Windows and sizes in bytes, times in nanoseconds."""

    size: int
    dsn_first: int
    dsn_next: int
    goodput: int
    first_at: int
    last_at: int
    watcher: int
    watched_at: int
    next: int
    retransmitted: int
    reordered: int
    extent: int
    window_last: int
    window_min: int
    window_max: int
    lead: int
    known: int


@dataclass(frozen=True)
class Track:
    """An entry of the plugin's map. ``rtts[n]`` were below 128 << n microseconds, the last are all others."""

    since: int
    asked: int
    rtts: tuple[int, ...]
    ways: tuple[Way, Way]

    @classmethod
    def of(cls, value: bytes) -> Track:
        """Read an entry's bytes."""
        since, asked, *rtts = _FLOW.unpack_from(value)
        first, second = (
            Way(*_WAY.unpack_from(value, _FLOW.size + end * (_WAY.size + _HOLES))[:17]) for end in (0, 1)
        )
        return cls(since, asked, tuple(rtts), (first, second))
