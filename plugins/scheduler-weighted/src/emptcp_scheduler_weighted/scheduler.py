# SPDX-License-Identifier: Apache-2.0
"""Tiers of paths by cost, the next one used only when those before are full; weights and quotas."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from emptcp.api import Connection, ConnectionSubflow, Controller, Path
from emptcp_scheduler_weighted import quota, shares
from emptcp_scheduler_weighted.flow import Flows
from emptcp_scheduler_weighted.overflow import Overflow


class Weighted(Controller):
    """Use the paths of the next cost only when the cheaper ones are full, each by its weight."""

    queue: float
    patience: float
    hold: float
    weights: Sequence[int]
    renews: int

    def __init__(self, parameters: Mapping[str, Any] | None = None, paths: Sequence[Path] = ()) -> None:
        super().__init__(parameters, paths)
        self._known: WeakKeyDictionary[Connection, tuple[Flows, Overflow]] = WeakKeyDictionary()
        if any(weight < 1 for weight in self.weights):
            raise ValueError(f"a weight is 1 or more, and of {list(self.weights)} one is not")
        self._weights = dict(zip(self.paths, self.weights, strict=False))

    def tick(self, connections: Sequence[Connection]) -> None:
        """Count what quotas limit, then look at each connection."""
        quota.count(self.state, connections, quota.month(self.renews))
        super().tick(connections)

    def tick_connection(self, connection: Connection) -> None:
        """Open tiers and leave them, and share out what is in use. Subflows of no path are left alone."""
        if connection not in self._known:
            self._known[connection] = Flows(), Overflow(self.queue, self.patience, self.hold)
        flows, overflow = self._known[connection]
        flows.see(connection)
        tiers = self._tiers(connection)
        waiting = _waiting(connection, _joined(tiers[: overflow.level]), flows)
        level = overflow.look(connection.age, waiting, [flows.of(tier) for tier in tiers])
        used = _joined(tiers[:level])
        for one in connection.subflows:
            if one.path is not None:
                one.backup = one not in used
        if self.weights:
            shares.limit(used, flows, lambda one: self._weights.get(one.path.name if one.path else "", 1))

    def _tiers(self, connection: Connection) -> list[list[ConnectionSubflow]]:
        """Return the subflows by the cost of their paths, without those whose path has used up its quota."""
        found: dict[int, list[ConnectionSubflow]] = {}
        for one in connection.subflows:
            if one.path is not None and not quota.spent(self.state, one):
                found.setdefault(one.path.cost, []).append(one)
        return [found[cost] for cost in sorted(found)]


def _joined(tiers: list[list[ConnectionSubflow]]) -> list[ConnectionSubflow]:
    return [one for tier in tiers for one in tier]


def _waiting(connection: Connection, used: list[ConnectionSubflow], flows: Flows) -> float:
    """Return for how many seconds what waits to be sent will last at the rate of now."""
    size = connection.queued + sum(one.not_sent for one in used)
    if not size:
        return 0.0
    return size / flows.of(used) if flows.of(used) else math.inf
