# SPDX-License-Identifier: Apache-2.0
"""Find the maps that a plugin imports from others, and check that both mean the same map.

Both object files are read and compared; nothing is loaded, and no plugin's code is run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emptcp.errors import EmptcpError, did_you_mean, quoted
from emptcp.plugins import discovery
from emptcp.plugins.distributions import canonical
from emptcp.plugins.sharing import Import

if TYPE_CHECKING:
    from emptcp.plugins.discovery import Plugin

MOST_SHOWN = 8
"""Differences of two maps that an error lists; a struct that was laid out anew differs in every field."""


@dataclass(frozen=True)
class Imported:
    """A map that an object borrows: its name there, and whose map it is.

    ``object`` is the file of the plugin that exports it, ``map`` the name that it has in that file.
    """

    name: str
    plugin: str
    object: str
    map: str


def resolve(plugin: Plugin, plugins: Iterable[Plugin]) -> tuple[Imported, ...]:
    """Return the maps that ``plugin`` imports, each found in one of ``plugins`` that may be used.

    Raises :class:`EmptcpError` when a plugin is missing or not enabled, does not export the map, or means
    another one.
    """
    if plugin.manifest is None or not plugin.manifest.imports:
        return ()
    everything = list(plugins)
    return tuple(_resolve(plugin, one, everything) for one in plugin.manifest.imports)


def _resolve(plugin: Plugin, wanted: Import, plugins: list[Plugin]) -> Imported:
    source = _source(plugin, wanted, plugins)
    assert source.manifest is not None
    assert source.folder is not None
    exported = [one.map for one in source.manifest.exports]
    if wanted.map not in exported:
        listed = f"It exports {', '.join(exported)}." if exported else "It exports none."
        fix = did_you_mean(wanted.map, exported) or listed
        raise EmptcpError(f"{_title(plugin, wanted)}, which does not export it", fix=fix)
    found = Imported(wanted.name, source.name, str(source.folder / source.manifest.object), wanted.map)
    _compare(plugin, wanted, found)
    return found


def _source(plugin: Plugin, wanted: Import, plugins: list[Plugin]) -> Plugin:
    """Return the plugin that an import names."""
    found = list(discovery.matching(plugins, wanted.source))
    usable = [one for one in found if one.usable] or found
    if not usable:
        names = [one.name for one in plugins if one.id != plugin.id]
        fix = (
            did_you_mean(wanted.source, names)
            or f"Install it, then run: emptcp plugins enable {wanted.source}"
        )
        raise EmptcpError(f"{_title(plugin, wanted)}, which is not installed", fix=fix)
    if len(usable) > 1:
        owners = " and ".join(canonical(one.distribution) for one in usable)
        fix = f'Enable one of them, or let the manifest say from = "{usable[0].id}".'
        raise EmptcpError(f"{_title(plugin, wanted)}, which may be that of {owners}", fix=fix)
    if not usable[0].usable:
        fix = usable[0].fix or f"Run: emptcp plugins enable {wanted.source}"
        raise EmptcpError(f"{_title(plugin, wanted)}, which is {usable[0].state}", fix=fix)
    return usable[0]


def _compare(plugin: Plugin, wanted: Import, found: Imported) -> None:
    """Raise when the two objects don't mean the same map, with each field in which they differ."""
    from emptcp.pybpf.elf import ObjectSpec
    from emptcp.pybpf.errors import BpfError
    from emptcp.pybpf.likeness import differences, of_object

    assert plugin.folder is not None
    assert plugin.manifest is not None
    try:
        here = ObjectSpec.read(plugin.folder / plugin.manifest.object)
        there = ObjectSpec.read(found.object)
        for spec, name in ((here, found.name), (there, found.map)):
            if name not in spec.maps:
                raise EmptcpError(f"{_title(plugin, wanted)}, and {spec.path.name} has no map '{name}'")
        lines = differences(of_object(here, found.name), of_object(there, found.map), borrowed=True)
    except BpfError as error:
        raise EmptcpError(f"{_title(plugin, wanted)}: {error.sentence}", fix=error.fix) from None
    if lines:
        fix = f"Install releases of '{plugin.name}' and '{found.plugin}' that go together."
        raise EmptcpError(f"{_title(plugin, wanted)}, and they differ: {shown(lines)}", fix=fix)


def shown(lines: Sequence[str]) -> str:
    """Return differences in one sentence."""
    more = f"; and {len(lines) - MOST_SHOWN} more" if len(lines) > MOST_SHOWN else ""
    return "; ".join(lines[:MOST_SHOWN]) + more


def _title(plugin: Plugin, wanted: Import) -> str:
    return f"plugin '{plugin.name}' imports map '{wanted.map}' from {quoted(wanted.source)}"
