# SPDX-License-Identifier: Apache-2.0
"""One controller of a running table: its process, its maps, its connections."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from emptcp.chain import controllers
from emptcp.control import memory
from emptcp.control.assignment import Assignment, Hop
from emptcp.control.path import Path, places
from emptcp.control.process import Answer, ControllerProcess
from emptcp.control.selection import Selection
from emptcp.control.settings import Changed, ControllerMaps, decode
from emptcp.plugins.controllers import HOP
from emptcp.policy import model

if TYPE_CHECKING:
    from emptcp.chain.pins import Pins
    from emptcp.hooks.namespaces import Namespace
    from emptcp.plugins.catalog import Catalog
    from emptcp.plugins.controllers import BoundController

LOOK = 1.0
"""Seconds after which it is looked again which devices the paths have."""


@dataclass(frozen=True)
class Name:
    """What tells a controller from all others."""

    table: str
    controller: str

    def __str__(self) -> str:
        return f"controller '{self.controller}' of table '{self.table}'"


@dataclass(frozen=True)
class Wanted:
    """What is to run: when its own declaration or its plugin is another one, it is started anew.

    ``own`` is that declaration: what the file says of it, what its class is given, what of the table is made
    for it or looked into by its ``when``.
    """

    paths: tuple[Path, ...]
    own: tuple[object, ...]
    namespace: Namespace
    release: str
    bound: BoundController = field(compare=False, repr=False)
    table: model.Table = field(compare=False, repr=False)

    @classmethod
    def of(cls, table: model.Table, bound: BoundController, namespace: Namespace, release: str) -> Wanted:
        """Return what a controller of a completed table is to run with. Raises :class:`EmptcpError`."""
        known = {path.name: path for path in table.paths}
        paths = tuple(Path.of(known[name]) for name in bound.spec.paths)
        asked = {leaf.set for leaf in model.leaves(bound.spec.when) if isinstance(leaf, model.InSet)}
        sets = tuple(one for one in table.sets if one.name in asked)
        made, kind = tuple(controllers.targets(table, bound)), bound.type
        told = (bound.spec, dict(bound.values), bound.interval)
        own = (*told, kind.distribution, kind.declaration.entry, made, sets)
        return cls(paths, own, namespace, release, bound, table)

    @property
    def name(self) -> Name:
        """Its name."""
        return Name(self.table.name, self.bound.spec.name)

    @property
    def at_hop(self) -> bool:
        """Whether it looks at what passes, where there are no sockets."""
        return self.bound.type.declaration.end == HOP


class Charge:
    """A controller that runs. Raises :class:`EmptcpError` when its policies are not in force."""

    def __init__(
        self, tree: Pins, wanted: Wanted, catalog: Catalog, packages: Iterable[str], now: float
    ) -> None:
        self.wanted = wanted
        self.name = wanted.name
        self._places: dict[str, str] = {}
        self._looked = 0.0
        with ExitStack() as opened:
            bound, spec = wanted.bound, wanted.bound.spec
            self.maps = opened.enter_context(ControllerMaps(tree, wanted.table, spec, catalog))
            first = controllers.policy_name(spec.name, self.maps.targets[0])
            found = next(one for one in wanted.table.policies if one.name == first)
            policy = replace(found, when=spec.when, hooks=found.hooks[:1])
            self._selection: Selection | None = None
            if not wanted.at_hop:
                self._selection = Selection(tree, wanted.table, policy, catalog)
                opened.callback(self._selection.close)
            assignment = Assignment(
                entry=bound.type.declaration.entry,
                packages=tuple(packages),
                parameters=dict(bound.values),
                paths=wanted.paths,
                interval=bound.interval,
                targets=self.maps.targets,
                settings=self.maps.read(),
                state_file=str(memory.file_of(self.name.table, self.name.controller)),
                hop=Hop(wanted.namespace, wanted.table, policy) if wanted.at_hop else None,
            )
            self.process = ControllerProcess(assignment, now)
            opened.callback(self.process.end)
            self._opened = opened.pop_all()

    def ask(self, now: float, records: bytes) -> None:
        """Begin a tick with all records of the namespace, of which who is at a hop needs none."""
        fresh = self._find_places()
        chosen = self._selection.of(records) if self._selection is not None else b""
        self.process.ask(now, chosen, self._places if fresh else None)

    def _find_places(self) -> bool:
        """Look which devices and addresses the paths have; tell whether they are others than before."""
        now = time.monotonic()
        if self._looked and now - self._looked < LOOK:
            return False
        before, first, self._looked = self._places, not self._looked, now
        self._places = places(self.wanted.namespace, self.wanted.paths)
        return first or self._places != before

    def put_in_force(self, answer: Answer) -> list[Changed]:
        """Write the settings of an answer; return them.

        Raises :class:`EmptcpError` when there is no room, and :class:`ValueError` for an answer that is none.
        """
        changes = list(decode(answer.settings, self.maps.targets))
        self.maps.write(changes)
        return changes

    def withdraw(self) -> list[Changed]:
        """Take all settings back; return what was taken."""
        gone = [Changed(key, name, None) for key, of in self.maps.read().items() for name in of]
        self.maps.write(gone)
        return gone

    def close(self) -> None:
        """End the process; what is set stays."""
        self._opened.close()
