# SPDX-License-Identifier: Apache-2.0
"""A named way to the peer, as the policy file says it and as controllers see it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from emptcp.errors import EmptcpError
from emptcp.hooks import devices
from emptcp.policy import model, values

if TYPE_CHECKING:
    from emptcp.hooks.namespaces import Namespace
    from emptcp.plugins.occasions import Address

Name = TypeVar("Name")


@dataclass(frozen=True)
class Path:
    """One ``[path.NAME]``. ``rate`` is in bytes per second and ``quota`` in bytes, ``None`` where not given.

    ``links`` are what it is made of: two paths that name the same link share it.
    """

    name: str
    devices: tuple[str, ...] = ()
    local: str = ""
    links: tuple[str, ...] = ()
    rate: float | None = None
    cost: int = 0
    quota: int | None = None

    @classmethod
    def of(cls, declared: model.Path) -> Path:
        """Return a path of a checked table."""
        return cls(
            declared.name,
            declared.devices,
            declared.local,
            declared.links,
            _number("rate", declared.rate),
            _number("int", declared.cost) or 0,
            _number("size", declared.quota),
        )

    def shares_link_with(self, other: Path) -> bool:
        """Whether both name one link."""
        return not set(self.links).isdisjoint(other.links)


def places(namespace: Namespace, paths: Iterable[Path]) -> dict[str, str]:
    """Return what tells the path of a subflow: ifindexes and local addresses, as text, to its name."""
    known = list(paths)
    by_index = {index: path.name for path in known for index in _devices(namespace, path)}
    found = {str(index): name for index, name in by_index.items()}
    for address, index in devices.addresses(namespace).items() if by_index else ():
        if index in by_index:
            found[str(address)] = by_index[index]
    return found | {path.local: path.name for path in known if path.local}


def at(places: Mapping[str, Name], local: Address, device: int) -> Name | None:
    """Return what :func:`places` has for a subflow: by its address first.

    A path may be told by that alone, and a fresh subflow's device is unknown.
    """
    return places.get(str(local)) or places.get(str(device))


def _devices(namespace: Namespace, path: Path) -> Iterator[int]:
    for pattern in path.devices:
        try:
            yield from (one.ifindex for one in devices.match(namespace, [pattern]))
        except EmptcpError:  # it may come back
            continue


def _number(kind: str, text: str) -> Any:
    return values.of(kind).parse(text) if text else None
