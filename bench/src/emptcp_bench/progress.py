# SPDX-License-Identifier: Apache-2.0
"""How far a measurement is: a bar in a terminal, a line per step elsewhere."""

from __future__ import annotations

import sys
from typing import TextIO

BAR = 30


class Progress:
    """Counts steps of ``total``; told on ``out``, standard error unless it is given."""

    def __init__(self, total: int, out: TextIO | None = None) -> None:
        self._total = total
        self._done = 0
        self._out = out or sys.stderr

    def step(self, what: str) -> None:
        """Tell that ``what`` is done."""
        self._done = min(self._done + 1, self._total)
        if not self._out.isatty():
            print(f"{self._done}/{self._total} {what}", file=self._out, flush=True)
            return
        full = BAR * self._done // self._total
        end = "\n" if self._done == self._total else ""
        line = f"\r[{'#' * full}{'.' * (BAR - full)}] {self._done}/{self._total} {what}\x1b[K"
        print(line, end=end, file=self._out, flush=True)
