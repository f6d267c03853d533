# SPDX-License-Identifier: Apache-2.0
"""Counters of a program: a per-CPU array whose values hold 127 stages each.

A stage's block is 32 numbers of 64 bits: packets, bytes, matches (selectors), RETURN, ACCEPT, DROP,
REDIRECT, skipped, then one per reason (emptcp/abi.h). Bytes are IP bytes: of the packets that
matched for a selector, of all it was given for an actor. Slot 0 is the program's own.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from emptcp.chain import reasons
from emptcp.chain.plan import CHUNK_STAGES, COUNTER_BYTES

CHUNK_BYTES = CHUNK_STAGES * COUNTER_BYTES
_BLOCK = struct.Struct(f"<{COUNTER_BYTES // 8}Q")
_FIELDS = ("packets", "bytes", "matches", "returns", "accepts", "drops", "redirects", "skipped")


@dataclass(frozen=True)
class Counters:
    """What one stage did, summed over CPUs. ``reasons`` has the names and counts of what was skipped."""

    packets: int = 0
    bytes: int = 0
    matches: int = 0
    returns: int = 0
    accepts: int = 0
    drops: int = 0
    redirects: int = 0
    skipped: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    def __sub__(self, earlier: Counters) -> Counters:
        """Return what happened since ``earlier``."""
        numbers = (getattr(self, name) - getattr(earlier, name) for name in _FIELDS)
        since = {name: count - earlier.reasons.get(name, 0) for name, count in self.reasons.items()}
        return Counters(*numbers, reasons={name: count for name, count in since.items() if count})


def block(values: Iterable[bytes], slot: int) -> Counters:
    """Read a slot from the per-CPU values of its chunk."""
    start = slot % CHUNK_STAGES * COUNTER_BYTES
    rows = [_BLOCK.unpack_from(value, start) for value in values]
    total = [sum(column) for column in zip(*rows, strict=True)]
    named = {reasons.name(n): count for n, count in enumerate(total[len(_FIELDS) :]) if count}
    return Counters(*total[: len(_FIELDS)], reasons=named)


def allocate(policies: Sequence[Sequence[str]], known: dict[str, int]) -> dict[str, int]:
    """Give every stage of every policy a slot, those in ``known`` the one they had.

    A policy's stages share a chunk. ``known`` maps names in use by the running program; its slots are
    not given to others, because that program counts into them until the switch.
    """
    taken = {0, *known.values()}
    given: dict[str, int] = {}
    for names in policies:
        given |= _of_policy(names, known, taken)
        taken |= set(given.values())
    return given


def chunks(slots: Iterable[int]) -> int:
    """Return how many values the map needs for these slots."""
    return max(slots, default=0) // CHUNK_STAGES + 1


def _of_policy(names: Sequence[str], known: dict[str, int], taken: set[int]) -> dict[str, int]:
    kept = {name: known[name] for name in names if name in known}
    homes = {slot // CHUNK_STAGES for slot in kept.values()}
    new = [name for name in names if name not in kept]
    if len(homes) == 1:
        free = _free(homes.pop(), taken)
        if len(free) >= len(new):
            return kept | dict(zip(new, free, strict=False))
    chunk = 0
    while len(free := _free(chunk, taken)) < len(names):
        chunk += 1
    return dict(zip(names, free, strict=False))


def _free(chunk: int, taken: set[int]) -> list[int]:
    first = chunk * CHUNK_STAGES
    return [slot for slot in range(first, first + CHUNK_STAGES) if slot not in taken]
