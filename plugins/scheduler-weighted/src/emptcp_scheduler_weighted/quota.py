# SPDX-License-Identifier: Apache-2.0
"""What the paths with a quota have carried, both ways, kept in the controller's state over restarts."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from emptcp.api import Connection, ConnectionSubflow


def count(state: dict[str, Any], connections: Iterable[Connection], month: str) -> None:
    """Add what subflows carried since they were counted last; another ``month`` begins at nothing.

    Beside the sums stands how far each open subflow was counted: the next process goes on from there.
    """
    limited = [
        (one, one.path.name)
        for connection in connections
        for one in connection.subflows
        if one.path is not None and one.path.quota is not None
    ]
    if not limited and not state:
        return
    used = dict(state.get("used", {})) if state.get("month", month) == month else {}
    before, counted = state.get("counted", {}), {}
    for one, path in limited:
        name, carried = (
            f"{one.local[0]} {one.local[1]} {one.remote[0]} {one.remote[1]}",
            one.sent + one.received,
        )
        # Fewer than before: another subflow with the same ports.
        fresh = carried - before.get(name, 0) if carried >= before.get(name, 0) else carried
        used[path] = used.get(path, 0) + fresh
        counted[name] = carried
    state.update(month=month, used=used, counted=counted)


def spent(state: dict[str, Any], subflow: ConnectionSubflow) -> bool:
    """Whether a subflow's path has a quota and used it up."""
    path = subflow.path
    if path is None or path.quota is None:
        return False
    return bool(state.get("used", {}).get(path.name, 0) >= path.quota)


def month(renews: int) -> str:
    """Return the month that quotas belong to now, begun on day ``renews``; empty: they never begin anew."""
    if not renews:
        return ""
    return time.strftime("%Y-%m", time.localtime(time.time() - (renews - 1) * 86400))
