# SPDX-License-Identifier: Apache-2.0
"""What plugins say of their stages in `emptcp list`: their words (``emptcp_format``) and ``emptcp_notes``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from emptcp.errors import EmptcpError

if TYPE_CHECKING:
    from emptcp.chain.description import PolicyRecord
    from emptcp.chain.running import Running
    from emptcp.plugins.catalog import Catalog
    from emptcp.plugins.manager import Manager

Words = dict[str, str]
"""Stage, as ``table/policy/stage`` -> what its plugin says instead of the text of the file."""


Notes = dict[int, dict[str, list[str]]]
"""Cookie of the network namespace -> stage -> lines."""


@dataclass
class Said:
    """What plugins say, and a warning for each thing that one could not say."""

    words: Words = field(default_factory=dict)
    notes: Notes = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def of(programs: Mapping[str, Iterable[Running]]) -> Said:
    """Return what plugins say of the stages of some tables, by table the programs that run it.

    Loads the Python sides of the plugins in use alone, and binds nothing unless one of them has something to
    say.
    """
    from emptcp.plugins import state
    from emptcp.plugins.catalog import Catalog
    from emptcp.plugins.manager import Manager

    found = list({one.location: one for each in programs.values() for one in each}.values())
    homes = (home for one in found for home in one.description.homes if home.table in programs)
    used = {stage.plugin for home in homes for stage in home.stages}
    if not used:
        return Said()
    try:
        plugins = state.judged()
    except EmptcpError as error:
        return Said(warnings=[str(error)])
    manager, catalog, said = Manager(report=lambda failure: None), Catalog(plugins), Said()
    manager.load(plugin for plugin in plugins if plugin.name in used)
    if manager.hook.emptcp_format.get_hookimpls():
        for record in (policy for one in found for policy in one.description.policies):
            said.words |= _words(record, catalog, manager) if record.table in programs else {}
    if manager.hook.emptcp_notes.get_hookimpls():
        _note(said, found, programs, catalog, manager)
    said.warnings += dict.fromkeys(map(str, manager.failures))
    return said


def _note(
    said: Said, found: list[Running], tables: Iterable[str], catalog: Catalog, manager: Manager
) -> None:
    """Ask for notes of the policies that are not switched off."""
    from emptcp import pybpf
    from emptcp.chain import effects, pins

    tree, wanted = pins.find(), set(tables)
    names = frozenset(
        (policy.table, policy.name)
        for one in found
        for policy in one.description.policies
        if policy.table in wanted and not one.off(policy)
    )
    if tree is None or not names:
        return
    try:
        for stages in effects.of_running(tree, catalog, manager, found, names)[0]:
            with closing(stages):
                for (cookie, stage), lines in stages.notes().items():
                    noted = said.notes.setdefault(cookie, {}).setdefault(stage, [])
                    noted += [_line(line) for line in lines if line.strip()]
    except (EmptcpError, pybpf.BpfError, OSError) as error:
        said.warnings.append(f"not everything is noted of what stages do: {error}")


def _words(record: PolicyRecord, catalog: Catalog, manager: Manager) -> Words:
    from emptcp.chain.bind import full_name, stage_ids
    from emptcp.policy import file, model, values

    table = file.loads(record.source)
    found: Words = {}
    for name, spec in stage_ids(table, table.policies[0], catalog):
        if isinstance(spec, model.InSet):
            continue
        try:
            stage = catalog.bind(spec, devices=values.any_device)
        except EmptcpError:  # its plugin is gone: there is nobody to ask
            continue
        said = manager.hook.emptcp_format(stage=stage)
        if isinstance(said, str) and said.strip():
            found[full_name(record.table, record.name, name)] = _line(said)
    return found


def _line(said: str) -> str:
    first = said.strip().splitlines()[0]
    return "".join(character for character in first if character.isprintable())
