# SPDX-License-Identifier: Apache-2.0
"""One command's view of plugins and kernel, and the steps by which it brings a table to where it should be.

A change goes in four steps. *Place*: find the devices, bind the policies. *Decide*, per device and hook:
leave alone, write parameters, switch to a new program, attach, detach. *Load* every new program, while the
plugins check their stages; nothing has changed so far, so a refusal costs nothing. *Carry out*, with the
journal written first: each switch is one link update, so a packet sees the old chain or the new one. If a
step fails, the steps before it are taken back; if the process dies, the next command carries the journal's
entry through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property

from emptcp import pybpf
from emptcp.chain import (
    attachment,
    decide,
    effects,
    filling,
    history,
    instance,
    lookups,
    off,
    pins,
    placement,
    probation,
    running,
    sockets,
    stranded,
    suspension,
    tables,
)
from emptcp.chain.bind import stage_ids
from emptcp.chain.decide import ATTACH, DETACH, Decision
from emptcp.chain.effects import Effects
from emptcp.chain.filling import Filled, Filling
from emptcp.chain.load import Loader
from emptcp.chain.off import Names, Off
from emptcp.chain.pins import Pins
from emptcp.chain.plan import FragmentRef
from emptcp.chain.replacing import Replacing
from emptcp.chain.running import Everything
from emptcp.chain.storage import Store
from emptcp.chain.stores import Stores
from emptcp.chain.stranded import Stranded
from emptcp.errors import EmptcpError, quoted
from emptcp.hooks import foreign
from emptcp.hooks.namespaces import Namespace
from emptcp.plugins.catalog import BoundStage, Catalog
from emptcp.plugins.discovery import Plugin
from emptcp.plugins.manager import Manager
from emptcp.plugins.state import judged
from emptcp.policy import file, model, text, values
from emptcp.pybpf import features
from emptcp.pybpf.feature_table import FEATURES


@dataclass(frozen=True)
class Done:
    """What was done at one location: ``action`` is attach, switch, tune, detach or keep."""

    action: str
    device: str
    hook: str
    backend: str
    reason: str
    policies: tuple[str, ...]
    netns: str = ""


@dataclass
class Outcome:
    """What a command did, or would do (``dry_run``), and what was worth a word."""

    table: str
    done: list[Done] = field(default_factory=list)
    filled: list[Filled] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    dry_run: bool = False

    @property
    def changed(self) -> bool:
        """Whether anything was not as wanted."""
        return bool(self.filled) or any(one.action != "keep" for one in self.done)


@dataclass
class Session:
    """One command's view of plugins and kernel."""

    pins: Pins
    plugins: list[Plugin]
    written: model.Table | None = None
    noting: bool = True

    @cached_property
    def catalog(self) -> Catalog:
        """What the plugins provide, by their manifests."""
        return Catalog(self.plugins)

    @cached_property
    def manager(self) -> Manager:
        """Their Python sides, imported when they are asked first."""
        made = Manager(report=lambda failure: None)
        made.load(self.plugins)
        return made

    @classmethod
    @contextmanager
    def open(cls, writing: bool = True) -> Iterator[Session]:
        """Open the pin tree (made if ``writing``) and the plugins."""
        tree = pins.open_or_make() if writing else pins.find() or Pins(pins.run_folder() / "none")
        session = cls(tree, judged())
        try:
            yield session
        finally:
            if writing:
                _prune(tree)

    def carry_through(self, but: str = "") -> None:
        """Finish what a crash interrupted, except for a table that is about to be changed anyway.

        What can't be finished stays in the journal, for `doctor` to tell of, and stops no other table.
        """
        self._finish_switching()
        for entry in tables.unfinished():
            if entry.table != but:
                self.bring(entry)
        pending = probation.current()
        if pending is not None and pending.left <= 0:
            self._end_probation(pending)

    def _finish_switching(self) -> None:
        """Carry through what a crash interrupted of `off` or `on`, as far as it goes."""
        state = off.read()
        if not state.telling:
            return
        with running.everything(self.pins) as found:
            suspension.settle(self.pins, found.values(), state, attach=True)
            ended = frozenset(name for name in state.telling if state.silences(*name))
            for names, occasion in ((ended, Effects.removed), (state.telling - ended, Effects.resumed)):
                self._tell_running(found, names, occasion)
        sockets.run_everywhere(self.pins, suspended=True)
        off.keep(replace(state, telling=frozenset()))

    def _tell_running(self, found: Everything, names: Names, occasion: Callable[[Effects], None]) -> None:
        for stages in effects.of_running(self.pins, self.catalog, self.manager, found.values(), names)[0]:
            with closing(stages):
                occasion(stages)

    def _end_probation(self, pending: probation.Probation) -> None:
        """Take a change back that nobody confirmed; if that fails it stays noted, for `doctor` to tell of."""
        with self._unnoted():
            self.bring(pending.undone)
        if tables.read(pending.table) == pending.before:
            # First what is done again while the probation is noted, if this is cut off here. The table had no
            # other change since; one that is older may say the same, and is not forgotten instead.
            of_table = [change for change in history.everything() if change.after.table == pending.table]
            history.forget([change for change in of_table[-1:] if change.after == pending.after])
            probation.end()

    def rollback(self, count: int) -> list[Outcome]:
        """Take the last changes back: each table to what it was before the first of them."""
        changes = history.last(count)
        by_table = {change.after.table: change for change in reversed(changes)}
        outcomes = []
        for table, first in by_table.items():
            with self._unnoted():
                outcomes.append(self.change(first.undone))
            history.forget([change for change in changes if change.after.table == table])
        return outcomes

    @contextmanager
    def _unnoted(self) -> Iterator[None]:
        """Keep what takes changes back out of the history."""
        self.noting = False
        try:
            yield
        finally:
            self.noting = True

    def bring(self, entry: tables.Entry) -> Outcome:
        """Bring a table as far as it can be brought; what is missing, or refused, becomes a warning."""
        absent: list[EmptcpError] = []
        try:
            outcome = self.change(entry, absent=absent)
        except (EmptcpError, pybpf.BpfError) as error:
            return Outcome(entry.table, warnings=[str(error)])
        outcome.warnings += map(str, absent)
        return outcome

    def change(
        self,
        entry: tables.Entry,
        *,
        dry_run: bool = False,
        keep_effects: bool = False,
        force: bool = False,
        new_maps: bool = False,
        absent: list[EmptcpError] | None = None,
    ) -> Outcome:
        """Bring one table to an entry; see the module's text for the steps.

        With ``force``, policies of other tables that can't be carried over are left out; with ``new_maps``,
        plugins' maps that are laid out otherwise than needed are made anew. With a list ``absent``, what
        names a namespace or device that is not there goes there and is no error.
        """
        tables.read(entry.table)  # a damaged record is refused before anything is changed
        table = self._read(entry) if entry.text else None
        stages = self._bound(table) if table is not None else []
        sites = placement.place(table, entry.netns, self.catalog, absent) if table is not None else {}
        state = off.read()
        wanted = lookups.everything(table, self.catalog) if table is not None else []
        fillings = filling.decide(self.pins, wanted, table is not None and table.exact)
        given_up: list[Stranded] | None = [] if force else None
        outcome = Outcome(entry.table, dry_run=dry_run)
        with ExitStack() as opened:
            before = opened.enter_context(running.everything(self.pins))
            decisions = decide.decide(
                entry.table, sites, before, self.catalog, given_up, suspended=state.everything
            )
            outcome.warnings += self._of_table(table, state) if table is not None else []
            outcome.warnings += [*stranded.given_up(given_up or ()), *filling.remarks(fillings)]
            if absent is None:  # those who bring many tables say it once
                outcome.warnings += map(str, tables.damaged())
            outcome.warnings += _sockets_out_of_reach(decisions)
            if not keep_effects:
                outcome.warnings += effects.untold(entry.table, decisions, self.catalog, state.heeds)
            replacing = Replacing(self.pins, decide.leaving(decisions), asked=new_maps)
            opened.callback(replacing.close)
            loader = Loader(None if dry_run else self.pins, opened, state.skips, replacing)
            with loader.loading() as threads:
                for decision in decisions:
                    loader.prepare(decision)
                self._validate(stages)
                outcome.warnings += [remark for decision in decisions for remark in _remarks(decision)]
                if not dry_run:
                    told = opened.enter_context(closing(self._effects(entry.table, decisions)))
                    told.look_ahead(threads)
            if not dry_run:
                assert loader.stores is not None
                stored = _Stored(loader.stores, wanted, fillings, replacing)
                self._carry_out(entry, table, told, decisions, stored, keep_effects)
        outcome.done = [_done(decision) for decision in decisions]
        outcome.filled = filling.done(fillings)
        outcome.warnings += [str(failure) for failure in self.manager.failures]
        return outcome

    def _of_table(self, table: model.Table, state: Off) -> list[str]:
        remarks = [*state.remarks(table.name), *decide.unreachable(table, self.catalog)]
        return [*remarks, *_without_process(table)]

    def told(self, entry: tables.Entry) -> list[str]:
        """Tell the plugins of the stages of one table as they run; return why if they can't be told."""
        try:
            self._tell(entry)
        except (EmptcpError, pybpf.BpfError) as error:
            return [f"table {quoted(entry.table)}: {error}"]
        return []

    def _tell(self, entry: tables.Entry) -> None:
        table = recorded(entry)
        self._validate(self._bound(table))
        sites = placement.place(table, entry.netns, self.catalog, [])
        with running.everything(self.pins) as found:
            decisions = decide.decide(entry.table, sites, found, self.catalog, [])
            with closing(self._effects(entry.table, decisions)) as told:
                told.everything()

    def _read(self, entry: tables.Entry) -> model.Table:
        """Return an entry's table, as its author wrote it if that is known: errors then name his lines."""
        if self.written is not None and text.table_text(self.written) == entry.text:
            return self.written
        return recorded(entry)

    def _bound(self, table: model.Table) -> list[tuple[BoundStage, model.Policy]]:
        """Return the stages of each policy, which this host has all that they need for."""
        found = []
        for policy in table.policies:
            for _, spec in stage_ids(table, policy, self.catalog):
                if isinstance(spec, model.InSet):
                    continue
                stage = self.catalog.bind(spec, devices=values.any_device)
                _check_resident(stage, policy)
                _check_features(stage, policy)
                found.append((stage, policy))
        return found

    def _validate(self, stages: list[tuple[BoundStage, model.Policy]]) -> None:
        for stage, policy in stages:
            self.manager.validate(stage, policy)

    def _effects(self, table: str, decisions: list[Decision]) -> Effects:
        return Effects(self.pins, self.catalog, self.manager, table, decisions, off.read().heeds)

    def _carry_out(
        self,
        entry: tables.Entry,
        table: model.Table | None,
        told: Effects,
        decisions: list[Decision],
        stored: _Stored,
        keep_effects: bool,
    ) -> None:
        """Switch everything, or nothing."""
        told.applying()
        tables.begin(entry)
        with ExitStack() as undo:
            undo.callback(tables.abandon, entry)
            undo.callback(stored.replacing.carry_out())
            undo.callback(filling.carry_out(self.pins, stored.opened, stored.fillings))
            for namespace, companions in _socket_companions(decisions):
                undo.push(sockets.attach(self.pins, namespace, companions))
            if off.read().everything:
                sockets.suspend(self.pins)
            for decision in decisions:
                undo.callback(attachment.carry_out(self.pins, decision))
            undo.pop_all()
        for decision in decisions:
            attachment.settle(self.pins, decision)
        filling.settle(self.pins, entry.table, stored.wanted, _declared(table))
        if not keep_effects:
            told.removed()
            sockets.run_everywhere(self.pins)
        before = tables.read(entry.table)
        if self.noting and before != entry:
            history.note(before, entry)
        tables.finish(entry)
        told.applied()
        sockets.run_until_done(self.pins)


