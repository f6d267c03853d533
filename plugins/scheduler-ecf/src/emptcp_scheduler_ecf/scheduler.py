# SPDX-License-Identifier: Apache-2.0
"""Earliest completion first (Lim, Nahum, Towsley, Gibbens: ECF, CoNEXT 2017, algorithm 1), every 100 ms.

The kernel's scheduler asks for each segment whether the fastest subflow has room; ECF asks in addition
whether the slower one would be done before a wait for the fast one was. Here that is asked of all that waits
now, and the answer holds until the next tick: a slow subflow that would be late is backup meanwhile.
"""

from __future__ import annotations

from emptcp.api import Connection, ConnectionSubflow, Controller


class Ecf(Controller):
    """Use a slow subflow only when waiting for the fast one takes longer."""

    beta: float

    def tick_connection(self, connection: Connection) -> None:
        """Compare each slower subflow with the fastest one."""
        fast, *slower = connection.subflows.by_rtt()
        for slow in slower:
            if fast.rtt and slow.rtt and fast.cwnd and slow.cwnd:
                slow.backup = self._wait(fast, slow, connection.queued)

    def _wait(self, fast: ConnectionSubflow, slow: ConnectionSubflow, queued: int) -> bool:
        """Whether what waits is delivered sooner when it waits for the fast subflow.

        The fast subflow takes a round trip for each window of what waits, and one more; what goes by the slow
        one arrives after its round trip. Nobody waits where the slow subflow has done the work, a window at
        least, before the fast one is free and has done it.
        """
        delta = max(fast.rtt_deviation, slow.rtt_deviation)
        patience = 1 + self.beta if slow.backup else 1
        comes_late = fast.completion(queued) < patience * (slow.rtt + delta)
        return comes_late and max(queued / slow.cwnd, 1) * slow.rtt >= 2 * fast.rtt + delta
