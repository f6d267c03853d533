# SPDX-License-Identifier: Apache-2.0
"""The entries of sets and maps while they run: read all, write many in one batch. Nothing is reloaded.

::

    with open_map("home/rates") as rates:
        rates.add({"10.0.0.1:4000-10.0.0.2:443": "10mbit"})
        rates.read()                          # {"10.0.0.1:4000-10.0.0.2:443": "10mbit"}

A change is carried out whole or not at all: every entry is checked before the first is written, and what was
written is taken back when a later one does not fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from emptcp import pybpf
from emptcp.chain import lookups, pins, storage, stores, tables
from emptcp.chain.pins import Pins
from emptcp.chain.session import Session
from emptcp.chain.storage import Store
from emptcp.errors import EmptcpError, did_you_mean, quoted
from emptcp.plugins.catalog import Catalog
from emptcp.policy import file, model, values

Keys = Iterable[str] | Mapping[str, object]


@dataclass(frozen=True)
class Entry:
    """One entry. ``value`` is empty in a set; ``left`` is in nanoseconds, ``None`` when it stays."""

    key: str
    value: str
    left: int | None


@dataclass(frozen=True)
class Changed:
    """What a change did, or would do, in numbers of entries: new ones, other values, gone ones.

    ``absent`` are keys that were to be removed and were not there.
    """

    added: int
    changed: int
    removed: int
    absent: tuple[str, ...] = ()


class Entries:
    """An open set or map of a running table. A context manager."""

    def __init__(self, tree: Pins, store: Store) -> None:
        self.store = store
        self._pins = tree
        self._path = tree.store(store)
        self._keys: dict[str, bytes] = {}
        if not self._path.exists():
            raise EmptcpError(
                f"{store.title} of table '{store.table}' is declared, and not in force",
                fix="Apply the table's file again.",
            )
        self._contents = pybpf.Map.from_pin(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it; the entries stay."""
        self._contents.close()

    def __len__(self) -> int:
        return len(stores.live(self._contents))

    def list(self) -> list[Entry]:
        """Return the entries that count now, ordered by their keys' bytes."""
        at = stores.now()
        return [
            Entry(self.store.format.text(key), self.store.text(value), _left(value, at))
            for key, value in sorted(stores.live(self._contents).items())
        ]

    def read(self) -> dict[str, str]:
        """Return the entries that count now: key to value, which is empty in a set."""
        return {entry.key: entry.value for entry in self.list()}

    def add(self, entries: Keys, *, timeout: str = "") -> Changed:
        """Put entries in force: keys, or for a map a mapping from key to value.

        ``timeout`` is a time as in a file; without it the set's own counts. Raises :class:`EmptcpError` when
        one is no entry, or there is no room, and then changes nothing.
        """
        return self.change(add=entries, timeout=timeout)

    def remove(self, keys: Iterable[str]) -> Changed:
        """Remove entries; those that are not there are no error."""
        return self.change(remove=keys)

    def flush(self) -> Changed:
        """Remove all entries."""
        return self.change(flush=True)

    def change(
        self,
        *,
        add: Keys = (),
        remove: Iterable[str] = (),
        flush: bool = False,
        timeout: str = "",
        dry_run: bool = False,
    ) -> Changed:
        """Remove entries (``flush``: all) and add others, in one step. See :meth:`add` for the rest."""
        wanted = self._packed(add, timeout)
        gone = {self._key(key): key for key in remove}
        with tables.lock():
            self._follow()
            there = stores.live(self._contents)
            if flush:
                gone = dict.fromkeys(there, "")
            if not dry_run:
                stores.change(self._contents, self.store, wanted, gone)
        return _changed(there, wanted, gone)

    def _packed(self, add: Keys, timeout: str) -> dict[bytes, bytes]:
        until = self._until(timeout)
        if isinstance(add, Mapping):
            written = {key: _word(value) for key, value in add.items()}
        else:
            written = dict.fromkeys(add, "")
        stored = {
            word: storage.entry(self.store.value_of(word), until) for word in dict.fromkeys(written.values())
        }
        return {self._key(key): stored[word] for key, word in written.items()}

    def _key(self, text: str) -> bytes:
        """Return a key's bytes. Whoever writes the same keys again and again has them parsed once."""
        found = self._keys.get(text)
        if found is None:
            if len(self._keys) >= self.store.storage.size:
                self._keys.clear()
            found = self._keys[text] = self.store.key_of(text)
        return found

    def _until(self, timeout: str) -> int:
        length = values.of("time").parse(timeout) if timeout else self.store.timeout
        if length and self.store.storage.prefix:
            fix = "Remove it by hand, or by a program, when its time has come."
            raise EmptcpError(f"{self.store.title} holds prefixes, which can't expire", fix=fix)
        return stores.now() + length if length else 0

    def _follow(self) -> None:
        """Finish what a crash interrupted, and open the kernel map of now if the set was declared anew."""
        if tables.unfinished():
            with Session.open() as session:
                session.carry_through()
        if self._path.exists():
            return
        again = _found(self._pins, self.store.kind, f"{self.store.table}/{self.store.name}")
        self._contents.close()
        self.store, self._path, self._contents = again.store, again._path, again._contents
        self._keys.clear()


