# SPDX-License-Identifier: Apache-2.0
"""The ADD_ADDR options that were kept back: the map that the fragment stores them in."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from emptcp.api import FlowEntry, Subflow

PLUGIN, ADDRESSES = "blk_subflow", "blocked_addresses"
ADDRESS_KEPT, ADDRESS_REMOVED = 1, 2
"""The fragments' events."""

# struct blocked_key of blocked.h: flow (addresses, then ports), netns, end
_KEY = struct.Struct("=16s16s2s2sII")
_PLACE = struct.Struct("=II")
# struct blocked_address, eight of which are a struct blocked: len, given, option, since
_ADDRESS = struct.Struct("=BB30sQ")


def kept(data: bytes) -> bytes:
    """Return the option that an event of the fragment tells of."""
    length, _, option, _ = _ADDRESS.unpack_from(data)
    return bytes(option[:length])


@dataclass(frozen=True)
class Blocked:
    """An ADD_ADDR option that was kept back: the map's key, the place in its value, the option's bytes."""

    key: bytes
    place: int
    option: bytes


def removed(option: bytes) -> frozenset[int]:
    """Return the address IDs that a REMOVE_ADDR names. Other bytes may stand behind it."""
    return frozenset(option[3 : option[1]])


def key_of(subflow: Subflow, announcer: Literal["us", "peer"], netns: int) -> bytes:
    """Return the key of what one end of a subflow, ``"us"`` or ``"peer"``, announced or joined by.

    ``netns`` is the namespace's cookie.
    """
    local = (_mapped(subflow.local.packed), subflow.local_port.to_bytes(2, "big"))
    remote = (_mapped(subflow.remote.packed), subflow.remote_port.to_bytes(2, "big"))
    first, second = sorted((local, remote))
    end = int((local if announcer == "us" else remote) == second)
    return _KEY.pack(first[0], second[0], first[1], second[1], netns & 0xFFFFFFFF, end)


def end_key(entry: FlowEntry, end: int) -> bytes:
    """Return the key of what an end (0 or 1) of an entry of the flow table announced or joined by."""
    return entry.key + _PLACE.pack(entry.netns, end)


def _mapped(address: bytes) -> bytes:
    return address if len(address) == 16 else bytes(10) + b"\xff\xff" + address


def waiting(table: Any, key: bytes) -> Iterator[Blocked]:
    """Yield what one end announced and is kept back still."""
    value = table.lookup(key)
    for place, (length, given, option, _) in enumerate(_ADDRESS.iter_unpack(value or b"")):
        if length and not given:
            yield Blocked(key, place, option[:length])


def forget(table: Any, key: bytes, ids: Collection[int], time: int) -> None:
    """Forget what one end announced by these IDs and took back at ``time``, an event's.

    What it has announced since then stays: the event is heard a while after the packet passed.
    """
    value = table.lookup(key)
    if value is None:
        return
    kept = [
        bytes(_ADDRESS.size)
        if length and option[3] in ids and since <= time
        else _ADDRESS.pack(length, given, option, since)
        for length, given, option, since in _ADDRESS.iter_unpack(value)
    ]
    if b"".join(kept) != value:
        table.update(key, b"".join(kept))


def mark(table: Any, blocked: Blocked, *, given: bool) -> None:
    """Let the option pass from now on, or keep it back again, unless it has been forgotten meanwhile."""
    value = table.lookup(blocked.key)
    at = blocked.place * _ADDRESS.size
    if value is not None and value[at + 2 : at + 2 + len(blocked.option)] == blocked.option:
        marked = value[: at + 1] + bytes((given,)) + value[at + 2 :]
        table.update(blocked.key, marked)
