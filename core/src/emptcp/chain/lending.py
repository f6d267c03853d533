# SPDX-License-Identifier: Apache-2.0
"""The maps of a plugin's object: its own, which all programs that use the object share, and imported ones.

A map is known by the plugin that owns it and the name it has there. What exists is used after a comparison
field by field, what does not is made, pinned under its owner's name. An importing object may be opened before
the exporting one: it then makes the map as the exporter defines it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from emptcp import pybpf
from emptcp.chain import pins
from emptcp.chain.plan import FragmentRef
from emptcp.chain.shared import SharedMaps
from emptcp.plugins import sharing
from emptcp.pybpf.likeness import of_object


class _Opened(Protocol):
    """An object whose maps exist."""

    maps: dict[str, pybpf.Map]


_T = TypeVar("_T", bound=_Opened)


def own_maps(path: str) -> list[str]:
    """Return the names of the maps that an object defines and that are not core's, imported ones included."""
    names = pybpf.ObjectSpec.read(path).maps
    return [name for name in names if name not in sharing.CORES and not name.startswith(".")]


def opened(
    shared: SharedMaps,
    fragment: FragmentRef,
    path: str,
    make: Callable[[Mapping[str, pybpf.Map], Mapping[str, pybpf.Shape]], _T],
) -> _T:
    """Open the object ``path`` of a fragment, by ``make(existing, borrowed)``, with the maps that are there.

    Maps that it makes are kept for those who come later. Raises :class:`EmptcpError` when a map that is
    there and in use is made otherwise.
    """
    owners = {name: (fragment.plugin, name) for name in own_maps(path)}
    owners |= {one.name: (one.plugin, one.map) for one in fragment.imports}
    borrowed = {one.name: of_object(pybpf.ObjectSpec.read(one.object), one.map) for one in fragment.imports}
    found = {name: shared.plugin_map(*owner) for name, owner in owners.items()}
    existing = {name: one for name, one in found.items() if one is not None}
    made = _make(shared, owners, existing, lambda: make(existing, borrowed))
    _keep(shared, {name: owner for name, owner in owners.items() if name not in existing}, made.maps)
    return made


def open_plugin_map(plugin: str, name: str) -> pybpf.Map | None:
    """Open the map ``name`` of a plugin, which all its programs share; ``None`` when none ever ran.

    One map serves all namespaces and devices. It is to be closed: a ``with`` block does. ``items()`` reads
    in batches. Raises :class:`~emptcp.errors.EmptcpError` when the kernel refuses.
    """
    tree = pins.find()
    path = tree.plugin_map(plugin, name) if tree is not None else None
    return pybpf.Map.from_pin(path) if path is not None and path.exists() else None


def _make(
    shared: SharedMaps,
    owners: Mapping[str, tuple[str, str]],
    existing: dict[str, pybpf.Map],
    make: Callable[[], _T],
) -> _T:
    """Make it; each existing map that is made otherwise, and used by no one, is given up in its turn."""
    while True:
        try:
            return make()
        except pybpf.MapMismatch as mismatch:
            if mismatch.map not in existing:
                raise
            shared.give_up(*owners[mismatch.map], mismatch)
            del existing[mismatch.map]


def _keep(shared: SharedMaps, owners: Mapping[str, tuple[str, str]], maps: Mapping[str, pybpf.Map]) -> None:
    for name, owner in owners.items():
        if name in maps:
            shared.keep(*owner, maps[name])
