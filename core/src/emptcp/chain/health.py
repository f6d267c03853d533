# SPDX-License-Identifier: Apache-2.0
"""Where what is in force, what is meant to be, and what lies around disagree; and how to mend it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from emptcp.chain import apply, decide, pins, placement, probation, running, tables
from emptcp.chain.pins import Location, Pins
from emptcp.chain.running import Running
from emptcp.chain.session import Outcome
from emptcp.errors import EmptcpError
from emptcp.plugins.catalog import Catalog
from emptcp.policy import file


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be, and what mends it."""

    what: str
    fix: str


GRACE = 5.0
"""Seconds after its deadline that taking a change back may take."""

REPAIR = "Run: emptcp doctor --repair"


def findings() -> list[Finding]:
    """Return what is wrong with the pins, the tables and the journal."""
    tree = pins.find()
    found = running.everything(tree) if tree is not None else {}
    return [
        *_damaged(),
        *_journal(),
        *_probation(),
        *_programs(found),
        *_tables(found),
        *_useless(tree, found),
    ]


def repair() -> list[str]:
    """Carry interrupted changes through, remove what has no use, and bring tables to where they belong.

    Returns what was done, a line each.
    """
    interrupted = {entry.table for entry in tables.unfinished()}
    known = interrupted | set(tables.names())
    tree = pins.find()
    found = running.everything(tree) if tree is not None else {}
    outcomes = [apply.forget(name) for name in running.tables(found) if name not in known]
    outcomes += apply.reattach() if known else []
    if tree is not None and tree.root.exists():
        with tables.lock():
            tree.prune()
    carried = interrupted - {entry.table for entry in tables.unfinished()}
    return [
        *(f"carried through the change of table {name}" for name in sorted(carried)),
        *(line for outcome in outcomes for line in _lines(outcome)),
    ]


def _lines(outcome: Outcome) -> Iterator[str]:
    for one in outcome.done:
        if one.action != "keep":
            yield f"table {outcome.table}: {one.action} {one.hook} of {one.device}"


def _journal() -> Iterator[Finding]:
    for entry in tables.unfinished():
        yield Finding(f"a change of table {entry.table} was interrupted", REPAIR)


def _probation() -> Iterator[Finding]:
    pending = probation.current()
    if pending is not None and pending.left < -GRACE:
        yield Finding(f"a change of table {pending.table} was not confirmed, and not taken back", REPAIR)


def _programs(found: Mapping[Location, Running]) -> Iterator[Finding]:
    known = {*tables.names(), *(entry.table for entry in tables.unfinished())}
    for one in found.values():
        about = one.description
        site = decide.site_of(one)
        if site.gone or decide.is_lost(one, site):
            where = f"{about.hook} of {about.device}" + (f" in {about.netns}" if about.netns else "")
            why = decide.why_lost(site)
            yield Finding(f"the program at {where} is not attached any more: {why}", REPAIR)
        for table in sorted({policy.table for policy in about.policies} - known):
            yield Finding(f"table {table} runs on {about.device}, and no record of it is left", REPAIR)


def _damaged() -> Iterator[Finding]:
    for error in tables.damaged():
        yield Finding(error.sentence, error.fix)


def _tables(found: Mapping[Location, Running]) -> Iterator[Finding]:
    for entry in tables.entries():
        try:
            yield from _table(entry, found)
        except EmptcpError as error:
            yield Finding(f"table {entry.table} can't be read any more: {error.sentence}", error.fix)


def _table(entry: tables.Entry, found: Mapping[Location, Running]) -> Iterator[Finding]:
    """Yield where a table should run and does not, and what it names that is not there."""
    name = entry.table
    absent: list[EmptcpError] = []
    table = file.loads(entry.text, entry.source or name)
    sites = placement.place(table, entry.netns, Catalog.of_enabled(), absent)
    for site in sites.values():
        for hook, policies in site.policies.items():
            if policies and site.location(hook) not in found:
                yield Finding(f"table {name} should run at {hook} of {site.device} and does not", REPAIR)
    for error in absent:
        fix = f"Apply the table again when it is there, or without it; or run: emptcp remove {name}"
        yield Finding(f"table {name}: {error.sentence}", fix)


def _useless(tree: Pins | None, found: Mapping[Location, Running]) -> Iterator[Finding]:
    if tree is None:
        return
    for path in tree.strays():
        yield Finding(f"no program uses what is pinned at {path}", REPAIR)
    if not found and any(not path.is_dir() for path in tree.root.rglob("*")):
        yield Finding(f"maps that no program uses are left in {tree.root}", REPAIR)
