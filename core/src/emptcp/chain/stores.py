# SPDX-License-Identifier: Apache-2.0
"""The kernel maps of sets and maps: made, found by their pins, read, changed.

One kernel map serves all programs of a table that look something up in a set or map, on all hooks, devices
and namespaces. A kernel map can't be given another size or kind, so its pin's name tells how it is made: a
changed declaration is a new kernel map, into which what the old one holds is copied.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from emptcp import pybpf
from emptcp.chain import storage
from emptcp.chain.pins import Pins
from emptcp.chain.storage import Store
from emptcp.errors import EmptcpError

SINGLY = 64
"""Entries up to which what is to be changed is looked up one by one; of more, the whole map is read."""

Undo = Callable[[], None]


def now() -> int:
    """Return CLOCK_MONOTONIC in nanoseconds, which BPF's ``bpf_ktime_get_ns`` reads too."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def create(store: Store) -> pybpf.Map:
    """Make an empty kernel map.

    Not preallocated where the kernel leaves the choice: a table of 65536 entries takes no memory until it has
    them, and an element that is deleted is not reused while a program still reads it.
    """
    made = store.storage
    flags = 0 if made.kind == "lru_hash" else pybpf.BPF_F_NO_PREALLOC
    return pybpf.Map.create(
        made.kind, made.key_size, made.value_size, made.size, flags=flags, name=f"emptcp_{store.name}"
    )


def live(contents: pybpf.Map) -> dict[bytes, bytes]:
    """Return the entries that count now, as they stand in the kernel."""
    at = now()
    return {key: value for key, value in contents.items() if storage.lives(value, at)}


def listed(store: Store) -> dict[bytes, bytes]:
    """Return the entries that the file lists, as they stand in the kernel when they are added now."""
    until = now() + store.timeout if store.timeout else 0
    return {key: storage.entry(value, until) for key, value in store.entries or ()}


class Stores:
    """The kernel maps of sets and maps, each opened once: what is pinned, and what is made anew.

    What is made is pinned by :func:`emptcp.chain.filling.carry_out`, when nothing can be refused any more.
    """

    def __init__(self, tree: Pins) -> None:
        self._pins = tree
        self._open: dict[Path, pybpf.Map] = {}

    def map(self, store: Store) -> pybpf.Map:
        """Return the kernel map of a set or map as it is declared now."""
        path = self._pins.store(store)
        if path not in self._open:
            self._open[path] = pybpf.Map.from_pin(path) if path.exists() else create(store)
        return self._open[path]

    def close(self) -> None:
        """Close the maps; what is pinned stays."""
        for owned in self._open.values():
            owned.close()


def change(
    contents: pybpf.Map, store: Store, add: Mapping[bytes, bytes], remove: Iterable[bytes] = ()
) -> Undo:
    """Put entries in force and remove others, all or none; return what takes that back.

    ``add`` has values as they stand in the kernel. Raises :class:`EmptcpError` when they don't fit, also
    after the entries that have expired are gone.
    """
    gone = [key for key in remove if key not in add]
    before = _present(contents, [*add, *gone])

    def back() -> None:
        contents.delete_batch(key for key in add if key not in before)
        contents.update_batch(before.items())

    try:
        _write(contents, store, add, [key for key in gone if key in before])
    except BaseException:
        back()
        raise
    return back


def _write(contents: pybpf.Map, store: Store, add: Mapping[bytes, bytes], remove: list[bytes]) -> None:
    contents.delete_batch(remove)
    try:
        contents.update_batch(add.items())
    except pybpf.BpfError as error:
        if not error.full:
            raise
        collect(contents)
        _write_again(contents, store, add)


def _write_again(contents: pybpf.Map, store: Store, add: Mapping[bytes, bytes]) -> None:
    try:
        contents.update_batch(add.items())
    except pybpf.BpfError as error:
        if not error.full:
            raise
        raise EmptcpError(
            f"{store.title} of table '{store.table}' is full: it holds at most {store.storage.size} entries",
            fix="Remove some, write a larger size in its file, or lru = true.",
        ) from None


def collect(contents: pybpf.Map) -> int:
    """Remove the entries that have expired; return how many."""
    at = now()
    return contents.delete_batch([key for key, value in contents.items() if not storage.lives(value, at)])


def _present(contents: pybpf.Map, keys: list[bytes]) -> dict[bytes, bytes]:
    """Return what a map holds of these keys. A look-up of a prefix would find a shorter one as well."""
    if len(keys) <= SINGLY and contents.info.kind != "lpm_trie":
        found = ((key, contents.lookup(key)) for key in keys)
        return {key: value for key, value in found if value is not None}
    wanted = set(keys)
    return {key: value for key, value in contents.items() if key in wanted}
