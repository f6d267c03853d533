# SPDX-License-Identifier: Apache-2.0
"""What this machine's processors did since it began, as proc_stat(5) counts it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

TICK = os.sysconf("SC_CLK_TCK")
"""Ticks in a second."""


class Ticks(NamedTuple):
    """Ticks of one processor, or of all."""

    user: int
    nice: int
    system: int
    idle: int
    iowait: int
    irq: int
    softirq: int
    steal: int

    @property
    def busy(self) -> float:
        """Seconds in which it was not idle, without steal."""
        return (self.user + self.nice + self.system + self.irq + self.softirq) / TICK


def ticks(core: int | None = None) -> Ticks:
    """Read the ticks of a core, by its number, or of all."""
    wanted = "cpu" if core is None else f"cpu{core}"
    lines = (line.split() for line in Path("/proc/stat").read_text(encoding="ascii").splitlines())
    counts = next(words[1:] for words in lines if words[0] == wanted)
    return Ticks(*map(int, counts[: len(Ticks._fields)]))
