# SPDX-License-Identifier: Apache-2.0
"""Earliest completion first (Lim, Nahum, Towsley, Gibbens: ECF, CoNEXT 2017, algorithm 1), every 100 ms.

The kernel's scheduler asks for each segment whether the fastest subflow has room; ECF asks in addition
whether the slower one would be done before a wait for the fast one was. Here that is asked of all that waits
now, and the answer holds until the next tick: a slow subflow that would be late is backup meanwhile.

Where the application waits for room in the send buffer nobody knows how much waits: as much as anything can
take. The kernel sizes that buffer by the windows of the subflows in use, so it never holds much more than
the fast one takes while the slow one is spared.

What the receive window does not take can't be sent by any subflow, and does not count: it waits for what is
under way, and where that goes by the slow one, a window takes the slow one's round trip. A window that still
grows is none to reckon with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from emptcp.api import Connection, ConnectionSubflow, Controller, Path
from emptcp_scheduler_ecf.window import Window


class Ecf(Controller):
    """Use a slow subflow only when waiting for the fast one takes longer."""

    beta: float

    def __init__(self, parameters: Mapping[str, Any] | None = None, paths: Sequence[Path] = ()) -> None:
        super().__init__(parameters, paths)
        self._windows: WeakKeyDictionary[Connection, Window] = WeakKeyDictionary()

    def tick_connection(self, connection: Connection) -> None:
        """Compare each slower subflow with the fastest one."""
        fast, *slower = connection.subflows.by_rtt()
        window = self._windows.setdefault(connection, Window())
        waiting = math.inf if connection.sndbuf_limited else connection.queued
        in_use = not any(slow.backup for slow in slower)
        longest = max((slow.rtt for slow in slower), default=0.0)
        window.see(fast.window, connection.queued, longest, self.interval if in_use else 0.0)
        for slow in slower:
            if fast.rtt and slow.rtt and fast.cwnd and slow.cwnd:
                slow.backup = self._wait(fast, slow, min(waiting, window.takes))

    def _wait(self, fast: ConnectionSubflow, slow: ConnectionSubflow, queued: float) -> bool:
        """Whether what waits is delivered sooner when it waits for the fast subflow.

        The fast subflow takes a round trip for each window of what waits, and one more; what goes by the slow
        one arrives after its round trip. Nobody waits where the slow subflow has done the work, a window at
        least, before the fast one is free and has done it.
        """
        delta = max(fast.rtt_deviation, slow.rtt_deviation)
        patience = 1 + self.beta if slow.backup else 1
        comes_late = fast.completion(queued) < patience * (slow.rtt + delta)
        return comes_late and max(queued / slow.cwnd, 1) * slow.rtt >= 2 * fast.rtt + delta
