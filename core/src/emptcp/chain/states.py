# SPDX-License-Identifier: Apache-2.0
"""Which plugin keeps its state where in the flow table's entries.

An offset that was given is never given to another plugin while the table lives: old entries still hold
the former owner's bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from emptcp import pybpf
from emptcp.chain.pins import Pins
from emptcp.chain.plan import FragmentRef
from emptcp.chain.shared import SLOT_BYTES
from emptcp.errors import EmptcpError

_NOTE_BYTES = 4096

Places = Mapping[str, tuple[int, int]]
"""Plugin -> (offset, size) of its struct in an entry's slot area, in bytes."""


def allocate(fragments: Iterable[FragmentRef], known: Places) -> dict[str, tuple[int, int]]:
    """Return the places of ``known`` and of the plugins of ``fragments`` that keep state.

    The fragments of one plugin share one struct. Raises :class:`EmptcpError` when a plugin's struct has
    grown since it got its place, or when there is no room.
    """
    given = dict(known)
    for fragment in fragments:
        if fragment.state_size and _needs_place(fragment, given):
            given[fragment.plugin] = (_end(given), fragment.state_size)
            _check_room(fragment, given)
    return given


def offsets(given: Places) -> dict[str, int]:
    """Return plugin -> offset."""
    return {plugin: offset for plugin, (offset, _) in given.items()}


def keep(pins: Pins, cookie: int, fragments: Iterable[FragmentRef]) -> dict[str, tuple[int, int]]:
    """Return the places in a namespace's flow table, new ones noted for those who come later."""
    path = pins.state_slots(cookie)
    known = _read(path)
    given = allocate(fragments, known)
    if given != known:
        _write(pins, path, given)
    return given


def known(pins: Pins, cookie: int) -> dict[str, tuple[int, int]]:
    """Return the places in a namespace's flow table."""
    return _read(pins.state_slots(cookie))


def _read(path: Path) -> dict[str, tuple[int, int]]:
    if not path.exists():
        return {}
    with pybpf.Map.from_pin(path) as kept:
        value = (kept.lookup(bytes(4)) or b"").rstrip(b"\0")
    return {plugin: (offset, size) for plugin, (offset, size) in json.loads(value).items()}


def _write(pins: Pins, path: Path, given: Places) -> None:
    if not path.exists():
        pins.make(path.parent)
        with pybpf.Map.create("array", 4, _NOTE_BYTES, 1, name="emptcp_states") as made:
            made.update(bytes(4), json.dumps(given).encode().ljust(_NOTE_BYTES, b"\0"))
            made.pin(path)
        return
    with pybpf.Map.from_pin(path) as kept:
        kept.update(bytes(4), json.dumps(given).encode().ljust(_NOTE_BYTES, b"\0"))


def _end(given: Places) -> int:
    return max((offset + (size + 7 & ~7) for offset, size in given.values()), default=0)


def _needs_place(fragment: FragmentRef, given: Places) -> bool:
    if fragment.plugin not in given:
        return True
    size = given[fragment.plugin][1]
    if size != fragment.state_size:
        raise EmptcpError(
            f"plugin '{fragment.plugin}' keeps {fragment.state_size} bytes per flow, but runs with {size}",
            fix="Remove the tables that use it, then apply them again; its state per flow starts anew.",
        )
    return False


def _check_room(fragment: FragmentRef, given: Places) -> None:
    if _end(given) <= SLOT_BYTES:
        return
    others = ", ".join(name for name in given if name != fragment.plugin)
    raise EmptcpError(
        f"the flow table has no room for {fragment.state_size} bytes of '{fragment.plugin}' beside {others}",
        fix=f"All have {SLOT_BYTES} bytes per flow; remove all tables of this namespace to start anew.",
    )
