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


@dataclass
class Previous:
    """What the next program takes over from the running one: its counters, by ``table/policy/stage``."""

    counters: pybpf.Map
    slots: dict[str, int]
    following: int


def read_counters(counts: pybpf.Map, description: Description) -> dict[str, counters.Counters]:
    """Return what each stage counted, by ``table/policy/stage``; the program's own stand under ``""``."""
    from emptcp import pybpf

    value = counts.lookup(bytes(4)) or b""
    row = len(value) // pybpf.cpu_ids()
    slots = {"": 0} | {name: stage.counter for name, stage in description.stages().items()}
    return {name: counters.block(value, row, slot) for name, slot in slots.items()}


def row_bytes(counts: pybpf.Map) -> int:
    """Return how long a CPU's row of counters is."""
    from emptcp import pybpf

    return counts.info.value_size // pybpf.cpu_ids()
