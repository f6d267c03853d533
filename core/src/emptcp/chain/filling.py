# SPDX-License-Identifier: Apache-2.0
"""What an `apply` does to the sets and maps of its table: entries of the file, changed declarations.

A set or map that stays keeps what was put into it at run time; what the file lists is put in force with the
file's value. In a table that says ``exact = true``, what lists entries has exactly those. One that is made
anew, because its size or kind is another, begins with what the old one holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from emptcp import pybpf
from emptcp.chain import storage, stores
from emptcp.chain.pins import Pins
from emptcp.chain.storage import Store
from emptcp.chain.stores import Stores, Undo
from emptcp.errors import EmptcpError


@dataclass(frozen=True)
class Filling:
    """What is to be done to one set or map: ``fresh`` if it is made anew, then it begins with ``add``."""

    store: Store
    fresh: bool
    add: Mapping[bytes, bytes] = field(default_factory=dict)
    remove: tuple[bytes, ...] = ()
    lost: int = 0


@dataclass(frozen=True)
class Filled:
    """What was done to one set or map, or would be, in numbers of entries."""

    kind: str
    name: str
    added: int
    removed: int
    fresh: bool


def decide(tree: Pins, wanted: Iterable[Store], exact: bool) -> list[Filling]:
    """Return what has to be done, without what is as it should be.

    Raises :class:`EmptcpError` when a new size is too small for what there is.
    """
    found = (_decide(tree, store, exact) for store in wanted)
    return [one for one in found if one.fresh or one.add or one.remove]


def _decide(tree: Pins, store: Store, exact: bool) -> Filling:
    path = tree.store(store)
    listed, is_exact = stores.listed(store), exact and store.entries is not None
    if path.exists():
        with pybpf.Map.from_pin(path) as contents:
            there = stores.live(contents)
        return Filling(store, False, _missing(listed, there), _others(listed, there) if is_exact else ())
    there, lost = inherited(tree, store)
    kept = {} if is_exact else there
    # What is there already keeps the time until which it counts.
    whole = kept | {key: there[key] for key in listed if key in there} | _missing(listed, there)
    _check_size(store, len(whole))
    return Filling(store, True, whole, lost=lost)


def _missing(listed: Mapping[bytes, bytes], there: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Return the listed entries that are not there, or with another value."""
    return {
        key: value
        for key, value in listed.items()
        if key not in there or storage.says(there[key]) != storage.says(value)
    }


def _others(listed: Mapping[bytes, bytes], there: Mapping[bytes, bytes]) -> tuple[bytes, ...]:
    return tuple(key for key in there if key not in listed)


def inherited(tree: Pins, store: Store) -> tuple[dict[bytes, bytes], int]:
    """Return the entries of a set's or map's last kernel map, and how many of them can't be taken over."""
    last = tree.last_store(store)
    if last is None:
        return {}, 0
    with pybpf.Map.from_pin(last) as contents:
        there = stores.live(contents)
    return (there, 0) if tree.store_layout(last) == store.storage.layout else ({}, len(there))


def _check_size(store: Store, entries: int) -> None:
    if entries > store.storage.size and not store.storage.lru:
        raise EmptcpError(
            f"{store.title} would have {entries} entries, more than its size, {store.storage.size}",
            fix=f"Write a larger size, or empty it first: emptcp {store.kind} flush {store.name}",
        )


def carry_out(tree: Pins, opened: Stores, fillings: Sequence[Filling]) -> Undo:
    """Do what was decided; return what takes it back.

    A new kernel map gets its pin when it has its entries: where there is a pin, there is all of it.
    """
    with ExitStack() as undo:
        for one in fillings:
            contents = opened.map(one.store)
            undo.callback(stores.change(contents, one.store, one.add, one.remove))
            path = tree.store(one.store)
            if one.fresh and not path.exists():
                tree.make(path.parent)
                contents.pin(path)
                undo.callback(path.unlink, missing_ok=True)
        return undo.pop_all().close


def settle(tree: Pins, table: str, wanted: Iterable[Store], declared: Iterable[tuple[str, str]]) -> None:
    """Let go of kernel maps that the table does not use any more; there is no way back after it.

    ``declared`` are kind and name of all sets and maps of the table: of one that can't be made now, because
    nothing uses it, the kernel map stays.
    """
    kept = {tree.store(store) for store in wanted}
    made = {(store.kind, store.name) for store in wanted}
    dormant = set(declared) - made
    for path in tree.store_pins(table):
        if path not in kept and tree.store_name(path) not in dormant:
            path.unlink()


def done(fillings: Iterable[Filling]) -> list[Filled]:
    """Return what was done, in numbers."""
    return [
        Filled(one.store.kind, one.store.name, len(one.add), len(one.remove), one.fresh) for one in fillings
    ]


def remarks(fillings: Iterable[Filling]) -> list[str]:
    """Return a warning for entries that can't be taken over."""
    return [
        f"{one.store.title}: {one.lost} entries were made for another key or type, and are gone"
        for one in fillings
        if one.lost
    ]


def contents(tree: Pins) -> Callable[[Store], dict[bytes, bytes]]:
    """Return what tells the entries of a set or map that runs, for trials that shall see them."""

    def found(store: Store) -> dict[bytes, bytes]:
        path = tree.store(store)
        if not path.exists():
            return stores.listed(store)
        with pybpf.Map.from_pin(path) as opened:
            return stores.live(opened)

    return found
