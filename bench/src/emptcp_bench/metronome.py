# SPDX-License-Identifier: Apache-2.0
"""The controller whose ticks ``emptcp bench controllers`` counts."""

from __future__ import annotations

import time
from collections.abc import Sequence

from emptcp.api import Connection, Controller


class Metronome(Controller):
    """Do what a scheduler does, compare all subflows with the fastest one, and note each tick in a file."""

    log: str

    def tick(self, connections: Sequence[Connection]) -> None:
        """Look at all connections.

        A line has the tick's begin, its seconds, connections, subflows, and how many are slower than a wait.
        """
        began, subflows, late = time.monotonic(), 0, 0
        for connection in connections:
            fast, *slower = connection.subflows.by_rtt()
            subflows += 1 + len(slower)
            late += sum(fast.completion(connection.queued) < one.completion() for one in slower)
        seconds = time.monotonic() - began
        with open(self.log, "a", encoding="ascii") as log:
            print(began, seconds, len(connections), subflows, late, file=log)
