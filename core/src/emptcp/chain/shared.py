# SPDX-License-Identifier: Apache-2.0
"""Maps that several programs use: the parsed packet, the flow table, events, and the plugins' own.

They are pinned for programs that are attached (:class:`PinnedMaps`), and private to a process for trial
runs (:class:`PrivateMaps`), which then see and change nothing of what runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from emptcp import pybpf
from emptcp.chain import stores
from emptcp.chain.pins import Pins
from emptcp.chain.replacing import Replacing
from emptcp.chain.storage import Store
from emptcp.chain.stores import Stores
from emptcp.errors import EmptcpError
from emptcp.plugins import imports
from emptcp.pybpf.likeness import Shape, differences, of_map

KEY_BYTES = 36
"""``struct emptcp_key``."""

HEAD_BYTES, SLOT_BYTES = 64, 448
"""An entry of the flow table: ``struct emptcp_flow``, then the plugins' slots."""

FLOWS = 16384
"""Entries of a namespace's flow table; the least recently used one makes room."""

TOKENS = 32768
"""Entries of a namespace's table of connections, two for each."""

EVENT_BYTES = 1 << 18
"""Size of the ring buffer of events."""


class SharedMaps(Protocol):
    """Where a program gets the maps that it does not own."""

    def packet(self, hook: str, backend: str, size: int) -> pybpf.Map:
        """Return the map of the parsed packet (``size`` bytes) of a hook and back-end."""
        ...

    def flows(self) -> pybpf.Map:
        """Return the flow table."""
        ...

    def cores(self) -> Mapping[str, Callable[[], pybpf.Map]]:
        """Return core's other maps and the flow table: how each is had, by the name that objects call it."""
        ...

    def store(self, store: Store) -> pybpf.Map:
        """Return the kernel map of a set or map."""
        ...

    def plugin_map(self, plugin: str, name: str) -> pybpf.Map | None:
        """Return a plugin's map if there is one already."""
        ...

    def keep(self, plugin: str, name: str, made: pybpf.Map) -> None:
        """Keep a plugin's map that was just made, for those who come later."""
        ...

    def give_up(self, plugin: str, name: str, mismatch: pybpf.MapMismatch) -> None:
        """Forget a plugin's map that is not made as it is needed now.

        Raises :class:`EmptcpError` when something uses it.
        """
        ...


@dataclass(frozen=True)
class _Core:
    """How a map of core's is made."""

    kind: str
    key_size: int
    value_size: int
    max_entries: int
    name: str

    def create(self) -> pybpf.Map:
        """Make one."""
        sizes = (self.key_size, self.value_size, self.max_entries)
        return pybpf.Map.create(self.kind, *sizes, name=self.name)

    @property
    def shape(self) -> Shape:
        """What one that is there is compared with."""
        return Shape(self.kind, self.key_size, self.value_size, self.max_entries, flags=0)


def _packet(size: int) -> _Core:
    return _Core("percpu_array", 4, size, 1, "emptcp_packet")


def _flows() -> _Core:
    return _Core("lru_hash", KEY_BYTES, HEAD_BYTES + SLOT_BYTES, FLOWS, "emptcp_flows")


def _connections() -> _Core:
    return _Core("lru_hash", 4, 4, TOKENS, "emptcp_conns")


def _events() -> _Core:
    return _Core("ringbuf", 0, 0, EVENT_BYTES, "emptcp_events")


def _lost() -> _Core:
    return _Core("percpu_array", 4, 8, 1, "emptcp_lost")


_CORES = {
    "emptcp_flows": _flows,
    "emptcp_connections": _connections,
    "emptcp_events": _events,
    "emptcp_lost": _lost,
}


def no_elder(plugin: str, name: str) -> pybpf.Map | None:
    """Open no map: a plugin's begins empty."""
    return None


class PrivateMaps:
    """Maps that end with this object.

    ``contents`` tells what is in sets and maps, as in the kernel; ``elder`` opens the map that one of a
    plugin begins as a copy of, by plugin and name.
    """

    def __init__(
        self,
        contents: Callable[[Store], Mapping[bytes, bytes]] = stores.listed,
        elder: Callable[[str, str], pybpf.Map | None] = no_elder,
    ) -> None:
        self._maps: dict[str, pybpf.Map] = {}
        self._plugins: dict[tuple[str, str], pybpf.Map] = {}
        self._stores: dict[Store, pybpf.Map] = {}
        self._contents = contents
        self._elder = elder

    @property
    def has_plugins(self) -> bool:
        """Whether any map is a plugin's."""
        return bool(self._plugins)

    def close(self) -> None:
        """Close the maps."""
        for owned in (*self._maps.values(), *self._plugins.values(), *self._stores.values()):
            owned.close()

    def packet(self, hook: str, backend: str, size: int) -> pybpf.Map:
        """See :class:`SharedMaps`."""
        name = f"packet_{hook}_{backend}"
        if name not in self._maps:
            self._maps[name] = _packet(size).create()
        return self._maps[name]

    def flows(self) -> pybpf.Map:
        """See :class:`SharedMaps`."""
        return self._core("emptcp_flows")

    def cores(self) -> Mapping[str, Callable[[], pybpf.Map]]:
        """See :class:`SharedMaps`."""
        return {name: partial(self._core, name) for name in _CORES}

    def _core(self, name: str) -> pybpf.Map:
        if name not in self._maps:
            self._maps[name] = _CORES[name]().create()
        return self._maps[name]

    def store(self, store: Store) -> pybpf.Map:
        """See :class:`SharedMaps`. It begins with the entries that it is said to have."""
        if store not in self._stores:
            made = self._stores[store] = stores.create(store)
            made.update_batch(self._contents(store).items())
        return self._stores[store]

    def plugin_map(self, plugin: str, name: str) -> pybpf.Map | None:
        """See :class:`SharedMaps`."""
        return self._plugins.get((plugin, name))

    def keep(self, plugin: str, name: str, made: pybpf.Map) -> None:
        """See :class:`SharedMaps`."""
        kept = self._plugins[plugin, name] = made.duplicate()
        elder = self._elder(plugin, name)
        if elder is not None:
            with elder:
                kept.copy(elder)

    def give_up(self, plugin: str, name: str, mismatch: pybpf.MapMismatch) -> None:
        """See :class:`SharedMaps`. All that is here was made by the same objects, and is in use."""
        raise mismatch


