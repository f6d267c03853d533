# SPDX-License-Identifier: Apache-2.0
"""Let stages look at this host's subflows again and again: the hook ``emptcp_sockets`` of ``emptcp run``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from emptcp.chain import effects, running
from emptcp.chain.trial import AGAIN, in_force
from emptcp.mptcp.sockets import Snapshot
from emptcp.pybpf import features

if TYPE_CHECKING:
    from emptcp.chain.description import PolicyRecord
    from emptcp.chain.effects import Effects
    from emptcp.chain.pins import Pins
    from emptcp.chain.running import Everything
    from emptcp.plugins.catalog import Catalog
    from emptcp.plugins.manager import Manager


class Upkeep:
    """Tells plugins of the stages that run, which stay bound and loaded while the programs are the same.

    So a policy is asked once whether it selects a subflow; one that looks into sets or maps, every 5 s.
    """

    def __init__(self) -> None:
        self._reader = Snapshot()
        self._stages: list[Effects] = []
        self._seen: object = None
        self._until = float("inf")

    def look(self, pins: Pins, catalog: Catalog, manager: Manager) -> None:
        """Call the hook once for each stage."""
        hook = manager.hook.emptcp_sockets
        plugins = {one.plugin_name for one in hook.get_hookimpls()}
        if not plugins or not features.has("bpf_iter_tcp"):
            return
        with running.everything(pins) as found:
            now = catalog, manager, _identity(found)
            if now != self._seen or time.monotonic() > self._until:
                self.close()
                chosen = _chosen(found, plugins)
                names = frozenset((one.table, one.name) for one in chosen)
                self._stages = effects.of_running(pins, catalog, manager, found.values(), names)[0]
                looks_up = any("@" in one.source for one in chosen)
                self._until = time.monotonic() + AGAIN if looks_up else float("inf")
                self._seen = now
        self._reader.forget()
        for stages in self._stages:
            stages.sockets(self._reader)

    def close(self) -> None:
        """Unload what was loaded."""
        for stages in self._stages:
            stages.close()
        self._stages, self._seen = [], None
        self._reader.close()
        self._reader = Snapshot()


def _identity(found: Everything) -> object:
    return [(place, one.program.info.id, one.detached, in_force(one)) for place, one in sorted(found.items())]


def _chosen(found: Everything, plugins: set[str]) -> list[PolicyRecord]:
    """Return the policies that are on, of programs that use one of the plugins."""
    return [
        policy
        for one in found.values()
        if not one.detached and plugins & {stage.plugin for stage in one.description.stages().values()}
        for policy in one.description.policies
        if not one.off(policy)
    ]
