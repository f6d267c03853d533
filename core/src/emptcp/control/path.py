# SPDX-License-Identifier: Apache-2.0
"""A named way to the peer, as the policy file says it and as controllers see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from emptcp.policy import model, values


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


def _number(kind: str, text: str) -> Any:
    return values.of(kind).parse(text) if text else None
