# SPDX-License-Identifier: Apache-2.0
"""A guard for a while: over one table, after it was applied."""

from __future__ import annotations

import time
from types import TracebackType

from emptcp.control.guard import Guard, Trip
from emptcp.hooks import namespaces
from emptcp.plugins.catalog import Catalog
from emptcp.policy.model import Table

STEP = 0.5
"""Seconds between two looks."""


class Watch:
    """Watches over one table from before it is applied. A context manager."""

    def __init__(self, table: Table, netns: str) -> None:
        self._guard = Guard(table.name)
        self._guard.know(Catalog.of_enabled())
        where = {netns if policy.netns is None else policy.netns for policy in table.policies}
        try:
            self._guard.begin(namespaces.resolve(name) for name in sorted(where))
        except BaseException:
            self._guard.close()
            raise

    def over(self, seconds: float) -> list[Trip]:
        """Watch for ``seconds``; return the policies that were switched off, as soon as one was.

        Returns at once when nothing of the table is guarded.
        """
        deadline = time.monotonic() + seconds
        while not (trips := self._guard.look()) and self._guard.watches and time.monotonic() < deadline:
            time.sleep(STEP)
        return trips

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._guard.close()
