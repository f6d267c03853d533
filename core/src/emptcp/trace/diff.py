# SPDX-License-Identifier: Apache-2.0
"""What changed in a packet, field by field."""

from __future__ import annotations

from dataclasses import dataclass

from emptcp.packet.layers import Link
from emptcp.trace.fields import fields
from emptcp.trace.view import Field


@dataclass(frozen=True, slots=True)
class Change:
    """One field by tshark's name. None: the packet has no such field. Several values stand with commas."""

    field: str
    old: str | None
    new: str | None


def changed(before: bytes, after: bytes, link: Link = "ethernet") -> list[Change]:
    """Return the fields that differ, in the order of the packet, as ``tshark -T fields`` prints them.

    A difference that no field shows (in padding, say) is told as the whole ``frame`` in hex.
    """
    if before == after:
        return []
    old, new = _joined(fields(before, link)), _joined(fields(after, link))
    names = _merged(list(old), list(new))
    changes = [Change(name, old.get(name), new.get(name)) for name in names if old.get(name) != new.get(name)]
    return changes or [Change("frame", before.hex(), after.hex())]


def _joined(shown: list[Field]) -> dict[str, str]:
    values: dict[str, list[str]] = {}
    for name, value in shown:
        values.setdefault(name, []).append(value)
    return {name: ",".join(several) for name, several in values.items()}


def _merged(old: list[str], new: list[str]) -> list[str]:
    """Return all names in the new packet's order, each vanished one behind its former neighbour."""
    names = list(new)
    for at, name in enumerate(old):
        if name not in names:
            neighbours = [other for other in old[:at] if other in names]
            names.insert(names.index(neighbours[-1]) + 1 if neighbours else 0, name)
    return names
