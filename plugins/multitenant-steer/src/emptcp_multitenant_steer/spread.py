# SPDX-License-Identifier: Apache-2.0
"""The eMPTCP paper's use case 1 (section V): on a hypervisor, subflows go by different physical links.

The guest knows nothing of the links, and a hash over addresses and ports sends two subflows of a connection
by one of them as often as not. Here a subflow gets the link with the fewest subflows of its own connection,
and of those the one that carries least, whoever sends it. It moves later only where it gains for sure.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from emptcp.api import Connection, ConnectionSubflow, Controller, Path


class Spread(Controller):
    """Let the subflows of each connection leave by different links, and by those that carry less."""

    margin: float
    hold: float

    def __init__(self, parameters: Mapping[str, Any] | None = None, paths: Sequence[Path] = ()) -> None:
        super().__init__(parameters, paths)
        self._since: WeakKeyDictionary[ConnectionSubflow, float] = WeakKeyDictionary()

    def tick_connection(self, connection: Connection) -> None:
        """Give new subflows a link, and move one of those that have theirs for long enough."""
        for one in connection.subflows:
            if one.steer is None:
                self._send(one, min(self.paths.values(), key=lambda path: self._rank(path, connection)))
            elif time.monotonic() - self._since.setdefault(one, time.monotonic()) > self.hold:
                self._move(one, one.steer, connection)

    def _move(self, one: ConnectionSubflow, link: Path, connection: Connection) -> None:
        """Move a subflow where another link has no more of its connection's, and less of all else."""
        count, _ = self._rank(link, connection)
        others = [path for path in self.paths.values() if self._rank(path, connection)[0] < count]
        best = min(others, key=self._carries, default=link)
        if self._carries(link) - one.delivery_rate / self._rate(link) > self._carries(best) + self.margin:
            self._send(one, best)

    def _send(self, one: ConnectionSubflow, link: Path) -> None:
        one.steer, self._since[one] = link, time.monotonic()

    def _rank(self, path: Path, connection: Connection) -> tuple[int, float]:
        return sum(one.steer == path for one in connection.subflows), self._carries(path)

    def _carries(self, path: Path) -> float:
        """Return the part of a link's rate that is used."""
        return self.load.get(path.name, 0.0) / self._rate(path)

    def _rate(self, path: Path) -> float:
        """Return a link's rate; those that the file does not tell are as fast as the busiest one now is."""
        return path.rate or max([1.0, *self.load.values()])
