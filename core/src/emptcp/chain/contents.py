# SPDX-License-Identifier: Apache-2.0
"""What the sets and maps of a running table hold, for `list` and `diff`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from emptcp import pybpf
from emptcp.chain import lookups, pins, storage, stores, tables
from emptcp.chain.session import recorded
from emptcp.chain.storage import Store
from emptcp.errors import EmptcpError
from emptcp.plugins.catalog import Catalog
from emptcp.policy import model, values

Written = dict[str, str]
"""Keys and values as a file has them; values are empty in a set."""

EntriesOf = Callable[[Store, Written | None, Mapping[bytes, bytes]], Written | None]
"""Store, what the file lists, what is in force -> what is to be written."""


@dataclass(frozen=True)
class Summary:
    """A set or map; ``type`` is empty for a set, ``count`` is ``None`` for what nothing uses yet."""

    kind: str
    name: str
    key: str
    type: str
    count: int | None
    size: int
    timeout: str
    lru: bool


def summaries(table: str) -> Iterator[Summary]:
    """Yield the sets and maps of a running table. Needs no plugin; `doctor` tells of a damaged record."""
    tree = pins.find()
    try:
        entry = tables.read(table)
        declared = recorded(entry) if entry is not None else None
    except EmptcpError:
        return
    if declared is None or tree is None:
        return
    pinned = {tree.store_name(path): path for path in tree.store_pins(table)}
    for kind, one in _declared(declared):
        count = _count(pinned.get((kind, one.name)))
        timeout = values.of("time").format(one.timeout) if one.timeout else ""
        value = one.type if isinstance(one, model.Map) else ""
        yield Summary(kind, one.name, one.key, value, count, one.size, timeout, one.lru)


def _declared(table: model.Table) -> Iterator[tuple[str, model.Set | model.Map]]:
    yield from (("set", one) for one in table.sets)
    yield from (("map", one) for one in table.maps)


def _count(path: Path | None) -> int | None:
    if path is None:
        return None
    with pybpf.Map.from_pin(path) as contents:
        return len(stores.live(contents))


def in_force(table: model.Table) -> model.Table:
    """Return a running table with all entries that its sets and maps have now."""

    def entries(store: Store, listed: Written | None, live: Mapping[bytes, bytes]) -> Written | None:
        if listed is None and not live:
            return None
        return {store.format.text(key): store.text(value) for key, value in sorted(live.items())}

    return _with(table, entries)


def as_listed(table: model.Table) -> model.Table:
    """Return a running table with its listed entries as they are now.

    What was added at run time is left out, unless the table says ``exact``. What is as listed is written as
    listed.
    """

    def entries(store: Store, listed: Written | None, live: Mapping[bytes, bytes]) -> Written | None:
        if listed is None:
            return None
        found: Written = {}
        keys = {text: store.key_of(text) for text in listed}
        for text, key in keys.items():
            if key in live:
                same = storage.says(live[key]) == store.value_of(listed[text])
                found[text] = listed[text] if same else store.text(live[key])
        others = live.keys() - keys.values() if table.exact else ()
        return found | {store.format.text(key): store.text(live[key]) for key in sorted(others)}

    return _with(table, entries)


def _with(table: model.Table, entries: EntriesOf) -> model.Table:
    """Return a table with other entries: ``entries(store, listed, live)`` of each set and map in force."""
    tree = pins.find()
    found: dict[tuple[str, str], Written | None] = {}
    listed = {(kind, one.name): _listed(one) for kind, one in _declared(table)}
    for store in lookups.everything(table, Catalog.of_enabled()) if tree is not None else ():
        assert tree is not None
        if tree.store(store).exists():
            with pybpf.Map.from_pin(tree.store(store)) as contents:
                live = stores.live(contents)
            found[store.kind, store.name] = entries(store, listed[store.kind, store.name], live)
    return replace(
        table,
        sets=tuple(_filled_set(one, found) for one in table.sets),
        maps=tuple(_filled_map(one, found) for one in table.maps),
    )


def _listed(one: model.Set | model.Map) -> Written | None:
    if one.entries is None:
        return None
    return dict(one.entries) if isinstance(one, model.Map) else dict.fromkeys(one.entries, "")


def _filled_set(one: model.Set, found: Mapping[tuple[str, str], Written | None]) -> model.Set:
    entries = found.get(("set", one.name), _listed(one))
    return replace(one, entries=None if entries is None else tuple(entries))


def _filled_map(one: model.Map, found: Mapping[tuple[str, str], Written | None]) -> model.Map:
    entries = found.get(("map", one.name), _listed(one))
    return replace(one, entries=None if entries is None else tuple(entries.items()))
