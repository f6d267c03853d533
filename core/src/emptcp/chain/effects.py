# SPDX-License-Identifier: Apache-2.0
"""Tell the plugins' Python sides what is coming, and what came, changed and went in the packets' part."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from emptcp.chain import filling, flows, placement, stranded
from emptcp.chain.bind import bind, full_name, stage_ids, stage_number
from emptcp.chain.decide import DETACH, KEEP, Decision, site_of
from emptcp.chain.description import PolicyRecord
from emptcp.chain.dryrun import Runner
from emptcp.chain.flows import States
from emptcp.chain.off import Names
from emptcp.chain.pins import Pins
from emptcp.chain.running import Running
from emptcp.errors import EmptcpError, quoted
from emptcp.hooks.devices import Device
from emptcp.hooks.namespaces import Namespace
from emptcp.mptcp import sockets
from emptcp.mptcp.sockets import Snapshot
from emptcp.plugins.catalog import BoundStage, Catalog
from emptcp.plugins.manager import Manager
from emptcp.plugins.occasions import Change, Ends
from emptcp.policy import file, model, values
from emptcp.pybpf import features


@dataclass(frozen=True)
class _Known:
    """One stage of one policy on one hook of one device, as the plugins are told of it."""

    table: model.Table
    policy: model.Policy
    id: str
    stage: BoundStage
    hook: str
    namespace: Namespace
    device: Device

    @property
    def name(self) -> str:
        """``table/policy/stage``."""
        return full_name(self.table.name, self.policy.name, self.id)


@dataclass(frozen=True)
class _Key:
    """What makes a stage the same before and after a change."""

    cookie: int
    ifindex: int
    hook: str
    policy: str
    stage: str


class Effects:
    """The difference that one change of a table makes to its stages.

    Made before the change is carried out, as what runs is read here, and when its programs are prepared, as
    their plugins have places in flow tables then; told after it. ``told`` picks the policies, by table and
    name, that the plugins are told of: one that is off does nothing. What plugins are handed, a flow table or
    a program that runs their policy's expression, is open until it is closed.
    """

    def __init__(
        self,
        pins: Pins,
        catalog: Catalog,
        manager: Manager,
        table: str,
        decisions: list[Decision],
        told: Callable[[str, str], bool],
    ) -> None:
        self._pins = pins
        self._told = told
        self._catalog = catalog
        self._manager = manager
        self._opened = ExitStack()
        self._runners: dict[tuple[model.Expression | None, str, str], Runner] = {}
        self._flows: dict[tuple[int, str], States | None] = {}
        self._remembered: dict[tuple[int, int, str, str], dict[Any, bool]] = {}
        self._before = dict(pair for decision in decisions for pair in self._ran(table, decision))
        self._after = dict(pair for decision in decisions for pair in self._will_run(table, decision))

    def close(self) -> None:
        """Close what the plugins were handed."""
        self._opened.close()

    def look_ahead(self, threads: Executor) -> None:
        """Load beside other work what the plugins of changed stages read this host's subflows with.

        If that fails, they meet the error themselves.
        """
        acting = {one.plugin_name for one in self._manager.hook.emptcp_applied.get_hookimpls()}
        changed = {known.stage.type.plugin for known, _ in self._changed()}
        if acting & changed and features.has("bpf_iter_tcp"):
            threads.submit(sockets.load)

    def removed(self) -> None:
        """Tell of the stages that are gone, so that their plugins take effects back.

        Of a policy that selects otherwise than before, they are gone for what it selects no more.
        """
        for key, known in self._before.items():
            change, now = self._change(known, None), self._after.get(key)
            if now is not None and now.policy.when != known.policy.when:
                change = _selecting(change, _only_first(change.matches, self._matches(now)))
            elif now is not None:
                continue
            self._manager.hook.emptcp_removed(change=change)

    def resuming(self) -> None:
        """Tell of all stages that run, or would, before they begin again."""
        for known in self._before.values():
            self._manager.hook.emptcp_applying(change=self._change(known, None))

    def resumed(self) -> None:
        """Tell of all stages that began again."""
        for known in self._before.values():
            self._manager.hook.emptcp_applied(change=self._change(known, None))
        self._look(self._before)

    def applying(self) -> None:
        """Tell of the stages that will be new, have other values, or be for other packets."""
        for changed in self._changed():
            self._manager.hook.emptcp_applying(change=self._change(*changed))

    def applied(self) -> None:
        """Tell of the stages that are new, have other values, or are for other packets."""
        for changed in self._changed():
            self._manager.hook.emptcp_applied(change=self._change(*changed))
        self._look(self._after)

    def _changed(self) -> Iterator[tuple[_Known, _Known | None]]:
        for key, known in self._after.items():
            before = self._before.get(key)
            if before is None or _differs(before, known):
                yield known, before

    def everything(self) -> None:
        """Tell of all stages that run, as ``emptcp run`` does when it starts."""
        for known in self._after.values():
            self._manager.hook.emptcp_applied(change=self._change(known, None))
        self._look(self._after)

    def sockets(self, reader: Snapshot) -> None:
        """Let the stages that run look at this host's subflows."""
        for changes in self._by_stage(self._before).values():
            self._manager.hook.emptcp_sockets(changes=changes, reader=reader)

    def _look(self, stages: Mapping[_Key, _Known]) -> None:
        if self._manager.hook.emptcp_sockets.get_hookimpls() and features.has("bpf_iter_tcp"):
            with Snapshot() as reader:
                for changes in self._by_stage(stages).values():
                    self._manager.hook.emptcp_sockets(changes=changes, reader=reader)

    def entries(self, map: str, entries: Mapping[Ends, Any]) -> None:
        """Tell the stages that read a map which entries of it are new, other ones, or (``None``) gone."""
        for known in self._before.values():
            for parameter, value in known.stage.values.items():
                if isinstance(value, model.FromMap) and value.map == map:
                    change = self._change(known, None)
                    hook = self._manager.hook.emptcp_entries
                    hook(change=change, parameter=parameter, entries=entries)

    def released(self, tokens: Collection[int]) -> None:
        """Tell the stages that they are gone for some connections: a set said so, not the policy."""
        from emptcp.mptcp.membership import Members

        members: dict[int, Members] = {}
        for known in self._before.values():
            space = known.namespace
            if space.cookie not in members:
                members[space.cookie] = Members(space, tokens)
            chosen = partial(members[space.cookie].sent, known.device.link)
            self._manager.hook.emptcp_removed(change=_selecting(self._change(known, None), chosen))

    def notes(self) -> dict[tuple[int, str], list[str]]:
        """Return what the plugins note of each stage that runs, by namespace and ``table/policy/stage``."""
        return {
            stage: [line for lines in self._manager.hook.emptcp_notes(changes=changes) for line in lines]
            for stage, changes in self._by_stage(self._before).items()
        }

    def _by_stage(self, stages: Mapping[_Key, _Known]) -> dict[tuple[int, str], list[Change]]:
        """Return each stage in all its places of a namespace."""
        places: dict[tuple[int, str], list[Change]] = {}
        for key, known in stages.items():
            places.setdefault((key.cookie, known.name), []).append(self._change(known, None))
        return places

    def _ran(self, table: str, decision: Decision) -> Iterator[tuple[_Key, _Known]]:
        for record in _records(table, decision):
            if self._told(table, record.name):
                yield from self._stages(record.source, decision)

    def _will_run(self, table: str, decision: Decision) -> Iterator[tuple[_Key, _Known]]:
        for policy in decision.policies if decision.action != DETACH else ():
            if policy.table == table and self._told(table, policy.name):
                yield from self._stages(policy.source, decision)

    def _stages(self, source: str, decision: Decision) -> Iterator[tuple[_Key, _Known]]:
        """Yield a policy's stages; see :func:`untold` for those that can't be bound any more."""
        table = file.loads(source)
        policy, site = table.policies[0], decision.site
        for name, stage in _bound(table, policy, decision, self._catalog):
            if isinstance(stage, BoundStage):
                key = _Key(*site.key, decision.hook, policy.name, name)
                yield key, _Known(table, policy, name, stage, decision.hook, site.namespace, site.device)

    def _change(self, known: _Known, before: _Known | None) -> Change:
        place = (known.namespace.cookie, known.device.ifindex, known.hook, known.policy.name)
        return Change(
            policy=known.policy,
            stage=known.stage,
            hook=known.hook,
            devices=(known.device.name,),
            namespace=known.namespace,
            before=before.stage if before is not None else None,
            matches=self._matches(known),
            flows=self._states(known.namespace.cookie, known.stage.type.plugin),
            number=stage_number(known.name),
            remembered=self._remembered.setdefault(place, {}),
        )

    def _states(self, cookie: int, plugin: str) -> States | None:
        """Return a plugin's slot in a namespace's flow table, opened once."""
        same = cookie, plugin
        if same not in self._flows:
            opened = flows.of_plugin(self._pins, *same)
            self._flows[same] = opened and self._opened.enter_context(closing(opened))
        return self._flows[same]

    def _matches(self, known: _Known) -> Callable[[bytes], bool]:
        """Return what runs the policy's expression over a frame, loading it at the first call."""
        same = (known.policy.when, known.hook, known.device.link)

        def matches(frame: bytes) -> bool:
            if known.policy.when is None:
                return True
            if same not in self._runners:
                narrowed = self._narrowed(known)
                bound = bind(known.table, narrowed, known.hook, self._catalog, values.any_device)
                made = Runner(
                    [bound], known.hook, "tc", known.device.link, contents=filling.contents(self._pins)
                )
                self._runners[same] = self._opened.enter_context(made)
            return bool(self._runners[same].run(frame).matched)

        return matches

    def _narrowed(self, known: _Known) -> model.Policy:
        """Return the policy with an actor that can be bound alone: another one's plugin may be gone."""
        actors = model.actors(known.table, known.policy.do)
        spec = known.stage.spec if known.stage.spec in actors else actors[0]
        return replace(known.policy, do=(spec,))