class PinnedMaps:
    """The maps in the pin tree, for programs of the namespace with this cookie; made at first use."""

    def __init__(self, pins: Pins, cookie: int, opened: Stores, replacing: Replacing | None = None) -> None:
        """``opened`` are the sets and maps of all namespaces, ``replacing`` the plugins' maps made anew.

        Whoever made these closes them.
        """
        self._pins = pins
        self._replacing = replacing or Replacing(pins, (), asked=False)
        self._stores = opened
        self._cookie = cookie
        self._open: dict[Path, pybpf.Map] = {}

    def close(self) -> None:
        """Close the maps; they stay pinned."""
        for owned in self._open.values():
            owned.close()

    def packet(self, hook: str, backend: str, size: int) -> pybpf.Map:
        """See :class:`SharedMaps`. The pin's name carries the size, so that releases don't meet."""
        return self._pinned(self._pins.packet(hook, backend, size), _packet(size))

    def flows(self) -> pybpf.Map:
        """See :class:`SharedMaps`."""
        return self._core("emptcp_flows", self._pins.flows(self._cookie))

    def cores(self) -> Mapping[str, Callable[[], pybpf.Map]]:
        """See :class:`SharedMaps`."""
        paths = {
            "emptcp_flows": self._pins.flows(self._cookie),
            "emptcp_connections": self._pins.connections(self._cookie),
            "emptcp_events": self._pins.events(),
            "emptcp_lost": self._pins.lost(),
        }
        return {name: partial(self._core, name, path) for name, path in paths.items()}

    def _core(self, name: str, path: Path) -> pybpf.Map:
        return self._pinned(path, _CORES[name]())

    def store(self, store: Store) -> pybpf.Map:
        """See :class:`SharedMaps`."""
        return self._stores.map(store)

    def plugin_map(self, plugin: str, name: str) -> pybpf.Map | None:
        """See :class:`SharedMaps`."""
        path = self._pins.plugin_map(plugin, name)
        if path in self._replacing:
            return self._replacing.made(path)
        if path not in self._open and path.exists():
            self._open[path] = pybpf.Map.from_pin(path)
        return self._open.get(path)

    def keep(self, plugin: str, name: str, made: pybpf.Map) -> None:
        """See :class:`SharedMaps`."""
        path = self._pins.plugin_map(plugin, name)
        if path in self._replacing:
            self._replacing.keep(path, made)
            return
        self._pins.make(path.parent)
        made.pin(path)

    def give_up(self, plugin: str, name: str, mismatch: pybpf.MapMismatch) -> None:
        """See :class:`SharedMaps`."""
        path = self._pins.plugin_map(plugin, name)
        if self._replacing.start(path, plugin):
            return
        fix = "" if self._replacing.users(plugin) else "Apply with --new-maps; what the map holds is lost."
        self._give_up(path, f"map '{name}' of plugin '{plugin}'", mismatch.differences, plugin, fix)

    def _pinned(self, path: Path, wanted: _Core) -> pybpf.Map:
        """Open what is pinned, if it is made as wanted; else make it and pin it."""
        if path not in self._open and path.exists():
            found = self._open[path] = pybpf.Map.from_pin(path)
            if lines := differences(wanted.shape, of_map(found)):
                self._give_up(path, f"map '{path.name}' of emptcp", lines)
        if path not in self._open:
            made = self._open[path] = wanted.create()
            self._pins.make(path.parent)
            made.pin(path)
        return self._open[path]

    def _give_up(self, path: Path, what: str, lines: Sequence[str], plugin: str = "", fix: str = "") -> None:
        """Unpin a map that is made otherwise than needed; refuse to while tables use it."""
        from emptcp.chain import running

        with running.everything(self._pins) as found:
            tables = running.tables_using(found, plugin)
        if tables:
            listed = " and ".join(f"`emptcp remove {table}`" for table in tables)
            raise EmptcpError(
                f"the {what} that is in use, pinned at {path}, is not made as it is needed now: "
                f"{imports.shown(lines)}",
                fix=fix or f"Run {listed}, then apply again; what the map holds is lost.",
            )
        path.unlink()
        self._open.pop(path).close()
