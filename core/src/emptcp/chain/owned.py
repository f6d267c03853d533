# SPDX-License-Identifier: Apache-2.0
"""The maps that a program owns, apart from how it is made: whoever looks at what runs takes no more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from emptcp.chain import counters
from emptcp.chain.description import Description

if TYPE_CHECKING:
    from emptcp import pybpf

PARAMETERS, COUNTERS, DESCRIPTION = "emptcp_params", "emptcp_counts", "emptcp_about"
"""Names of the maps that a program owns; they are found again by its map ids."""


KIND = "array"
"""Of the counters' map."""


@dataclass
class Previous:
    """What the next program takes over from the running one: its counters, by ``table/policy/stage``."""

    counters: pybpf.Map
    slots: dict[str, int]
    following: int


def read_counters(counts: pybpf.Map, description: Description) -> dict[str, counters.Counters]:
    """Return what each stage counted, by ``table/policy/stage``; the program's own stand under ``""``."""
    found = rows(counts)
    slots = {"": 0} | {name: stage.counter for name, stage in description.stages().items()}
    return {name: counters.block(found, slot) for name, slot in slots.items()}


def rows(counts: pybpf.Map) -> list[bytes]:
    """Return the counters of each CPU.

    Programs of layout 3 and before have a per-CPU array, of a chunk in each value.
    """
    if counts.info.kind != KIND:
        chunks = [counts.lookup_percpu(n.to_bytes(4, "little")) or [] for n in range(counts.info.max_entries)]
        return [b"".join(row) for row in zip(*chunks, strict=True)]
    value, size = counts.lookup(bytes(4)) or b"", row_bytes(counts)
    return [value[start : start + size] for start in range(0, len(value), size)]


def row_bytes(counts: pybpf.Map) -> int:
    """Return how long a CPU's row of counters is."""
    from emptcp import pybpf

    return counts.info.value_size // pybpf.cpu_ids()
