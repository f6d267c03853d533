# SPDX-License-Identifier: Apache-2.0
"""A controller's settings in the kernel: the maps that its policies read, one for each setter.

They are written without the lock that commands take: a batch changes entries, each at once, and a tick must
not wait for somebody's `apply`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType

from emptcp import pybpf
from emptcp.chain import controllers, lookups, storage, stores
from emptcp.chain.pins import Pins
from emptcp.chain.storage import Store
from emptcp.control.subflow import SETTERS, Settings
from emptcp.errors import EmptcpError
from emptcp.plugins.catalog import Catalog
from emptcp.policy import model, values

# The subflow's key, which setter, whether it is taken back, the value
_CHANGE = struct.Struct("=36sBB2xQ")


@dataclass(frozen=True)
class Changed:
    """A setting that is new, another one, or (``value`` is ``None``) gone."""

    key: bytes
    setter: str
    value: int | None


def encode(changes: Iterable[tuple[bytes, str, int | None]]) -> bytes:
    """Return changes as one message's body."""
    return b"".join(
        _CHANGE.pack(key, SETTERS.index(setter), value is None, value or 0) for key, setter, value in changes
    )


def decode(body: bytes) -> Iterator[Changed]:
    """Yield the changes of a body. Raises :class:`ValueError` when it is none."""
    try:
        for key, setter, gone, value in _CHANGE.iter_unpack(body):
            yield Changed(key, SETTERS[setter], None if gone else value)
    except (struct.error, IndexError):
        raise ValueError(f"a body of {len(body)} bytes holds no settings") from None


class ControllerMaps:
    """The open maps of one controller of a running table. A context manager.

    Raises :class:`EmptcpError` when one is not in force.
    """

    def __init__(self, tree: Pins, table: model.Table, controller: str, catalog: Catalog) -> None:
        found = {store.name: store for store in lookups.everything(table, catalog) if store.kind == "map"}
        self._open = ExitStack()
        self._stores: dict[str, tuple[Store, pybpf.Map]] = {}
        for name, setter in controllers.declared(table):
            store = found.get(controllers.map_name(controller, setter))
            if name != controller or store is None:
                continue
            if not tree.store(store).exists():
                self._open.close()
                raise EmptcpError(f"{store.title} of table '{table.name}' is not in force")
            opened = self._open.enter_context(pybpf.Map.from_pin(tree.store(store)))
            self._stores[setter] = store, opened
        if not self._stores:
            sentence = f"no policy of table '{table.name}' reads what controller '{controller}' sets"
            raise EmptcpError(sentence, fix="Apply the table's file again.")

    def read(self) -> dict[bytes, Settings]:
        """Return what is set, by subflow."""
        found: dict[bytes, Settings] = {}
        for setter, (store, contents) in self._stores.items():
            assert store.value is not None
            kind = values.of(store.value.parameter.type.kind)
            for key, value in stores.live(contents).items():
                found.setdefault(key, {})[setter] = int(kind.parse(store.text(value)))
        return found

    def write(self, changes: Iterable[Changed]) -> None:
        """Put settings in force, each map in one batch.

        Raises :class:`EmptcpError` when a map is full; then nothing of that map is changed.
        """
        by_setter: dict[str, list[Changed]] = {}
        for one in changes:
            by_setter.setdefault(one.setter, []).append(one)
        for setter, some in by_setter.items():
            store, contents = self._stores[setter]
            packed = {value: _packed(store, setter, value) for value in {one.value for one in some} - {None}}
            add = {one.key: packed[one.value] for one in some if one.value is not None}
            stores.change(contents, store, add, [one.key for one in some if one.value is None])

    @property
    def setters(self) -> tuple[str, ...]:
        """What can be set."""
        return tuple(self._stores)

    def close(self) -> None:
        """Close the maps; what is set stays."""
        self._open.close()

    def __enter__(self) -> ControllerMaps:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _packed(store: Store, setter: str, value: int | None) -> bytes:
    text = ("true" if value else "false") if setter == "backup" else f"{value}bps"
    return storage.entry(store.value_of(text), 0)
