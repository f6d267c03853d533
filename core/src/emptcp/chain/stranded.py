# SPDX-License-Identifier: Apache-2.0
"""Policies that run and can't be bound any more: a plugin was disabled, changed or uninstalled since.

Their programs go on running. They hinder only what makes a program anew: a change of another table on the
same device. Taking them out of force binds nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emptcp.errors import EmptcpError, quoted

if TYPE_CHECKING:
    from emptcp.chain.description import ChainRecord, PolicyRecord
    from emptcp.plugins.catalog import Catalog


@dataclass(frozen=True)
class Stranded:
    """One such policy, the device on which it runs, why it can't be bound, and what mends that."""

    table: str
    policy: str
    device: str
    why: str
    fix: str


def of(
    record: PolicyRecord, chains: Iterable[ChainRecord], device: str, error: EmptcpError, catalog: Catalog
) -> Stranded:
    """Return a policy that could not be bound because of ``error``; ``chains`` are those it may come to."""
    homes: list[PolicyRecord | ChainRecord] = [record, *chains]
    plugins = dict.fromkeys(stage.plugin for home in homes for stage in home.stages if stage.plugin)
    why, fix = cause(plugins, error, catalog)
    return Stranded(record.table, record.name, device, why, fix)


def cause(plugins: Iterable[str], error: EmptcpError, catalog: Catalog) -> tuple[str, str]:
    """Return why stages of ``plugins`` can't be bound, and the fix; ``error`` is what binding them said."""
    gone = next((plugin for plugin in plugins if not catalog.has_plugin(plugin)), "")
    if gone:
        return f"plugin '{gone}' is not installed any more", "Install it again"
    return error.sentence, error.fix.rstrip(".")


def refusal(table: str, removing: bool, found: Sequence[Stranded]) -> EmptcpError:
    """Return why ``table`` can't be changed beside such policies of other tables, and the ways out."""
    first = found[0]
    others = list(dict.fromkeys(one.table for one in found))
    policies = ", ".join(dict.fromkeys(f"{one.table}/{one.policy}" for one in found))
    out = f"emptcp remove {others[0]}"
    if removing:
        out = f"emptcp remove {table} --force, which takes {policies} out of force too"
    more = f" (so do {policies})" if len(found) > 1 else ""
    return EmptcpError(
        f"table {quoted(table)} can't be changed: policy {quoted(first.policy)} of table "
        f"{quoted(first.table)} shares device {first.device} and can't be carried over: {first.why}{more}",
        fix=f"{first.fix}. Or: {out}" if first.fix else f"Run: {out}",
    )


def given_up(found: Sequence[Stranded]) -> list[str]:
    """Return a warning for each policy that was taken out of force because it could not be carried over."""
    by_policy = {(one.table, one.policy): one for one in found}
    return [
        f"policy {quoted(one.policy)} of table {quoted(one.table)} is out of force too: {one.why}; "
        "its effects stay, and `emptcp doctor --repair` brings it back when that is mended"
        for one in by_policy.values()
    ]
