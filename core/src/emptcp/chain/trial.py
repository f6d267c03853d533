# SPDX-License-Identifier: Apache-2.0
"""What the programs in force would do to packets of a subflow, asked of copies attached to nothing.

A copy has the policies, parameters and switches of the running program and the entries of its sets and maps,
and is given the subflow's entry of the flow table; what else it changes is its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emptcp.chain import filling, placement, states
from emptcp.chain.bind import bind
from emptcp.chain.dryrun import Runner
from emptcp.errors import EmptcpError
from emptcp.policy import file

if TYPE_CHECKING:
    from emptcp.chain.counters import Counters
    from emptcp.chain.description import PolicyRecord, StageRecord
    from emptcp.chain.pins import Pins
    from emptcp.chain.plan import BoundPolicy
    from emptcp.chain.running import Running
    from emptcp.hooks.namespaces import Namespace
    from emptcp.plugins.catalog import Catalog

AGAIN = 5.0
"""Seconds after which a copy is made anew that looks into sets or maps."""


@dataclass(frozen=True)
class Stage:
    """What one stage said of one packet.

    ``answer`` is whether a selector matched, ``None`` where it was not asked; ``verdict`` is an actor's,
    empty where it was not run. ``reasons`` are why it left the packet untouched.
    """

    id: str
    text: str
    answer: bool | None = None
    verdict: str = ""
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tried:
    """What one policy did to one packet: whether its chain ran, and the verdict with which it ended.

    ``failed`` is why it could not be tried.
    """

    table: str
    policy: str
    off: bool = False
    ran: bool = False
    verdict: str = ""
    selectors: tuple[Stage, ...] = ()
    actors: tuple[Stage, ...] = ()
    failed: str = ""


class Trials:
    """Copies of a namespace's programs, made when first asked and kept while the programs are the same.

    They are unloaded by :meth:`close`.
    """

    def __init__(self, pins: Pins, catalog: Catalog, namespace: Namespace) -> None:
        self._pins, self._catalog, self._namespace = pins, catalog, namespace
        self._copies: dict[object, _Copy] = {}

    def ask(
        self, running: Running, link: str, frames: Sequence[bytes], entry: tuple[bytes, bytes] | None
    ) -> list[list[Tried]]:
        """Return for each frame what each policy of a program would do to it.

        ``frames`` begin as those of the program's device do (``link``); ``entry`` is the subflow's key and
        its value in the flow table, ``None`` where it has none.
        """
        about = running.description
        same = (about.hook, about.backend, about.engine, link, in_force(running))
        found = self._copies.get(same)
        if found is None or found.old:
            if found is not None:
                found.close()
            found = self._copies[same] = _Copy(self._pins, self._catalog, self._namespace, running, link)
        return found.ask(frames, entry)

    def close(self) -> None:
        """Unload the copies."""
        for one in self._copies.values():
            one.close()
        self._copies.clear()


class _Copy:
    """One program's copy. Policies that can't be bound any more, say their plugin is gone, are left out."""

    def __init__(
        self, pins: Pins, catalog: Catalog, namespace: Namespace, running: Running, link: str
    ) -> None:
        about, devices = running.description, placement.indexes(namespace)
        self._policies, self._chains = about.policies, about.chains
        self._off = {(one.table, one.name): running.off(one) for one in about.policies}
        self._failed: dict[tuple[str, str], str] = {}
        bound = list(self._bound(about.hook, catalog, devices))
        self._made = time.monotonic()
        self._looks_up = any(stage.stores for one in bound for stage in one.everything)
        self._runner: Runner | None = None
        if bound:
            self._runner = Runner(
                bound,
                about.hook,
                about.backend.removesuffix("-generic"),
                link,
                about.engine,
                off=lambda table, policy: self._off[table, policy],
                contents=filling.contents(pins),
                slots=states.known(pins, about.cookie),
            )

    def _bound(self, hook: str, catalog: Catalog, devices: Callable[[str], int]) -> Iterator[BoundPolicy]:
        for record in self._policies:
            table = file.loads(record.source)
            try:
                yield bind(table, table.policies[0], hook, catalog, devices)
            except EmptcpError as error:
                self._failed[record.table, record.name] = error.sentence

    @property
    def old(self) -> bool:
        """Whether sets or maps may have other entries by now."""
        return self._looks_up and time.monotonic() - self._made > AGAIN

    def ask(self, frames: Sequence[bytes], entry: tuple[bytes, bytes] | None) -> list[list[Tried]]:
        """See :class:`Trials`."""
        return [list(self._of_frame(frame, entry)) for frame in frames]

    def _of_frame(self, frame: bytes, entry: tuple[bytes, bytes] | None) -> Iterator[Tried]:
        counts: dict[str, Counters] = {}
        if self._runner is not None:
            if entry is not None:
                self._runner.shared.flows().update(*entry)
            counts = self._runner.run(frame).counts
        for record in self._policies:
            name = record.table, record.name
            if name in self._failed:
                yield Tried(*name, self._off[name], failed=self._failed[name])
            else:
                yield self._tried(record, counts)

    def _tried(self, record: PolicyRecord, counts: dict[str, Counters]) -> Tried:
        pairs = [(stage, counts[f"{record.home}/{stage.id}"]) for stage in record.stages]
        asked = tuple(_asked(*pair) for pair in pairs if pair[0].kind == "selector")
        done = tuple(_done(*pair) for pair in pairs if pair[0].kind != "selector")
        said = [one.verdict for one in done if one.verdict]
        if said and said[-1] == "GOTO":
            said += self._of_chains(record.table, counts)
        off = self._off[record.table, record.name]
        return Tried(record.table, record.name, off, bool(said), said[-1] if said else "", asked, done)

    def _of_chains(self, table: str, counts: dict[str, Counters]) -> list[str]:
        """Return how the named chains of a table ended that were gone to, if not by their ends."""
        chains = [chain for chain in self._chains if chain.table == table]
        done = [
            _done(stage, counts[f"{chain.home}/{stage.id}"]) for chain in chains for stage in chain.stages
        ]
        ended = [one.verdict for one in done if one.verdict not in ("", "NEXT", "GOTO")]
        return ended or ["NEXT"]

    def close(self) -> None:
        """Unload it."""
        if self._runner is not None:
            self._runner.close()


def _asked(stage: StageRecord, count: Counters) -> Stage:
    answer = bool(count.matches) if count.packets else None
    return Stage(stage.id, stage.text, answer, reasons=tuple(count.reasons))


def _done(stage: StageRecord, count: Counters) -> Stage:
    others = {
        "GOTO": count.matches,
        "RETURN": count.returns,
        "ACCEPT": count.accepts,
        "DROP": count.drops,
        "REDIRECT": count.redirects,
    }
    usual = "GOTO" if stage.kind == "goto" else "NEXT"
    verdict = next((name for name, often in others.items() if often), usual) if count.packets else ""
    return Stage(stage.id, stage.text, verdict=verdict, reasons=tuple(count.reasons))


def in_force(running: Running) -> tuple[tuple[str, str, bool], ...]:
    """Return a program's policies, each with its table, its text and whether it is off."""
    return tuple((one.table, one.source, running.off(one)) for one in running.description.policies)
