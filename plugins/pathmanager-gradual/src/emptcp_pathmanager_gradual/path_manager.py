# SPDX-License-Identifier: Apache-2.0
"""Gradual opening (the eMPTCP paper, use case 2): one subflow, and more for connections that need them.

A short transfer is over before a second subflow could help, and pays for its handshake. A long one gains by
each path that has a bottleneck of its own, and loses by one that shares it.
"""

from __future__ import annotations

from collections.abc import Sequence

from emptcp.api import Connection, Controller, Path


class Gradual(Controller):
    """Allow one path more at each threshold, and none that shares a link with those in use."""

    interval = 0.05
    after: Sequence[int]

    def tick_connection(self, connection: Connection) -> None:
        """Allow what the connection has earned by the bytes that it carried."""
        carried = connection.sent + connection.received
        earned = 1 + sum(carried >= threshold for threshold in self.after)
        used = self._used(connection)
        while 0 < len(used) < earned:
            path = next((one for one in self.paths.values() if not shares(one, used)), None)
            if path is None:
                return
            connection.allow(path)
            used.append(path)

    def _used(self, connection: Connection) -> list[Path]:
        """Return the paths of its subflows, and those that it was allowed."""
        blocked = connection.blocked - {one.path.name for one in connection.subflows if one.path is not None}
        return [path for name, path in self.paths.items() if name not in blocked]


def shares(path: Path, used: Sequence[Path]) -> bool:
    """Whether a path is one of those in use, or has a link in common with one."""
    return any(path == one or path.shares_link_with(one) for one in used)
