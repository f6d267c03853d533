# SPDX-License-Identifier: Apache-2.0
"""Where what is in force, what is meant to be, and what lies around disagree; and how to mend it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from emptcp.chain import apply, pins, running, tables
from emptcp.chain.pins import Pins
from emptcp.chain.running import LINK, PROGRAM


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be, and what mends it."""

    what: str
    fix: str


REPAIR = "Run: emptcp doctor --repair"


def findings() -> list[Finding]:
    """Return what is wrong with the pins, the tables and the journal."""
    tree = pins.find()
    return [*_journal(), *(_programs(tree) if tree is not None else ()), *_missing(tree)]


def repair() -> list[str]:
    """Carry interrupted changes through, remove what has no use, and bring tables to where they belong.

    Returns what was done, a line each.
    """
    done = [f"carried through the change of table {entry.table}" for entry in tables.unfinished()]
    tree = pins.find()
    if tree is not None:
        with tables.lock():
            done += list(_remove_leftovers(tree))
    for outcome in apply.reattach() if done or tables.names() else ():
        done += [f"{one.action} {one.hook} of {one.device}" for one in outcome.done if one.action != "keep"]
    return done


def _journal() -> Iterator[Finding]:
    for entry in tables.unfinished():
        yield Finding(f"a change of table {entry.table} was interrupted", REPAIR)


def _programs(tree: Pins) -> Iterator[Finding]:
    known = set(tables.names())
    for found in running.everything(tree).values():
        about = found.description
        if found.device_gone:
            yield Finding(f"the device {about.device} of a program at {about.hook} is gone", REPAIR)
        for table in sorted({policy.table for policy in about.policies} - known):
            yield Finding(f"table {table} runs on {about.device}, and no record of it is left", REPAIR)


def _missing(tree: Pins | None) -> Iterator[Finding]:
    present = running.tables(running.everything(tree)) if tree is not None else {}
    for name in tables.names():
        if name not in present:
            yield Finding(f"table {name} should run and does not", REPAIR)


def _remove_leftovers(tree: Pins) -> Iterator[str]:
    known = set(tables.names())
    for found in running.everything(tree).values():
        about = found.description
        unknown = {policy.table for policy in about.policies} - known
        if found.device_gone or (unknown and not {policy.table for policy in about.policies} & known):
            for name in (LINK, PROGRAM):
                (found.folder / name).unlink(missing_ok=True)
            yield f"removed the program at {about.hook} of {about.device}"
    tree.prune()