def of_running(
    pins: Pins, catalog: Catalog, manager: Manager, found: Iterable[Running], names: Names
) -> tuple[list[Effects], list[str]]:
    """Return the stages of running policies, for each table, and a warning for each that can't be told.

    Whoever asks closes the former.
    """
    decisions = [Decision(KEEP, one.location, site_of(one), one.description.hook, one) for one in found]
    chosen = lambda table, policy: (table, policy) in names  # noqa: E731
    of_tables = sorted({table for table, _ in names})
    made = [Effects(pins, catalog, manager, table, decisions, chosen) for table in of_tables]
    return made, [line for table in of_tables for line in untold(table, decisions, catalog, chosen)]


def untold(
    table: str, decisions: list[Decision], catalog: Catalog, told: Callable[[str, str], bool]
) -> list[str]:
    """Return a warning for each stage that ran and can't be bound any more: it has no plugin to tell."""
    found: dict[str, None] = {}
    for decision in decisions:
        ran = decision.before.description.stages() if decision.before is not None else {}
        for record in (one for one in _records(table, decision) if told(table, one.name)):
            source = file.loads(record.source)
            for name, stage in _bound(source, source.policies[0], decision, catalog):
                if isinstance(stage, EmptcpError):
                    plugin = ran[full_name(table, record.name, name)].plugin
                    why, _ = stranded.cause([plugin], stage, catalog)
                    found[_untold(record, name, plugin, why)] = None
    return list(found)


