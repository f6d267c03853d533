# SPDX-License-Identifier: Apache-2.0
"""Times per packet by ``BPF_PROG_TEST_RUN``, compared within one run.

A machine that others use gives no absolute numbers. What is compared takes turns, so that a slow moment slows
all of it. A round is five turns of each program, of which the three quickest count: what disturbs a turn only
ever makes it longer. Ratios are made within each round, and their spread tells what they are worth.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from emptcp.pybpf import Program

Run = tuple[str, str]
"""A program and the packet it is given, by name."""

TURNS, COUNTED = 5, 3
"""Turns of a round, and how many of the quickest count."""


@dataclass(frozen=True)
class Trial:
    """A program, and the packet that it is given."""

    program: Program
    packet: bytes

    def time(self, repeat: int) -> int:
        """Run the program on ``repeat`` packets; return the kernel's whole nanoseconds per packet."""
        return self.program.test_run(self.packet, repeat=repeat).duration_ns


@dataclass(frozen=True)
class Spread:
    """What several rounds gave."""

    least: float
    median: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of at least one value."""
        return cls(min(values), statistics.median(values), max(values))


def in_turns(
    trials: Mapping[Run, Trial], rounds: int, repeat: int, step: Callable[[], None] = lambda: None
) -> dict[Run, list[float]]:
    """Return nanoseconds per packet of each trial, one number per round; ``step`` hears of each round."""
    found: dict[Run, list[float]] = {name: [] for name in trials}
    with _one_cpu():
        for number in range(rounds):
            for name, times in _round(trials, number, repeat).items():
                found[name].append(statistics.mean(sorted(times)[:COUNTED]))
            step()
    return found


def ratios(times: Sequence[float], against: Sequence[float], base: Sequence[float]) -> list[float]:
    """Return the ratio in each round of two programs' times net of ``base``, the empty program's.

    Rounds in which noise left nothing of the divisor are left out.
    """
    rows = zip(times, against, base, strict=True)
    return [(one - empty) / (other - empty) for one, other, empty in rows if other > empty]


def _round(trials: Mapping[Run, Trial], number: int, repeat: int) -> dict[Run, list[int]]:
    """Give each trial its turns. Each round begins with another one: what runs after a pause is slower."""
    names = list(trials)
    start = number % len(names)
    found: dict[Run, list[int]] = {name: [] for name in names}
    for _ in range(TURNS):
        for name in names[start:] + names[:start]:
            found[name].append(trials[name].time(repeat))
    return found


@contextmanager
def _one_cpu() -> Iterator[None]:
    """Stay on one CPU: moving to another costs as much as many packets."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
