# SPDX-License-Identifier: Apache-2.0
"""What is switched off, as a file of the run folder says it: everything, tables, single policies.

It is written before anything is switched. While the plugins have not been told yet it names the policies in
question, so that the next command can carry through what a crash interrupted.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from emptcp.chain import tables
from emptcp.chain.pins import Location, run_folder
from emptcp.chain.running import Running
from emptcp.errors import EmptcpError, quoted

Names = frozenset[tuple[str, str]]
"""Policies, each by the names of its table and its own."""


EVERYTHING = "everything is off, and nothing is attached until: emptcp on"


@dataclass(frozen=True)
class Off:
    """What is off. With ``everything`` all programs are detached; what else is off is skipped by them.

    ``telling`` has the policies that were switched and whose plugins have not been told.
    """

    everything: bool = False
    tables: frozenset[str] = frozenset()
    policies: Names = frozenset()
    telling: Names = frozenset()

    def skips(self, table: str, policy: str) -> bool:
        """Return whether programs are to skip a policy."""
        return table in self.tables or (table, policy) in self.policies

    def silences(self, table: str, policy: str) -> bool:
        """Return whether a policy does nothing, for whichever reason."""
        return self.everything or self.skips(table, policy)

    def heeds(self, table: str, policy: str) -> bool:
        """Return whether a policy does anything."""
        return not self.silences(table, policy)

    def without(self, table: str, policy: str = "", others: Iterable[str] = ()) -> Off:
        """Return what is off when a table, or one policy, is on; ``others`` stay off if the table was."""
        left = {one for one in self.policies if one != (table, policy) and (policy or one[0] != table)}
        if policy and table in self.tables:
            left |= {(table, other) for other in others if other != policy}
        return replace(self, tables=self.tables - {table}, policies=frozenset(left))

    def and_also(self, table: str, policy: str = "") -> Off:
        """Return what is off when a table, or one policy, is off too."""
        if policy:
            return replace(self, policies=self.policies | {(table, policy)})
        return replace(self, tables=self.tables | {table})

    def remarks(self, table: str) -> list[str]:
        """Return what an operator should know who works on a table."""
        found = [EVERYTHING] if self.everything else []
        if table in self.tables:
            return [
                *found,
                f"table {quoted(table)} is off and stays off until: emptcp on {shlex.quote(table)}",
            ]
        return found + [
            f"policy {quoted(name)} of table {quoted(table)} is off and stays off until: "
            f"emptcp on {shlex.quote(table)} {shlex.quote(name)}"
            for one, name in sorted(self.policies)
            if one == table
        ]

    def listed(self) -> list[str]:
        """Return what is off, a sentence each."""
        alone = replace(self, everything=False)
        names = sorted({*self.tables, *(table for table, _ in self.policies)})
        found = [remark for name in names for remark in alone.remarks(name)]
        return [EVERYTHING, *found] if self.everything else found


def read() -> Off:
    """Return what is off. Raises :class:`EmptcpError` when the file is damaged."""
    path = _path()
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        found = Off(
            data["everything"] is True,
            frozenset(str(name) for name in data["tables"]),
            _names(data["policies"]),
            _names(data["telling"]),
        )
    except FileNotFoundError:
        return Off()
    except (ValueError, KeyError, TypeError, RecursionError):
        raise EmptcpError(
            f"the file {path}, which says what is switched off, is damaged",
            fix="Run: emptcp on, or: emptcp off. Both write it anew.",
        ) from None
    return found


def read_or_see(found: Mapping[Location, Running]) -> Off:
    """Return what is off; where the file is damaged, what the running programs skip."""
    try:
        return read()
    except EmptcpError:
        skipped = (
            (policy.table, policy.name)
            for one in found.values()
            for policy in one.description.policies
            if one.off(policy)
        )
        return Off(policies=frozenset(skipped))


def refuse_attaching() -> None:
    """Raise :class:`EmptcpError` while everything is off."""
    if read().everything:
        raise EmptcpError("everything is switched off", fix="Run: emptcp on")


def keep(off: Off) -> None:
    """Write what is off."""
    if off == Off():
        _path().unlink(missing_ok=True)
        return
    data = {
        "everything": off.everything,
        "tables": sorted(off.tables),
        "policies": sorted(off.policies),
        "telling": sorted(off.telling),
    }
    tables.write(_path(), data)


def _names(pairs: Iterable[Iterable[str]]) -> Names:
    return frozenset((str(table), str(policy)) for table, policy in pairs)


def _path() -> Path:
    return run_folder() / "off.json"