def _socket_companions(decisions: list[Decision]) -> Iterator[tuple[Namespace, tuple[FragmentRef, ...]]]:
    """Yield each namespace with the socket companions that the policies there need after the change."""
    for decision in decisions:
        if decision.action != DETACH and not decision.site.gone:
            yield decision.site.namespace, sockets.wanted(decision.policies)


def _sockets_out_of_reach(decisions: list[Decision]) -> list[str]:
    """Return a warning when actors have socket companions that this kernel can't run."""
    wanted = {one.plugin for _, companions in _socket_companions(decisions) for one in companions}
    why = sockets.missing() if wanted else ""
    plugins = sorted(wanted) if why else ()
    return [f"plugin '{plugin}' can't reach sockets on this kernel: {why}" for plugin in plugins]


def _prune(tree: Pins) -> None:
    """Remove from the pin tree what nothing that runs needs."""
    if tree.with_sockets():
        with running.everything(tree) as found:
            needed = {
                (one.location.cookie, name) for one in found.values() for name in one.description.sockets
            }
        sockets.prune(tree, needed)
    known = tables.known()
    for table in tree.with_stores():
        if table not in known:
            filling.settle(tree, table, (), ())
    tree.prune()


@dataclass(frozen=True)
class _Stored:
    """A table's sets and maps, those that it wants, what is to be done to some; plugins' maps made anew."""

    opened: Stores
    wanted: list[Store]
    fillings: list[Filling]
    replacing: Replacing


