# SPDX-License-Identifier: Apache-2.0
"""Connections of which only some subflows pass a stage by window: the fragment leaves their windows alone.

A sender takes the connection's window for each of its subflows, the widest one that a subflow's peer offers:
one subflow that is left out takes the limit away, or stalls the others.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from emptcp.api import Change, Map, Snapshot, Subflow, namespaces, open_plugin_map, selected_subflows
from emptcp_actor_rate_limit.values import our_end

PLUGIN, REFUSED = "rate_limit", "rate_limit_refused"

# struct refused_key: stage, netns, hook, subflow
_STAGE = struct.Struct("=QI")
_KEY = struct.Struct("=QII16s16s2s2s4x")
_TOKEN = struct.Struct("=I")
_HOOKS = {"ingress": 0, "egress": 1}

Marks = Mapping[bytes, int]
"""The map's key of a subflow on a hook -> its connection's token."""


def incomplete(here: Iterable[Subflow], chosen: Iterable[Subflow]) -> list[Subflow]:
    """Return those of ``chosen`` whose connection has another open subflow ``here``, which is not chosen."""
    passing = {one.endpoints: one for one in chosen}
    left_out = {one.token for one in here if one.open and one.endpoints not in passing}
    return [one for one in passing.values() if one.token in left_out]


def selected(changes: Sequence[Change], hook: str, reader: Snapshot) -> list[Subflow]:
    """Return our subflows that a stage's policies select on a hook, on any of its devices."""
    to: Literal["us", "peer"] = "us" if hook == "ingress" else "peer"
    places = (one for one in changes if one.hook == hook)
    return [subflow for one in places for subflow, _device in selected_subflows(one, to, reader)]


def wanted(changes: Sequence[Change], reader: Snapshot) -> dict[bytes, int]:
    """Return what is to be marked for a stage: its subflows of connections that have others elsewhere."""
    here = reader.read(changes[0].namespace)
    return {
        _key(changes[0], hook, subflow): subflow.token
        for hook in sorted({one.hook for one in changes})
        for subflow in incomplete(here, selected(changes, hook, reader))
    }


def mark(changes: Sequence[Change], reader: Snapshot) -> None:
    """Mark what is to be marked for a stage, and nothing else of its own."""
    table = open_plugin_map(PLUGIN, REFUSED)
    if table is None:
        return
    with table:
        marks, there = wanted(changes, reader), dict(_of(table, changes[0]))
        for key in there.keys() - marks.keys():
            table.delete(key)
        for key, token in marks.items():
            if there.get(key) != token:
                table.update(key, _TOKEN.pack(token))


def marked(change: Change) -> Marks:
    """Return what is marked for a stage, on any hook."""
    table = open_plugin_map(PLUGIN, REFUSED)
    if table is None:
        return {}
    with table:
        return dict(_of(table, change))


def forget(change: Change) -> None:
    """Take the marks of a stage away."""
    table = open_plugin_map(PLUGIN, REFUSED)
    if table is None:
        return
    with table:
        for key, _token in list(_of(table, change)):
            table.delete(key)


def _of(table: Map, change: Change) -> Iterator[tuple[bytes, int]]:
    own = _STAGE.pack(change.number, _netns(change))
    for key, value in table.items():
        if key.startswith(own):
            yield key, _TOKEN.unpack(value)[0]


def _key(change: Change, hook: str, subflow: Subflow) -> bytes:
    local = _mapped(subflow.local.packed), subflow.local_port.to_bytes(2, "big")
    remote = _mapped(subflow.remote.packed), subflow.remote_port.to_bytes(2, "big")
    first, second = (remote, local) if our_end(subflow) else (local, remote)
    place = change.number, _netns(change), _HOOKS[hook]
    return _KEY.pack(*place, first[0], second[0], first[1], second[1])


def _netns(change: Change) -> int:
    namespace = change.namespace or namespaces.resolve()
    return int(namespace.cookie & 0xFFFFFFFF)


def _mapped(address: bytes) -> bytes:
    return address if len(address) == 16 else bytes(10) + b"\xff\xff" + address
