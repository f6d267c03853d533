# SPDX-License-Identifier: Apache-2.0
"""Compares two series that were measured in turns. Pure: numbers in, numbers out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Ratio:
    """The median of the rounds' ratios, above 1 is better; with ``covers`` the true median lies between
    ``low`` and ``high``, both included."""

    median: float
    low: float
    high: float
    covers: float


def compared(baseline: Sequence[float], ours: Sequence[float], *, more: bool) -> Ratio:
    """Compare round by round: what slows a whole round slows both.

    The interval is the one between order statistics (the sign test's), which supposes no distribution. With
    less than six rounds even all of them do not cover 95 %, and what they cover is said.
    """
    pairs = zip(baseline, ours, strict=True)
    ratios = sorted(new / old if more else old / new for old, new in pairs)
    rank, covers = _rank(len(ratios))
    return Ratio(median(ratios), ratios[rank], ratios[-1 - rank], covers)


def _rank(count: int) -> tuple[int, float]:
    """Return how many values at each end lie outside of the interval, and the probability that it holds."""
    best = 0, _covers(count, 0)
    for rank in range(1, (count + 1) // 2):
        if (covers := _covers(count, rank)) < CONFIDENCE:
            break
        best = rank, covers
    return best


def _covers(count: int, rank: int) -> float:
    """Each value is above the true median as a coin falls; return how likely each side has over ``rank``."""
    outside = sum(math.comb(count, number) for number in range(rank + 1))
    return max(0.0, 1 - 2 * outside / float(2**count))
