# SPDX-License-Identifier: Apache-2.0
"""Counters of a program: in the only value of an array, a row for each possible CPU.

A stage's block is 32 numbers of 64 bits: packets, bytes, matches (of an actor: how often it chose a chain),
RETURN, ACCEPT, DROP, REDIRECT, skipped, then one per reason (emptcp/abi.h). Bytes are IP bytes: of the
packets that matched for a selector, of all it was given for an actor. Slot 0 is the program's own.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from emptcp.chain import reasons

COUNTER_BYTES = 8 * (8 + reasons.SLOTS)
"""Size of one stage's block."""

CHUNK_STAGES = 127
"""Stages whose blocks an instruction reaches from one address: its offset has 16 bits."""

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
        numbers = {name: getattr(self, name) - getattr(earlier, name) for name in _FIELDS}
        since = {name: count - earlier.reasons.get(name, 0) for name, count in self.reasons.items()}
        return Counters(**numbers, reasons={name: count for name, count in since.items() if count})


def row_bytes(slots: Iterable[int]) -> int:
    """Return how long a CPU's row is for these slots: a chunk, or several."""
    return (max(slots, default=0) // CHUNK_STAGES + 1) * CHUNK_BYTES


def block(value: bytes, row: int, slot: int) -> Counters:
    """Read a slot from the map's value, whose rows are ``row`` bytes long."""
    blocks = (_BLOCK.unpack_from(value, start) for start in range(slot * COUNTER_BYTES, len(value), row))
    total = [sum(column) for column in zip(*blocks, strict=True)]
    named = {reasons.name(n): count for n, count in enumerate(total[len(_FIELDS) :]) if count}
    return Counters(**dict(zip(_FIELDS, total, strict=False)), reasons=named)


def carry(value: bytes, row: int, longer: int, slots: Mapping[int, int]) -> bytes:
    """Return a map's value with rows of another length; ``slots`` tells where blocks go to, by where from."""
    made = bytearray(len(value) // row * longer)
    for number, start in enumerate(range(0, len(value), row)):
        for slot, to in slots.items():
            source, target = start + slot * COUNTER_BYTES, number * longer + to * COUNTER_BYTES
            made[target : target + COUNTER_BYTES] = value[source : source + COUNTER_BYTES]
    return bytes(made)


def allocate(policies: Sequence[Sequence[str]], known: dict[str, int], following: int = 1) -> dict[str, int]:
    """Give every stage of every policy a slot, those in ``known`` the one they had.

    A policy's stages share a chunk. New slots begin at ``following``: a slot that was given before is not
    given again, because clearing it would race with the running program that counts beside it.
    """
    given: dict[str, int] = {}
    for names in policies:
        given |= _of_policy(names, known, following)
        following = max(following, *(slot + 1 for slot in given.values()))
    return given


def _of_policy(names: Sequence[str], known: dict[str, int], following: int) -> dict[str, int]:
    kept = {name: known[name] for name in names if name in known}
    new = [name for name in names if name not in kept]
    chunk, left = following // CHUNK_STAGES, CHUNK_STAGES - following % CHUNK_STAGES
    homes = {slot // CHUNK_STAGES for slot in kept.values()}
    if not new or (homes <= {chunk} and len(new) <= left):
        return kept | {name: following + n for n, name in enumerate(new)}
    start = following if len(names) <= left else (chunk + 1) * CHUNK_STAGES
    return {name: start + n for n, name in enumerate(names)}
