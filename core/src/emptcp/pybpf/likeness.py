# SPDX-License-Identifier: Apache-2.0
"""Whether two maps are alike: kind, sizes, and the types of keys and values field by field.

Maps come from three places: an object file that nobody has loaded, one that libbpf has open, and the
kernel. All give a :class:`Shape`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from emptcp.pybpf.btf import Btf
from emptcp.pybpf.elf import ObjectSpec
from emptcp.pybpf.errors import BpfError
from emptcp.pybpf.loaded_btf import LoadedBtf
from emptcp.pybpf.map import Map

INDEXED = frozenset({"array", "percpu_array"})
"""Kinds whose number of entries is part of what a program may rely on: each key is an index below it."""


@dataclass(frozen=True)
class Shape:
    """How a map is made. Sizes are bytes; type ids are of ``types``, 0 where the map has none."""

    kind: str
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    types: Btf | None = None
    key_type: int = 0
    value_type: int = 0


class MapMismatch(BpfError):
    """A map of an object is not made as the one that is there; ``differences`` has a line for each field."""

    def __init__(self, path: Path, name: str, lines: list[str]) -> None:
        super().__init__(
            f"{path.name}: its map '{name}' differs from the one that is there ({'; '.join(lines)})"
        )
        self.map = name
        self.differences = lines


def of_object(spec: ObjectSpec, name: str) -> Shape:
    """Return the shape of a map that an object file defines.

    :raises KeyError: it defines no map of that name.
    """
    found = spec.maps[name]
    return Shape(
        found.kind,
        found.key_size,
        found.value_size,
        found.max_entries,
        found.flags,
        spec.btf,
        found.key_type,
        found.value_type,
    )


def of_map(existing: Map) -> Shape:
    """Return the shape of a map in the kernel."""
    info = existing.info
    types = None
    if info.btf_id:
        with LoadedBtf.from_id(info.btf_id) as loaded:
            types = loaded.types()
    return Shape(
        info.kind,
        info.key_size,
        info.value_size,
        info.max_entries,
        info.flags,
        types,
        info.btf_key_type_id,
        info.btf_value_type_id,
    )


def differences(here: Shape, there: Shape, *, borrowed: bool = False) -> list[str]:
    """Return how two maps differ, a line each; empty when they are alike.

    ``borrowed``: ``here`` only uses the map, and it is ``there`` that says how many entries and which flags
    it has; but one that says a number of its own for an array relies on it.
    """
    return [*_numbers(here, there, borrowed), *_types(here, there)]


def _numbers(here: Shape, there: Shape, borrowed: bool) -> Iterator[str]:
    rows = [
        ("kind", here.kind, there.kind),
        ("key size", here.key_size, there.key_size),
        ("value size", here.value_size, there.value_size),
    ]
    if not borrowed or (here.kind in INDEXED and here.max_entries):
        rows.append(("entries", here.max_entries, there.max_entries))
    if not borrowed:
        rows.append(("flags", here.flags, there.flags))
    for words, mine, theirs in rows:
        if mine != theirs:
            yield f"{words}: {mine} here, {theirs} there"


def _types(here: Shape, there: Shape) -> Iterator[str]:
    """Yield differences of keys and values, where both sides say their types."""
    if here.types is None or there.types is None:
        return
    pairs = (("key", here.key_type, there.key_type), ("value", here.value_type, there.value_type))
    for what, mine, theirs in pairs:
        if mine and theirs:
            for line in here.types.compare(there.types, mine, theirs):
                # `type: ..` is what a comparison of two plain types says.
                yield (
                    f"{what}: {line.removeprefix('type: ')}"
                    if line.startswith("type: ")
                    else (f"{what}.{line}")
                )