def open_set(name: str) -> Entries:
    """Open a set of a running table, by ``SET`` or ``TABLE/SET``.

    Raises :class:`EmptcpError` when there is none, or there are several.
    """
    return opened("set", name)


def open_map(name: str) -> Entries:
    """Open a map of a running table, by ``MAP`` or ``TABLE/MAP``. Raises as :func:`open_set` does."""
    return opened("map", name)


def opened(kind: str, name: str) -> Entries:
    """Open a ``"set"`` or a ``"map"``."""
    if tables.unfinished():
        with tables.lock(), Session.open() as session:
            session.carry_through()
    return _found(pins.find() or Pins(pins.run_folder() / "none"), kind, name)


def _found(tree: Pins, kind: str, name: str) -> Entries:
    table, found = _declared(kind, name)
    stored = lookups.everything(table, Catalog.of_enabled())
    for store in stored:
        if (store.kind, store.name) == (kind, found):
            return Entries(tree, store)
    why = "no stage reads it" if kind == "map" else "no enabled plugin provides its key"
    raise EmptcpError(f"{kind} {quoted(found)} of table {quoted(table.name)} is not in force: {why}")


def _declared(kind: str, name: str) -> tuple[model.Table, str]:
    """Return the table that declares a set or map, and its plain name."""
    known = {
        (entry.table, one.name): table
        for entry in tables.entries()
        for table in (file.loads(entry.text, entry.source or entry.table),)
        for one in (table.sets if kind == "set" else table.maps)
    }
    found = [pair for pair in known if name in (pair[1], "/".join(pair))]
    if len(found) == 1:
        return known[found[0]], found[0][1]
    if found:
        places = " and ".join("/".join(pair) for pair in found)
        raise EmptcpError(f"{kind} {quoted(name)} is in several tables", fix=f"Write one of {places}.")
    near = did_you_mean(name, [word for pair in known for word in (pair[1], "/".join(pair))])
    raise EmptcpError(f"no running table has a {kind} {quoted(name)}", fix=near or "See: emptcp list")


def _changed(
    there: Mapping[bytes, bytes], wanted: Mapping[bytes, bytes], gone: Mapping[bytes, str]
) -> Changed:
    others = [key for key in wanted if key in there]
    removed = [key for key in gone if key not in wanted]
    return Changed(
        added=len(wanted) - len(others),
        changed=sum(storage.says(there[key]) != storage.says(wanted[key]) for key in others),
        removed=sum(key in there for key in removed),
        absent=tuple(gone[key] for key in removed if key not in there),
    )


def _left(value: bytes, at: int) -> int | None:
    until = storage.expiry(value)
    return until - at if until else None


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
