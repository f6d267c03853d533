# SPDX-License-Identifier: Apache-2.0
"""Where what is in force, what is meant to be, and what lies around disagree; and how to mend it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from emptcp.chain import apply, decide, off, pins, placement, probation, running, suspension, tables, trips
from emptcp.chain.description import Description
from emptcp.chain.off import Off
from emptcp.chain.pins import Location, Pins
from emptcp.chain.running import Running
from emptcp.chain.session import Outcome
from emptcp.errors import EmptcpError, quoted
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
    with running.everything(tree) as found:
        return [
            *_damaged(),
            *_off(found),
            *_journal(),
            *_probation(),
            *_programs(found),
            *_tables(found),
            *_pins(tree, found),
            *_useless(tree, found),
        ]


def repair() -> list[str]:
    """Carry interrupted changes through, remove what has no use, and bring tables to where they belong.

    Returns what was done, a line each.
    """
    interrupted = {entry.table for entry in tables.unfinished()}
    known = interrupted | set(tables.names())
    tree = pins.find()
    with running.everything(tree) as found:
        unknown = [name for name in running.tables(found) if name not in known]
    outcomes = [apply.forget(name) for name in unknown]
    outcomes += apply.reattach() if known else []
    if tree is not None and tree.root.exists():
        with tables.lock():
            tree.prune()
    carried = interrupted - {entry.table for entry in tables.unfinished()}
    return [
        *(f"carried through the change of table {name}" for name in sorted(carried)),
        *(line for outcome in outcomes for line in _lines(outcome)),
    ]


def switched_off() -> list[str]:
    """Return what is off on purpose, a sentence each."""
    try:
        state = off.read()
    except EmptcpError:  # told as a finding
        return []
    return state.listed()


def tripped() -> list[tuple[str, str]]:
    """Return what the guard switched off and is off, a sentence and what puts it on again."""
    try:
        state = off.read()
    except EmptcpError:  # told as a finding
        return []
    latest = {(trip.table, trip.policy): trip for trip in trips.read()}
    still_off = (trip for name, trip in latest.items() if state.skips(*name))
    return [(str(trip), f"Mend it, then run: {trip.fix}") for trip in still_off]


def _off(found: Mapping[Location, Running]) -> Iterator[Finding]:
    try:
        state = off.read()
    except EmptcpError as error:
        yield Finding(error.sentence, error.fix)
        return
    if state.telling:
        yield Finding("a change of what is off was interrupted", REPAIR)
        return
    for one in found.values():
        yield from _disagreements(one, state)


def _disagreements(one: Running, state: Off) -> Iterator[Finding]:
    about = one.description
    if state.everything and suspension.attached(one):
        yield Finding(
            f"the program at {_where(about)} is attached, although everything is off", "Run: emptcp off"
        )
    for policy in about.policies:
        skipped, wanted = one.off(policy), state.skips(policy.table, policy.name)
        if skipped != wanted:
            what = "skips" if skipped else "does not skip"
            word = "off" if wanted else "on"
            yield Finding(
                f"the program at {_where(about)} {what} policy {quoted(policy.name)} of table "
                f"{policy.table}, which is {word}",
                f"Run: emptcp {word} {shlex.quote(policy.table)} {shlex.quote(policy.name)}",
            )


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


def _where(about: Description) -> str:
    return f"{about.hook} of {about.device}" + (f" in {about.netns}" if about.netns else "")


def _programs(found: Mapping[Location, Running]) -> Iterator[Finding]:
    known = {*tables.names(), *(entry.table for entry in tables.unfinished())}
    detached = _everything_is_off()
    for one in found.values():
        about = one.description
        site = decide.site_of(one)
        if site.device_gone or (not detached and decide.is_lost(one, site)):
            why = decide.why_lost(site)
            yield Finding(f"the program at {_where(about)} is not attached any more: {why}", REPAIR)
        for table in sorted({policy.table for policy in about.policies} - known):
            yield Finding(f"table {table} runs on {about.device}, and no record of it is left", REPAIR)


def _everything_is_off() -> bool:
    try:
        return off.read().everything
    except EmptcpError:  # a finding of its own
        return False


def _damaged() -> Iterator[Finding]:
    for error in tables.damaged():
        yield Finding(error.sentence, error.fix)


def _tables(found: Mapping[Location, Running]) -> Iterator[Finding]:
    for entry in tables.entries():
        try:
            yield from _table(entry, found)
        except EmptcpError as error:
            yield Finding(f"table {entry.table} can't be read any more: {error.sentence}", error.fix)


def _pins(tree: Pins | None, found: Mapping[Location, Running]) -> Iterator[Finding]:
    """Yield that no pin is left, where tables should run."""
    if tree is not None and tree.root.exists():
        return
    missing = [finding for finding in _tables(found) if finding.fix == REPAIR]
    if missing:
        yield Finding(
            "no pin of a program is left: the BPF file system was unmounted or emptied, programs attached by "
            "links ended with their pins, and others run on as they were",
            REPAIR,
        )


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
