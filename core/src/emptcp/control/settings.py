# SPDX-License-Identifier: Apache-2.0
"""A controller's settings in the kernel: the maps and sets that its policies read, one for each target.

They are written without the lock that commands take: a batch changes entries, each at once, and a tick must
not wait for somebody's `apply`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType

from emptcp import pybpf
from emptcp.chain import controllers, lookups, storage, stores
from emptcp.chain.pins import Pins
from emptcp.chain.storage import Store
from emptcp.control.wishes import Settings
from emptcp.errors import EmptcpError
from emptcp.plugins.catalog import Catalog
from emptcp.policy import model, values

# A subflow's or connection's key, padded; its length; whether it is taken back; which target; the value
_CHANGE = struct.Struct("=36sBBHQ")


@dataclass(frozen=True)
class Changed:
    """A setting that is new, another one, or (``value`` is ``None``) gone.

    ``key`` is that of a subflow or a connection, ``target`` one of :func:`emptcp.chain.controllers.targets`.
    """

    key: bytes
    target: str
    value: int | None


def encode(changes: Iterable[tuple[bytes, str, int | None]], targets: Sequence[str]) -> bytes:
    """Return changes as one message's body; whoever decodes it has the same targets."""
    number = {name: index for index, name in enumerate(targets)}
    return b"".join(
        _CHANGE.pack(key, len(key), value is None, number[target], value or 0)
        for key, target, value in changes
    )


def decode(body: bytes, targets: Sequence[str]) -> Iterator[Changed]:
    """Yield the changes of a body. Raises :class:`ValueError` when it is none."""
    try:
        for key, length, gone, target, value in _CHANGE.iter_unpack(body):
            yield Changed(key[:length], targets[target], None if gone else value)
    except (struct.error, IndexError):
        raise ValueError(f"a body of {len(body)} bytes holds no settings") from None


class ControllerMaps:
    """The open maps of one controller of a running table. A context manager.

    Raises :class:`EmptcpError` when one is not in force.
    """

    def __init__(
        self, tree: Pins, table: model.Table, controller: model.Controller, catalog: Catalog
    ) -> None:
        found = {store.name: store for store in lookups.everything(table, catalog)}
        self._open = ExitStack()
        self._stores: dict[str, tuple[Store, pybpf.Map]] = {}
        for target in controllers.declared(table, controller):
            store = found.get(controllers.store_name(controller.name, target))
            if store is None:
                continue
            if not tree.store(store).exists():
                self._open.close()
                raise EmptcpError(f"{store.title} of table '{table.name}' is not in force")
            opened = self._open.enter_context(pybpf.Map.from_pin(tree.store(store)))
            self._stores[target] = store, opened
        if not self._stores:
            sentence = f"no policy of table '{table.name}' reads what controller '{controller.name}' sets"
            raise EmptcpError(sentence, fix="Apply the table's file again.")

    def read(self) -> dict[bytes, Settings]:
        """Return what is set, by the key of a subflow or a connection."""
        found: dict[bytes, Settings] = {}
        for target, (store, contents) in self._stores.items():
            for key, value in stores.live(contents).items():
                found.setdefault(key, {})[target] = _number(store, value)
        return found

    def write(self, changes: Iterable[Changed]) -> None:
        """Put settings in force, each map or set in one batch.

        Raises :class:`EmptcpError` when one is full; then nothing of that one is changed.
        """
        by_target: dict[str, list[Changed]] = {}
        for one in changes:
            by_target.setdefault(one.target, []).append(one)
        for target, some in by_target.items():
            store, contents = self._stores[target]
            packed = {
                value: _packed(store, value) for value in {one.value for one in some} if value is not None
            }
            add = {one.key: packed[one.value] for one in some if one.value is not None}
            stores.change(contents, store, add, [one.key for one in some if one.value is None])

    @property
    def targets(self) -> tuple[str, ...]:
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


_WRITTEN: Mapping[str, Callable[[int], str]] = {
    "bool": lambda value: "true" if value else "false",
    "rate": lambda value: f"{value}bps",
    "int": str,
}
"""How a number is written as a map's entry, by the type of its values."""


def _packed(store: Store, value: int) -> bytes:
    text = _WRITTEN[store.value.parameter.type.kind](value) if store.value is not None else ""
    return storage.entry(store.value_of(text), 0)


def _number(store: Store, entry: bytes) -> int:
    if store.value is None:
        return 1
    return int(values.of(store.value.parameter.type.kind).parse(store.text(entry)))
