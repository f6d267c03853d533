# SPDX-License-Identifier: Apache-2.0
"""Turns readings of a run into rates and shares. Pure: numbers in, numbers out."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sample:
    """What all subflows had delivered at a moment.

    ``at`` is in seconds since the run began. By path: ``acked`` in bytes since then, never falling;
    ``backup`` is whether the sender was told to spare it; ``rtt`` in seconds (smoothed).
    """

    at: float
    acked: Mapping[str, int]
    backup: Mapping[str, bool]
    rtt: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Row:
    """A stretch of a run: ``begin`` and ``end`` (s), Mbit/s of payload by path, backup bits at its end."""

    begin: float
    end: float
    mbit: Mapping[str, float]
    backup: Mapping[str, bool]

    @property
    def total(self) -> float:
        """Mbit/s of all paths."""
        return sum(self.mbit.values())


def acked(samples: Sequence[Sample], at: float) -> dict[str, float]:
    """Bytes delivered by path at any moment, on the straight line between the two samples around it."""
    after = bisect.bisect_left(samples, at, key=lambda sample: sample.at)
    if after == 0:
        return dict(samples[0].acked)
    if after == len(samples):
        return dict(samples[-1].acked)
    old, new = samples[after - 1], samples[after]
    part = (at - old.at) / (new.at - old.at)
    return {path: old.acked[path] + part * (new.acked[path] - old.acked[path]) for path in new.acked}


def row(samples: Sequence[Sample], begin: float, end: float) -> Row:
    """The rates between two moments, which lie inside what was sampled."""
    first, last = acked(samples, begin), acked(samples, end)
    mbit = {path: (last[path] - first[path]) * 8 / 1e6 / (end - begin) for path in last}
    at_end = max(0, bisect.bisect_right(samples, end, key=lambda sample: sample.at) - 1)
    return Row(begin, end, mbit, samples[at_end].backup)


def rows(samples: Sequence[Sample], step: float) -> list[Row]:
    """The rates in whole steps of so many seconds, from 0 to the last sample."""
    count = int(samples[-1].at / step + 1e-6) if samples else 0
    return [row(samples, number * step, (number + 1) * step) for number in range(count)]


def share(samples: Sequence[Sample], path: str, begin: float, end: float) -> float:
    """The part of all payload between two moments that one path carried, from 0 to 1."""
    there = row(samples, begin, end)
    return there.mbit[path] / there.total if there.total else 0.0