def _declared(table: model.Table | None) -> list[tuple[str, str]]:
    if table is None:
        return []
    return [*(("set", one.name) for one in table.sets), *(("map", one.name) for one in table.maps)]


def recorded(entry: tables.Entry) -> model.Table:
    """Return the table of an entry; places in it are not those of the file that it came from."""
    return file.loads(entry.text, f"table {entry.table}")


def _without_process(table: model.Table) -> list[str]:
    """Return a warning when nobody is there who runs the table's controllers."""
    if not table.controllers or instance.resident(pins.run_folder()) is not None:
        return []
    names = ", ".join(quoted(one.name) for one in table.controllers)
    return [f"controller {names} waits for `emptcp run`: until then nothing new is set"]


def _check_resident(stage: BoundStage, policy: model.Policy) -> None:
    if stage.resident and instance.resident(pins.run_folder()) is None:
        raise EmptcpError(
            f"{stage.type.kind} '{stage.type.name}' of policy {quoted(policy.name)} needs a process in user "
            "space, and no `emptcp run` is there",
            fix="Start one first, for instance: emptcp run &",
            where=str(stage.spec.where),
        )


def _check_features(stage: BoundStage, policy: model.Policy) -> None:
    for name in stage.type.declaration.features:
        missing = features.reason(name)
        if missing:
            raise EmptcpError(
                f"{stage.type.kind} '{stage.type.name}' of policy {quoted(policy.name)} needs what this "
                f"kernel lacks, {FEATURES[name]}: {missing}",
                fix="See what there is: emptcp doctor",
                where=str(stage.spec.where),
            )


def _remarks(decision: Decision) -> Iterator[str]:
    """Yield what an operator should know about a first attachment."""
    if decision.action != ATTACH or decision.place is None:
        return
    device = decision.site.device
    if decision.place.backend == "xdp" and not device.virtual:
        yield f"native XDP may reset the link of {device.name} for a moment, this once"
    for program in foreign.programs(decision.site.namespace, device):
        if program.hook == decision.hook:
            yield f"device {device.name} has a program of another tool, which goes on running: {program}"


def _done(decision: Decision) -> Done:
    about = decision.before.description if decision.before is not None else None
    place = decision.place
    return Done(
        action=decision.action,
        device=decision.site.device.name,
        hook=decision.hook,
        backend=place.backend if place is not None else about.backend if about is not None else "",
        reason=place.reason if place is not None else "",
        policies=tuple(f"{policy.table}/{policy.name}" for policy in decision.policies),
        netns=decision.site.namespace.name,
    )
