# SPDX-License-Identifier: Apache-2.0
"""Which running policies use a plugin, and how they are taken out of force."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from emptcp.chain import apply, chains, pins, running
from emptcp.chain.description import ChainRecord, Description, PolicyRecord
from emptcp.chain.session import Outcome
from emptcp.errors import EmptcpError
from emptcp.plugins.catalog import Catalog
from emptcp.policy import file

Users = Mapping[str, tuple[str, ...]]
"""Table -> those of its policies that use the plugin."""


def of_plugin(plugin: str) -> Users:
    """Return the running policies with stages of a plugin, or of one that uses its maps.

    A policy that may come to a named chain uses what is in it.
    """
    if (tree := pins.find()) is None:
        return {}
    catalog = Catalog.of_enabled()
    found: dict[str, dict[str, None]] = {}
    with running.everything(tree) as everything:
        descriptions = [one.description for one in everything.values()]
    for about in descriptions:
        for policy in about.policies:
            if _uses(policy, about, plugin, catalog):
                found.setdefault(policy.table, {})[policy.name] = None
    return {table: tuple(policies) for table, policies in sorted(found.items())}


def remove(users: Users) -> list[Outcome]:
    """Take policies out of force, whole tables where nothing is left, with what their actors did.

    Raises :class:`EmptcpError` as :func:`emptcp.chain.apply.remove` does.
    """
    return [apply.remove(table, policies, force=True) for table, policies in users.items()]


def _uses(policy: PolicyRecord, description: Description, plugin: str, catalog: Catalog) -> bool:
    homes: list[PolicyRecord | ChainRecord] = [policy]
    if any(chain.table == policy.table for chain in description.chains):
        reached = _chains(policy, catalog)
        homes += [one for one in description.chains if one.table == policy.table and one.name in reached]
    return any(plugin in (stage.plugin, *stage.imports) for home in homes for stage in home.stages)


def _chains(policy: PolicyRecord, catalog: Catalog) -> Iterable[str]:
    """Return the names of the chains that a policy may come to; none that can't be told any more."""
    try:
        table = file.loads(policy.source)
        (alone,) = table.policies
        return {one.name for one in chains.reachable(table, alone.do, chains.as_far_as_known(catalog))}
    except EmptcpError:
        return ()
