# SPDX-License-Identifier: Apache-2.0
"""What each subflow delivers, from what its peer has acknowledged between ticks."""

from __future__ import annotations

from collections.abc import Iterable
from weakref import WeakKeyDictionary

from emptcp.api import Connection, ConnectionSubflow

SMOOTHING = 0.3
"""The part of a new reading in the average; at ten ticks a second that follows within half a second."""


class Flows:
    """Delivered bytes per second of one connection's subflows, averaged over some ticks.

    The kernel's own ``delivery_rate`` is that of the last flight, and tells nothing of pauses between them.
    """

    def __init__(self) -> None:
        self._rates: WeakKeyDictionary[ConnectionSubflow, float] = WeakKeyDictionary()
        self._acked: WeakKeyDictionary[ConnectionSubflow, int] = WeakKeyDictionary()
        self._at = 0.0
        self.highest = 0.0
        """The most that all delivered together."""

    def see(self, connection: Connection) -> None:
        """Take the counters of now."""
        seconds = connection.age - self._at
        self._at = connection.age
        for one in connection.subflows:
            if one in self._acked and seconds > 0:
                fresh = max(0, one.acked - self._acked[one]) / seconds
                self._rates[one] = self.of([one]) * (1 - SMOOTHING) + fresh * SMOOTHING
            self._acked[one] = one.acked
        self.highest = max(self.highest, self.of(connection.subflows))

    def of(self, subflows: Iterable[ConnectionSubflow]) -> float:
        """Return what these deliver together, in bytes per second."""
        return sum(self._rates.get(one, 0.0) for one in subflows)
