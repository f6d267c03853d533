# SPDX-License-Identifier: Apache-2.0
"""``--packet-times``: what each packet that the tests run costs at each place."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from .trial import Place

if TYPE_CHECKING:
    from emptcp.chain.dryrun import Runner
    from emptcp.pybpf import Program

RUNS = 300
COLUMNS = ("ns", "place", "test")


@dataclass
class Times:
    """Nanoseconds per packet, by test and place, in the order in which they were measured."""

    found: dict[tuple[str, Place], float] = field(default_factory=dict)

    def take(self, test: str, place: Place, runner: Runner, packet: bytes) -> None:
        """Measure a packet; of a test's several packets the last one counts."""
        self.found[test, place] = nanoseconds(runner, packet)

    def lines(self) -> Iterator[str]:
        """Yield the report: a line for each test and place."""
        yield "{:>7}  {:22}  {}".format(*COLUMNS)
        for (test, place), ns in self.found.items():
            yield f"{ns:7.0f}  {place!s:22}  {test}"


def nanoseconds(runner: Runner, packet: bytes) -> float:
    """Return what a packet costs, net of an empty program's cost on it.

    Every run gets the packet anew, since changes add up in repeated runs. The two programs take turns, and of
    each the median of the quicker half counts: what disturbs a run only ever makes it longer.
    """
    taken: tuple[list[int], list[int]] = ([], [])
    with _empty(runner.backend) as empty:
        for _ in range(RUNS):
            for program, times in zip((runner.loaded.program, empty), taken, strict=True):
                times.append(program.test_run(packet).duration_ns)
    full, bare = (median(sorted(times)[: RUNS // 2]) for times in taken)
    return max(0.0, full - bare)


def _empty(backend: str) -> Program:
    """Load a program that answers "pass"."""
    from emptcp.pybpf import load_program

    kind, answer = ("xdp", 2) if backend == "xdp" else ("sched_cls", 0)
    return load_program(kind, struct.pack("<BBhiBBhi", 0xB7, 0, 0, answer, 0x95, 0, 0, 0))