def _untold(record: PolicyRecord, stage: str, plugin: str, why: str) -> str:
    return (
        f"plugin '{plugin}' is not told that stage '{stage}' of policy {quoted(record.name)} ended, and what "
        f"it did in sockets or at peers stays: {why}"
    )


def _records(table: str, decision: Decision) -> Iterator[PolicyRecord]:
    """Yield the policies of a table that ran."""
    if decision.before is None or decision.site.gone:
        return  # and the sockets with it: nothing is left to take effects back from
    for record in decision.before.description.policies:
        if record.table == table:
            yield record


def _bound(
    table: model.Table, policy: model.Policy, decision: Decision, catalog: Catalog
) -> Iterator[tuple[str, BoundStage | EmptcpError]]:
    """Yield the id of each stage and the stage, or why it can't be bound."""
    indexes = placement.indexes(decision.site.namespace)
    for name, spec in stage_ids(table, policy, catalog):
        if isinstance(spec, model.InSet):
            continue
        try:
            yield name, catalog.bind(spec, devices=indexes)
        except EmptcpError as error:
            yield name, error


def _differs(before: _Known, after: _Known) -> bool:
    return before.stage.values != after.stage.values or before.policy.when != after.policy.when


def _selecting(change: Change, matches: Callable[[bytes], bool]) -> Change:
    """Return a change that selects otherwise."""
    return replace(change, matches=matches, remembered={})


def _only_first(first: Callable[[bytes], bool], second: Callable[[bytes], bool]) -> Callable[[bytes], bool]:
    return lambda frame: first(frame) and not second(frame)
