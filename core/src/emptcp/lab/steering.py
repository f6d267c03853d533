# SPDX-License-Identifier: Apache-2.0
"""Applies policy files inside a lab, and takes whatever is in force in a lab's hosts out of force again.

A lab applies a file under a table name of its own, so that neither another lab nor a table of the operator's
with the same name is touched. Loading policies is costly, so it is imported when the first one is applied.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from emptcp.errors import EmptcpError
from emptcp.lab.resident import resident, wait_for

if TYPE_CHECKING:
    from emptcp.lab.hypervisor import Behind
    from emptcp.lab.topology import Lab
    from emptcp.policy.model import Controller, Policy, Table


@dataclass(frozen=True, slots=True)
class LabTable:
    """The one table of a lab, named like it: ``emptcp list`` shows it while the lab runs."""

    name: str

    def check(self, file: Path, netns: str) -> None:
        """Plan it without doing it. Raises EmptcpError or BpfError when it would be refused."""
        from emptcp.chain import apply

        apply.apply(self.table(file), netns, dry_run=True)

    def apply(self, file: Path, netns: str) -> None:
        """Make the file's policies be in force in a host. Raises EmptcpError or BpfError when refused."""
        from emptcp.chain import apply

        apply.apply(self.table(file), netns)

    def remove(self, file: Path, netns: str) -> None:
        """Take them out of force, and what they did back."""
        from emptcp.chain import apply

        apply.remove(self.name)

    def table(self, file: Path) -> Table:
        """The file's table under the lab's name. Raises EmptcpError when a policy leaves the lab."""
        from emptcp.policy import file as policy_file

        table = policy_file.load(file)
        everything: tuple[Policy | Controller, ...] = (*table.policies, *table.controllers)
        for one in everything:
            if one.netns is not None:
                kind = type(one).__name__.lower()
                raise EmptcpError(
                    f"{kind} '{one.name}' names a namespace, which a lab's {kind} may not",
                    fix="Leave 'netns' out: the lab applies the file at host a.",
                    where=str(one.where),
                )
        policies = tuple(replace(policy, table=self.name) for policy in table.policies)
        return replace(table, name=self.name, policies=policies)


def lift(namespaces: Collection[str]) -> None:
    """Take every table out of force that was applied for one of these namespaces.

    What their actors did is left as it is: the sockets go with the namespaces.
    """
    from emptcp.chain import tables

    names = [entry.table for entry in tables.entries() if entry.netns in namespaces]
    if names:
        from emptcp.chain import apply

        for name in names:
            apply.remove(name, keep_effects=True)


@contextmanager
def controlled(lab: Lab | Behind, file: Path) -> Iterator[None]:
    """Keep a file with one controller in force, with an ``emptcp run`` from when that ticks: at host a, or on
    the hypervisor.

    The process is there for this alone: what is measured without it shall not have it either.
    """
    table = LabTable(lab.name)
    netns = lab.applied_at.netns
    with resident("--no-guard") as process:
        table.apply(file, netns)
        try:
            wait_for(process, b" ticks every ")
            yield
        finally:
            table.remove(file, netns)
