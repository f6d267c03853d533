# SPDX-License-Identifier: Apache-2.0
"""Rounds of a measurement on live connections, and what a hypervisor took from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from emptcp_bench.processors import Ticks, ticks

T = TypeVar("T")

ATTEMPTS = 5
"""How often a round is measured at most; the last one counts."""

OF_CONTROLS = 5
"""Rounds, at least, of what a congestion control makes of things: that depends on when it was last told."""

STOLEN = 0.02
"""Share of this machine's processor time that others may have had in a round (steal, proc_stat(5))."""


def measured(rounds: int, measure: Callable[[], T]) -> tuple[T, ...]:
    """Measure ``rounds`` times, each again while a hypervisor ran other guests meanwhile.

    What a virtual machine measures by the clock is wrong when it stood still, and the kernel says so. A round
    is never chosen by its result.
    """
    return tuple(_round(measure) for _ in range(rounds))


def _round(measure: Callable[[], T]) -> T:
    for _ in range(ATTEMPTS - 1):
        before = ticks()
        found = measure()
        if stolen(before, ticks()) <= STOLEN:
            return found
    return measure()


def stolen(before: Ticks, after: Ticks) -> float:
    """Return the share of processor time that others had between two readings."""
    spent = Ticks(*(new - old for old, new in zip(before, after, strict=True)))
    return spent.steal / max(1, sum(spent))
