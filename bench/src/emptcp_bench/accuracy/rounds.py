# SPDX-License-Identifier: Apache-2.0
"""Rounds of a measurement on live connections, and what a hypervisor took from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

ATTEMPTS = 5
"""How often a round is measured at most; the last one counts."""

STOLEN = 0.02
"""Share of this machine's processor time that others may have had in a round (steal, proc_stat(5))."""

_STEAL = 8


def measured(rounds: int, measure: Callable[[], T]) -> tuple[T, ...]:
    """Measure ``rounds`` times, each again while a hypervisor ran other guests meanwhile.

    What a virtual machine measures by the clock is wrong when it stood still, and the kernel says so. A round
    is never chosen by its result.
    """
    return tuple(_round(measure) for _ in range(rounds))


def _round(measure: Callable[[], T]) -> T:
    for _ in range(ATTEMPTS - 1):
        before = _ticks()
        found = measure()
        if stolen(before, _ticks()) <= STOLEN:
            return found
    return measure()


def stolen(before: list[int], after: list[int]) -> float:
    """Return the share of processor time that others had between two readings of ``/proc/stat``."""
    spent = [new - old for old, new in zip(before, after, strict=True)]
    return spent[_STEAL - 1] / max(1, sum(spent))


def _ticks() -> list[int]:
    """Return user, nice, system, idle, iowait, irq, softirq and steal time of all processors."""
    first = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0]
    return [int(word) for word in first.split()[1 : 1 + _STEAL]]
