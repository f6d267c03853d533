# SPDX-License-Identifier: Apache-2.0
"""Maps that several programs use: the parsed packet, the flow table, events, and the plugins' own.

They are pinned for programs that are attached (:class:`PinnedMaps`), and private to a process for trial
runs (:class:`PrivateMaps`), which then see and change nothing of what runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from emptcp import pybpf
from emptcp.chain.pins import Pins
from emptcp.errors import EmptcpError

KEY_BYTES = 36
"""``struct emptcp_key``."""

HEAD_BYTES, SLOT_BYTES = 64, 448
"""An entry of the flow table: ``struct emptcp_flow``, then the plugins' slots."""

FLOWS = 16384
"""Entries of a namespace's flow table; the least recently used one makes room."""

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

    def events(self) -> pybpf.Map:
        """Return the ring buffer of events."""
        ...

    def plugin_pins(self, plugin: str, names: Iterable[str]) -> dict[str, str]:
        """Return map name -> pin for the maps of a plugin; empty where nothing is pinned."""
        ...


def _packet(size: int) -> pybpf.Map:
    return pybpf.Map.create("percpu_array", 4, size, 1, name="emptcp_packet")


def _flows() -> pybpf.Map:
    return pybpf.Map.create("lru_hash", KEY_BYTES, HEAD_BYTES + SLOT_BYTES, FLOWS, name="emptcp_flows")


def _events() -> pybpf.Map:
    return pybpf.Map.create("ringbuf", 0, 0, EVENT_BYTES, name="emptcp_events")


class PrivateMaps:
    """Maps that end with this object."""

    def __init__(self) -> None:
        self._maps: dict[str, pybpf.Map] = {}

    def packet(self, hook: str, backend: str, size: int) -> pybpf.Map:
        """See :class:`SharedMaps`."""
        name = f"packet_{hook}_{backend}"
        if name not in self._maps:
            self._maps[name] = _packet(size)
        return self._maps[name]

    def flows(self) -> pybpf.Map:
        """See :class:`SharedMaps`."""
        if "flows" not in self._maps:
            self._maps["flows"] = _flows()
        return self._maps["flows"]

    def events(self) -> pybpf.Map:
        """See :class:`SharedMaps`."""
        if "events" not in self._maps:
            self._maps["events"] = _events()
        return self._maps["events"]

    def plugin_pins(self, plugin: str, names: Iterable[str]) -> dict[str, str]:
        """See :class:`SharedMaps`."""
        return {}


class PinnedMaps:
    """The maps in the pin tree, for programs of the namespace with this cookie; made at first use."""

    def __init__(self, pins: Pins, cookie: int) -> None:
        self._pins = pins
        self._cookie = cookie
        self._open: dict[Path, pybpf.Map] = {}

    def packet(self, hook: str, backend: str, size: int) -> pybpf.Map:
        """See :class:`SharedMaps`. The pin's name carries the size, so that releases don't meet."""
        return self._pinned(self._pins.packet(hook, backend, size), _packet(size))

    def flows(self) -> pybpf.Map:
        """See :class:`SharedMaps`."""
        return self._pinned(self._pins.flows(self._cookie), _flows())

    def events(self) -> pybpf.Map:
        """See :class:`SharedMaps`."""
        return self._pinned(self._pins.events(), _events())

    def plugin_pins(self, plugin: str, names: Iterable[str]) -> dict[str, str]:
        """See :class:`SharedMaps`."""
        pins = {name: self._pins.plugin_map(plugin, name) for name in names}
        for path in pins.values():
            self._pins.make(path.parent)
        return {name: str(path) for name, path in pins.items()}

    def _pinned(self, path: Path, fresh: pybpf.Map) -> pybpf.Map:
        """Open what is pinned, if it is alike; else pin ``fresh``."""
        if path in self._open:
            return self._open[path]
        if path.exists():
            found = pybpf.Map.from_pin(path)
            _alike(path, found.info, fresh.info)
        else:
            self._pins.make(path.parent)
            found = fresh
            found.pin(path)
        self._open[path] = found
        return found


def _alike(path: Path, found: pybpf.MapInfo, wanted: pybpf.MapInfo) -> None:
    for field in ("kind", "key_size", "value_size", "max_entries"):
        there, here = getattr(found, field), getattr(wanted, field)
        if there != here:
            raise EmptcpError(
                f"the map pinned at {path} has {field.replace('_', ' ')} {there}, this release needs {here}",
                fix="Remove the tables that an older release applied, then apply them again.",
            )
