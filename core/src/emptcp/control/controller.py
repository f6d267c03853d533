# SPDX-License-Identifier: Apache-2.0
"""What a plugin's controller is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from emptcp.control.connection import Connection
from emptcp.control.path import Path


class Controller:
    """A policy loop: called again and again with the connections, it sets what shall be of their subflows.

    A subclass has ``tick_connection``, or ``tick`` where connections have to be looked at together. What the
    manifest declares as parameters are attributes: times in seconds, rates in bytes per second, percents as
    a fraction. What a tick sets is put in force when it returns; when it raises nothing is.

    ::

        class Spare(Controller):
            \"\"\"Use the slow subflows only when the fast one has too much to do.\"\"\"

            interval = 0.1

            def tick_connection(self, connection):
                fast, *slow = connection.subflows.by_rtt()
                for one in slow:
                    one.backup = fast.completion(connection.queued) < one.completion()
    """

    interval: float = 0.1
    """Seconds from one tick to the next; the policy file may say another time."""

    def __init__(self, parameters: Mapping[str, Any] | None = None, paths: Sequence[Path] = ()) -> None:
        self.paths: Mapping[str, Path] = {path.name: path for path in paths}
        """The paths that the policy file gives it, by name, in the file's order."""
        self.load: Mapping[str, float] = {}
        """At a hop, what leaves by each path's device, in bytes per second over about a second, whoever
        sends it; by the path's name."""
        self.state: dict[str, Any] = {}
        """What outlives the process: a JSON object, there from the first tick on, written after a tick that
        changed it (once a second at most, a megabyte at most)."""
        for name, value in (parameters or {}).items():
            setattr(self, name, value)

    def tick(self, connections: Sequence[Connection]) -> None:
        """Look at all connections; each has one open subflow or more."""
        for connection in connections:
            self.tick_connection(connection)

    def tick_connection(self, connection: Connection) -> None:
        """Look at one connection, and set what its subflows shall be."""
        raise NotImplementedError(f"{type(self).__name__} has neither tick_connection nor tick")
