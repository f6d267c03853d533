# SPDX-License-Identifier: Apache-2.0
"""``--packet-times``: what each packet that the tests run costs at each place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING

from .trial import Place

if TYPE_CHECKING:
    from emptcp.chain.dryrun import Runner

RUNS = 200
COLUMNS = ("ns", "place", "test")


@dataclass
class Times:
    """Nanoseconds per packet, by test and place, in the order in which they were measured."""

    found: dict[tuple[str, Place], float] = field(default_factory=dict)

    def take(self, test: str, place: Place, runner: Runner, packet: bytes) -> None:
        """Measure a packet; of a test's several packets the last one counts.

        Every run gets the packet anew, since changes add up in repeated ones. The median of the quicker half:
        what disturbs a run only ever makes it longer.
        """
        taken = sorted(runner.run(packet).duration_ns for _ in range(RUNS))
        self.found[test, place] = median(taken[: RUNS // 2])

    def lines(self) -> Iterator[str]:
        """Yield the report: a line for each test and place."""
        yield "{:>7}  {:22}  {}".format(*COLUMNS)
        for (test, place), ns in self.found.items():
            yield f"{ns:7.0f}  {place!s:22}  {test}"
