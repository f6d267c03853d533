# SPDX-License-Identifier: Apache-2.0
"""Make a table what a file says, take it back, take it away: what the commands and the Python API call.

How a change is carried out stands in :mod:`emptcp.chain.session`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace

from emptcp.chain import controllers, off, probation, running, tables
from emptcp.chain.session import Outcome, Session, recorded
from emptcp.errors import EmptcpError, did_you_mean, quoted
from emptcp.plugins import requirements
from emptcp.plugins.catalog import Catalog
from emptcp.policy import model, support, text
from emptcp.pybpf import features


def apply(
    table: model.Table,
    netns: str = "",
    *,
    dry_run: bool = False,
    keep_effects: bool = False,
    new_maps: bool = False,
) -> Outcome:
    """Make a table what ``table`` says; other tables are left alone.

    ``netns`` is the namespace of policies that name none. With ``new_maps``, a map of a plugin that is laid
    out otherwise than the running one is made anew, and what that one holds is lost. Raises
    :class:`EmptcpError` (or :class:`~emptcp.pybpf.BpfError`) before anything is changed, or after everything
    was changed back.
    """
    table = as_applied(table)
    entry = tables.Entry(table.name, text.table_text(table), netns, table.source)
    if dry_run:
        with Session.open(writing=False) as session:
            session.written = table
            return session.change(entry, dry_run=True)
    with _changing(but=table.name) as session:
        session.written = table
        return session.change(entry, keep_effects=keep_effects, new_maps=new_maps)


def as_applied(table: model.Table) -> model.Table:
    """Return a table as it is put in force: with what its controllers need. Raises as :func:`apply` does."""
    support.refuse_unsupported(table)
    requirements.check(table.requires)
    return controllers.completed(table, Catalog.of_enabled()) if table.controllers else table


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
    table = as_applied(table)
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
def _changing(but: str = "", *, removing: bool = False) -> Iterator[Session]:
    """Open a session for a change: alone, with all that was begun before carried through."""
    with tables.lock(), Session.open() as session:
        session.carry_through(but)
        probation.refuse_others()
        if not removing:
            off.refuse_attaching()
        yield session


def remove(
    name: str,
    policies: str | Collection[str] = (),
    *,
    dry_run: bool = False,
    keep_effects: bool = False,
    force: bool = False,
) -> Outcome:
    """Take a table out of force, or only one or some of its policies.

    ``force`` also takes policies of other tables out of force that can't be carried over into the programs
    without it (:mod:`~emptcp.chain.stranded`). Raises :class:`EmptcpError` when there is no such table or
    policy, and for such other policies without ``force``.
    """
    some = {policies} - {""} if isinstance(policies, str) else {*policies}
    with _changing(but="" if some else name, removing=True) as session:
        entry = _known(name)
        if not dry_run:
            _find_again(session, entry)
        rest = _without(entry, some) if some else replace(entry, text="")
        return session.change(rest, dry_run=dry_run, keep_effects=keep_effects, force=force)


def _find_again(session: Session, entry: tables.Entry) -> None:
    """Take hold of programs that run on after their pins were lost; those attached by links end with them."""
    if not entry.text or (features.has("tcx") and features.has("xdp_link")):
        return
    with running.everything(session.pins) as found:
        lost = entry.table not in running.tables(found)
    if lost:
        session.bring(entry)


def edit(name: str, change: Callable[[model.Table], model.Table], *, dry_run: bool = False) -> Outcome:
    """Change a running table by a function of its model, keeping everything else of it."""
    with _changing() as session:
        entry = _known(name)
        changed = change(recorded(entry))
        support.refuse_unsupported(changed)
        return session.change(replace(entry, text=text.table_text(changed)), dry_run=dry_run)


def reattach() -> list[Outcome]:
    """Bring every table to where it is meant to be: for devices that came, or came back.

    While everything is off that is nowhere.
    What stands in the way of one table is a warning of its outcome, and stops no other.
    """
    with tables.lock(), Session.open() as session:
        session.carry_through()
        if off.read().everything:
            return []
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


def _without(entry: tables.Entry, policies: set[str]) -> tables.Entry:
    table = recorded(entry)
    names = [one.name for one in table.policies]
    for unknown in sorted(policies.difference(names)):
        fix = did_you_mean(unknown, names).capitalize()
        raise EmptcpError(f"table {quoted(entry.table)} has no policy {quoted(unknown)}", fix=fix)
    left = tuple(one for one in table.policies if one.name not in policies)
    return replace(entry, text=text.table_text(replace(table, policies=left)) if left else "")
