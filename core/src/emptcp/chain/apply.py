# SPDX-License-Identifier: Apache-2.0
"""Make a table what a file says: the one module that changes what is in force.

A change goes in four steps. *Place*: find the devices, bind the policies. *Decide*, per device and hook:
leave alone, write parameters, switch to a new program, attach, detach. *Load* every new program; nothing has
changed so far, so a refusal costs nothing. *Carry out*, with the journal written first: each switch is one
link update, so a packet sees the old chain or the new one. If a step fails, the steps before it are taken
back; if the process dies, the next command carries the journal's entry through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace

from emptcp import pybpf
from emptcp.chain import (
    attachment,
    decide,
    effects,
    history,
    instance,
    pins,
    placement,
    probation,
    running,
    states,
    stranded,
    tables,
)
from emptcp.chain import program as programs
from emptcp.chain.decide import ATTACH, SWITCH, Decision
from emptcp.chain.objects import Objects
from emptcp.chain.pins import Pins
from emptcp.chain.placement import Site
from emptcp.chain.plan import FragmentRef
from emptcp.chain.shared import PinnedMaps, PrivateMaps
from emptcp.chain.stranded import Stranded
from emptcp.errors import EmptcpError, did_you_mean, quoted
from emptcp.hooks import foreign
from emptcp.plugins.catalog import BoundStage, Catalog
from emptcp.plugins.manager import Manager
from emptcp.policy import file, model, support, text
from emptcp.pybpf import features


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
    warnings: list[str] = field(default_factory=list)
    dry_run: bool = False

    @property
    def changed(self) -> bool:
        """Whether anything was not as wanted."""
        return any(one.action != "keep" for one in self.done)


def apply(
    table: model.Table, netns: str = "", *, dry_run: bool = False, keep_effects: bool = False
) -> Outcome:
    """Make a table what ``table`` says; other tables are left alone.

    ``netns`` is the namespace of policies that name none. Raises :class:`EmptcpError` (or
    :class:`~emptcp.pybpf.BpfError`) before anything is changed, or after everything was changed back.
    """
    support.refuse_unsupported(table)
    entry = tables.Entry(table.name, text.table_text(table), netns, table.source)
    if dry_run:
        with Session.open(writing=False) as session:
            session.written = table
            return session.change(entry, dry_run=True)
    with _changing(but=table.name) as session:
        session.written = table
        return session.change(entry, keep_effects=keep_effects)


def apply_on_probation(
    table: model.Table,
    netns: str,
    seconds: float,
    wait: Callable[[], None],
    *,
    keep_effects: bool = False,
) -> tuple[Outcome, bool]:
    """Apply a table, to be taken back after ``seconds`` unless :func:`confirm` is called.

    ``wait`` starts what waits for that, before anything is changed. Returns whether there is a probation:
    there is none when the table was as the file says. Raises as :func:`apply` does.
    """
    support.refuse_unsupported(table)
    entry = tables.Entry(table.name, text.table_text(table), netns, table.source)
    with _changing(but=table.name) as session:
        session.written = table
        before = tables.read(table.name)
        if before == entry:
            return session.change(entry, keep_effects=keep_effects), False
        probation.begin(before, entry, seconds)
        try:
            wait()
            return session.change(entry, keep_effects=keep_effects), True
        except BaseException:
            probation.end()
            raise


def confirm() -> probation.Probation:
    """Keep the change on probation. Raises :class:`EmptcpError` when there is none, or its time is over."""
    with tables.lock():
        found = probation.current()
        if found is None or found.left <= 0:
            raise EmptcpError("no change waits to be confirmed", fix="See: emptcp list")
        probation.end()
        return found


def rollback(count: int = 1) -> list[Outcome]:
    """Take the last ``count`` changes back. Raises :class:`EmptcpError` when so many are not kept."""
    with tables.lock(), Session.open() as session:
        session.carry_through()
        outcomes = session.rollback(count)
        probation.end()
        return outcomes


def end_overdue() -> None:
    """Take a change back whose probation is over."""
    with tables.lock(), Session.open() as session:
        session.carry_through()


@contextmanager
def _changing(but: str = "") -> Iterator[Session]:
    """Open a session for a change: alone, with all that was begun before carried through."""
    with tables.lock(), Session.open() as session:
        session.carry_through(but)
        probation.refuse_others()
        yield session


def remove(
    name: str, policy: str = "", *, dry_run: bool = False, keep_effects: bool = False, force: bool = False
) -> Outcome:
    """Take a table out of force, or only one of its policies.

    ``force`` also takes policies of other tables out of force that can't be carried over into the programs
    without it (:mod:`~emptcp.chain.stranded`). Raises :class:`EmptcpError` when there is no such table or
    policy, and for such other policies without ``force``.
    """
    with _changing(but="" if policy else name) as session:
        entry = _known(name)
        rest = _without(entry, policy) if policy else replace(entry, text="")
        return session.change(rest, dry_run=dry_run, keep_effects=keep_effects, force=force)


def edit(name: str, change: Callable[[model.Table], model.Table], *, dry_run: bool = False) -> Outcome:
    """Change a running table by a function of its model, keeping everything else of it."""
    with _changing() as session:
        entry = _known(name)
        changed = change(_recorded(entry))
        support.refuse_unsupported(changed)
        return session.change(replace(entry, text=text.table_text(changed)), dry_run=dry_run)


def reattach() -> list[Outcome]:
    """Bring every table to where it is meant to be: for devices that came, or came back.

    What stands in the way of one table is a warning of its outcome, and stops no other.
    """
    with tables.lock(), Session.open() as session:
        session.carry_through()
        return [session.bring(entry) for entry in tables.entries()]


def forget(name: str) -> Outcome:
    """Take out of force what runs in the name of a table that there is no record of."""
    with tables.lock(), Session.open() as session:
        return session.bring(tables.Entry(name, ""))


def tell_running() -> list[str]:
    """Tell the plugins of every stage that runs, as a resident process does; return what was worth a word."""
    with tables.lock(), Session.open() as session:
        remarks = [remark for entry in tables.entries() for remark in session.told(entry)]
        damaged = map(str, tables.damaged())
        return [*damaged, *remarks, *(str(failure) for failure in session.manager.failures)]


def _known(name: str) -> tables.Entry:
    entry = tables.read(name) or next((one for one in tables.unfinished() if one.table == name), None)
    if entry is None:
        known = tables.names()
        fix = did_you_mean(name, known).capitalize() or f"There are: {', '.join(known) or 'none'}."
        raise EmptcpError(f"there is no table {quoted(name)}", fix=fix)
    return entry


def _recorded(entry: tables.Entry) -> model.Table:
    """Return the table of an entry; places in it are not those of the file that it came from."""
    return file.loads(entry.text, f"table {entry.table}")


def _without(entry: tables.Entry, policy: str) -> tables.Entry:
    table = _recorded(entry)
    left = tuple(one for one in table.policies if one.name != policy)
    if len(left) == len(table.policies):
        fix = did_you_mean(policy, [one.name for one in table.policies]).capitalize()
        raise EmptcpError(f"table {quoted(entry.table)} has no policy {quoted(policy)}", fix=fix)
    return replace(entry, text=text.table_text(replace(table, policies=left)) if left else "")


@dataclass
class Session:
    """One command's view of plugins and kernel."""

    pins: Pins
    catalog: Catalog
    manager: Manager
    written: model.Table | None = None
    noting: bool = True

    @classmethod
    @contextmanager
    def open(cls, writing: bool = True) -> Iterator[Session]:
        """Open the pin tree (made if ``writing``) and the plugins."""
        tree = pins.open_or_make() if writing else pins.find() or Pins(pins.run_folder() / "none")
        session = cls(tree, Catalog.of_enabled(), Manager.of_enabled(report=lambda failure: None))
        try:
            yield session
        finally:
            if writing:
                tree.prune()

    def carry_through(self, but: str = "") -> None:
        """Finish what a crash interrupted, except for a table that is about to be changed anyway.

        What can't be finished stays in the journal, for `doctor` to tell of, and stops no other table.
        """
        for entry in tables.unfinished():
            if entry.table != but:
                self.bring(entry)
        pending = probation.current()
        if pending is not None and pending.left <= 0:
            self._end_probation(pending)

    def _end_probation(self, pending: probation.Probation) -> None:
        """Take a change back that nobody confirmed; if that fails it stays noted, for `doctor` to tell of."""
        changes = [change for change in history.everything() if change.after == pending.after]
        with self._unnoted():
            self.bring(pending.undone)
        if tables.read(pending.table) == pending.before:
            probation.end()
            history.forget(changes[-1:])

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
        absent: list[EmptcpError] | None = None,
    ) -> Outcome:
        """Bring one table to an entry; see the module's text for the steps.

        With ``force``, policies of other tables that can't be carried over are left out. With a list
        ``absent``, what names a namespace or device that is not there goes there and is no error.
        """
        tables.read(entry.table)  # a damaged record is refused before anything is changed
        table = self._read(entry) if entry.text else None
        sites = self._place(table, entry.netns, absent) if table is not None else {}
        before = running.everything(self.pins)
        given_up: list[Stranded] | None = [] if force else None
        decisions = decide.decide(entry.table, sites, before, self.catalog, given_up)
        outcome = Outcome(entry.table, dry_run=dry_run)
        outcome.warnings += decide.unreachable(table, self.catalog) if table is not None else []
        outcome.warnings += stranded.given_up(given_up or ())
        if absent is None:  # those who bring many tables say it once
            outcome.warnings += map(str, tables.damaged())
        if not keep_effects:
            outcome.warnings += effects.untold(entry.table, decisions, self.catalog)
        with ExitStack() as opened:
            loader = _Loader(None if dry_run else self.pins, opened)
            for decision in decisions:
                loader.prepare(decision)
            outcome.warnings += [remark for decision in decisions for remark in _remarks(decision)]
            if not dry_run:
                self._carry_out(entry, decisions, keep_effects)
        outcome.done = [_done(decision) for decision in decisions]
        outcome.warnings += [str(failure) for failure in self.manager.failures]
        return outcome

    def told(self, entry: tables.Entry) -> list[str]:
        """Tell the plugins of the stages of one table as they run; return why if they can't be told."""
        try:
            self._tell(entry)
        except (EmptcpError, pybpf.BpfError) as error:
            return [f"table {quoted(entry.table)}: {error}"]
        return []

    def _tell(self, entry: tables.Entry) -> None:
        sites = self._place(_recorded(entry), entry.netns, [])
        decisions = decide.decide(entry.table, sites, running.everything(self.pins), self.catalog, [])
        effects.Effects(self.pins, self.catalog, self.manager, entry.table, decisions).everything()

    def _read(self, entry: tables.Entry) -> model.Table:
        """Return an entry's table, as its author wrote it if that is known: errors then name his lines."""
        if self.written is not None and text.table_text(self.written) == entry.text:
            return self.written
        return _recorded(entry)

    def _place(
        self, table: model.Table, netns: str, absent: list[EmptcpError] | None
    ) -> dict[tuple[int, int], Site]:
        for policy in table.policies:
            for spec in (*model.selectors(policy.when), *model.actors(table, policy.do)):
                stage = self.catalog.bind(spec)
                _check_resident(stage, policy)
                _check_features(stage, policy)
                self.manager.validate(stage, policy)
        return placement.place(table, netns, self.catalog, absent)

    def _carry_out(self, entry: tables.Entry, decisions: list[Decision], keep_effects: bool) -> None:
        """Switch everything, or nothing."""
        told = effects.Effects(self.pins, self.catalog, self.manager, entry.table, decisions)
        told.applying()
        tables.begin(entry)
        with ExitStack() as undo:
            undo.callback(tables.abandon, entry)
            for decision in decisions:
                undo.callback(attachment.carry_out(self.pins, decision))
            undo.pop_all()
        for decision in decisions:
            attachment.settle(self.pins, decision)
        if not keep_effects:
            told.removed()
        before = tables.read(entry.table)
        if self.noting and before != entry:
            history.note(before, entry)
        tables.finish(entry)
        told.applied()


