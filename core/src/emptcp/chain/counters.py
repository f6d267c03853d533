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

MOST_BYTES = 4 << 20
"""Of a value that every kernel takes (KMALLOC_MAX_SIZE before Linux 6.0)."""

STEP_STAGES = 16
"""Stages by whose blocks rows grow where there are so many CPUs that chunks would be more than that."""

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


def row_bytes(slots: Iterable[int], rows: int) -> int:
    """Return how long to make each of so many rows for these slots: whole chunks, if not too long in all."""
    needed = max(slots, default=0) + 1
    roomy = -(-needed // CHUNK_STAGES) * CHUNK_BYTES
    return roomy if rows * roomy <= MOST_BYTES else -(-needed // STEP_STAGES) * STEP_STAGES * COUNTER_BYTES


def has_room(row: int, slots: Iterable[int]) -> bool:
    """Tell whether a row is long enough for these slots."""
    return (max(slots, default=0) + 1) * COUNTER_BYTES <= row


def block(rows: Iterable[bytes], slot: int) -> Counters:
    """Read a slot from the rows of all CPUs."""
    blocks = (_BLOCK.unpack_from(row, slot * COUNTER_BYTES) for row in rows)
    total = [sum(column) for column in zip(*blocks, strict=True)]
    named = {reasons.name(n): count for n, count in enumerate(total[len(_FIELDS) :]) if count}
    return Counters(**dict(zip(_FIELDS, total, strict=False)), reasons=named)


def carry(row: bytes, size: int, slots: Mapping[int, int]) -> bytes:
    """Return a row of another size with blocks of this one; ``slots`` tells where to, by where from."""
    made = bytearray(size)
    for slot, to in slots.items():
        source, target = slot * COUNTER_BYTES, to * COUNTER_BYTES
        made[target : target + COUNTER_BYTES] = row[source : source + COUNTER_BYTES]
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
