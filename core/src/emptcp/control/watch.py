# SPDX-License-Identifier: Apache-2.0
"""A guard for a while: over one table, after it was applied."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import TracebackType

from emptcp.chain.trips import Trip
from emptcp.control.guard import Guard
from emptcp.errors import EmptcpError
from emptcp.hooks import namespaces
from emptcp.hooks.namespaces import Namespace
from emptcp.plugins.catalog import Catalog
from emptcp.policy.model import Table
from emptcp.pybpf.errors import BpfError

STEP = 0.5
"""Seconds between two looks."""

FAILURES = 3
"""Looks in a row that may fail, since somebody changes what runs at that moment."""


class Watch:
    """Watches over one table from before it is applied. A context manager.

    Raises :class:`OSError` where packets can't be heard.
    """

    def __init__(self, table: Table, netns: str) -> None:
        self._guard = Guard(table.name)
        self._guard.know(Catalog.of_enabled())
        try:
            self._guard.begin(_spaces(table, netns))
        except BaseException:
            self._guard.close()
            raise

    def over(self, seconds: float, tell: Callable[[float], None] = lambda left: None) -> list[Trip]:
        """Watch for ``seconds``; return the policies that were switched off, as soon as one was.

        Returns at once when nothing of the table is guarded, or not any more. ``tell`` is called before each
        wait with the seconds that are left.
        """
        deadline = time.monotonic() + seconds
        while not (trips := self._look()) and self._guard.watches:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            tell(left)
            time.sleep(min(STEP, left))
        return trips

    def _look(self) -> list[Trip]:
        for _ in range(FAILURES - 1):
            try:
                return self._guard.look()
            except (EmptcpError, BpfError):
                time.sleep(STEP)
        return self._guard.look()

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._guard.close()


def is_guarded(table: Table) -> bool:
    """Return whether a policy of a table that runs is one for a guard."""
    guard = Guard(table.name)
    guard.know(Catalog.of_enabled())
    return guard.has_work()


def _spaces(table: Table, netns: str) -> Iterator[Namespace]:
    """Yield the namespaces that a table names; whoever applies it refuses those that are not there."""
    for where in sorted({netns if policy.netns is None else policy.netns for policy in table.policies}):
        try:
            yield namespaces.resolve(where)
        except EmptcpError:
            continue