def _check_resident(stage: BoundStage, policy: model.Policy) -> None:
    if stage.type.resident and instance.resident(pins.run_folder()) is None:
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
                f"kernel lacks, {features.FEATURES[name]}: {missing}",
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


class _Loader:
    """Loads what the decisions need, with one set of opened objects per namespace.

    Without a pin tree everything is loaded over private maps: a trial that leaves nothing.
    """

    def __init__(self, tree: Pins | None, opened: ExitStack) -> None:
        self._pins = tree
        self._opened = opened
        self._objects: dict[int, Objects] = {}

    def prepare(self, decision: Decision) -> None:
        """Load the decision's program, if it needs one, for the back-end that is tried first."""
        decision.load = self._load
        if decision.action in (ATTACH, SWITCH) and decision.place is not None:
            self._load(decision, decision.place.code)

    def _load(self, decision: Decision, code: str) -> programs.Loaded:
        """Load a decision's program for a back-end's code, unless that was done before."""
        assert decision.plan is not None
        assert decision.place is not None
        if decision.loaded is not None and decision.place.code == code:
            return decision.loaded
        if decision.place.code != code:
            decision.place = replace(decision.place, backend=code)
        cookie = decision.location.cookie
        slots = states.offsets(self._places(cookie, decision.plan.fragments))
        previous = decision.before.previous() if decision.before is not None else None
        made = programs.load(
            decision.plan, decision.policies, decision.place, self._of(cookie), slots, previous
        )
        self._opened.callback(made.close)
        decision.loaded = made
        return made

    def _places(self, cookie: int, fragments: Sequence[FragmentRef]) -> dict[str, tuple[int, int]]:
        if self._pins is None:
            return states.allocate(fragments, {})
        return states.keep(self._pins, cookie, fragments)

    def _of(self, cookie: int) -> Objects:
        if cookie not in self._objects:
            shared = PrivateMaps() if self._pins is None else PinnedMaps(self._pins, cookie)
            self._objects[cookie] = self._opened.enter_context(Objects(shared))
        return self._objects[cookie]


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
