# SPDX-License-Identifier: Apache-2.0
"""Stages as their plugins word them (``emptcp_format``), for `emptcp list`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from emptcp.errors import EmptcpError

if TYPE_CHECKING:
    from emptcp.chain.description import Description, PolicyRecord
    from emptcp.plugins.catalog import Catalog
    from emptcp.plugins.manager import Manager

Words = dict[str, str]
"""Stage, as ``table/policy/stage`` -> what its plugin says instead of the text of the file."""


def of(descriptions: Iterable[Description], tables: Collection[str]) -> tuple[Words, list[str]]:
    """Return the plugins' own words for running stages of some tables, and warnings.

    Loads the Python sides of the plugins in use alone, and binds nothing unless one of them has words.
    """
    from emptcp.plugins import state
    from emptcp.plugins.catalog import Catalog
    from emptcp.plugins.manager import Manager

    shown = list(descriptions)
    records = [policy for one in shown for policy in one.policies if policy.table in tables]
    homes = (home for one in shown for home in one.homes if home.table in tables)
    used = {stage.plugin for home in homes for stage in home.stages}
    if not used:
        return {}, []
    try:
        plugins = state.judged()
    except EmptcpError as error:
        return {}, [str(error)]
    manager = Manager(report=lambda failure: None)
    manager.load(plugin for plugin in plugins if plugin.name in used)
    words: Words = {}
    if manager.hook.emptcp_format.get_hookimpls():
        catalog = Catalog(plugins)
        for record in records:
            words |= _words(record, catalog, manager)
    return words, list(dict.fromkeys(map(str, manager.failures)))


def _words(record: PolicyRecord, catalog: Catalog, manager: Manager) -> Words:
    from emptcp.chain.bind import full_name, stage_ids
    from emptcp.policy import file, model

    table = file.loads(record.source)
    found: Words = {}
    for name, spec in stage_ids(table, table.policies[0], catalog):
        if isinstance(spec, model.InSet):
            continue
        try:
            stage = catalog.bind(spec, devices=lambda device: 0)
        except EmptcpError:  # its plugin is gone: there is nobody to ask
            continue
        said = manager.hook.emptcp_format(stage=stage)
        if isinstance(said, str) and said.strip():
            found[full_name(record.table, record.name, name)] = _line(said)
    return found


def _line(said: str) -> str:
    first = said.strip().splitlines()[0]
    return "".join(character for character in first if character.isprintable())
