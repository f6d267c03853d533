# SPDX-License-Identifier: Apache-2.0
"""The chain context of the paper (section IV-A, Fig. 4): a plan as four-byte entries, for engine ``tail``.

::

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +---------------+---+-+---------+-------------------------------+
    | next policy   | P |S| skip    | address / immediate           |
    +---------------+---+-+---------+-------------------------------+

*Next policy* is the place in the program array of the stage that follows, 255 at the end. *P* tells what
the last two bytes are: nothing, the stage's parameters themselves, or where they stand (in units of eight
bytes). The six bits that Fig. 4 reserves say what a selector's answer does: by one answer the chain goes on
with the next entry, by the other (*S*: a match) it skips so many. Entry 0 belongs to no stage and tells the
first one. A second table, in parallel, tells of each stage where it counts (place and chunk), which policy it
belongs to, and how far that policy's end is.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from emptcp.chain.counters import CHUNK_STAGES
from emptcp.chain.layout import Slot
from emptcp.chain.plan import END, Plan, Step
from emptcp.errors import EmptcpError

NOTHING, IMMEDIATE, ADDRESS = range(3)
"""What the last two bytes of an entry are (P)."""

LAST = 255
"""*Next policy* of the entry after which the packet passes."""

MOST_SKIPPED = 31
MOST_CALLS = 33
"""Tail calls that a kernel lets one packet make (``MAX_TAIL_CALL_CNT``)."""

_WORD = struct.Struct("<I")


@dataclass(frozen=True)
class Entry:
    """One entry; ``skip_on_match`` and ``skip`` are the six bits that the paper reserves."""

    next: int
    kind: int = NOTHING
    skip_on_match: bool = False
    skip: int = 0
    value: int = 0

    def encode(self) -> int:
        """Return the entry as a number; its bytes in memory are in the order of the picture."""
        return self.next | self.kind << 8 | self.skip_on_match << 10 | self.skip << 11 | self.value << 16

    @classmethod
    def decode(cls, word: int) -> Entry:
        """Read an entry."""
        return cls(word & 0xFF, word >> 8 & 3, bool(word >> 10 & 1), word >> 11 & 31, word >> 16)


@dataclass(frozen=True)
class Context:
    """The entries of a plan and the table beside them, as they stand in the parameter map."""

    entries: tuple[Entry, ...]
    about: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes of both tables."""
        return 8 * len(self.entries)

    def encode(self) -> bytes:
        """Return both tables."""
        words = [*(entry.encode() for entry in self.entries), *self.about]
        return b"".join(_WORD.pack(word) for word in words)


def build(
    plan: Plan, program: Callable[[Step], int], slots: Sequence[Slot | None], counters: Sequence[int]
) -> Context:
    """Lay a plan out. ``program`` tells a step's place in the program array.

    Raises :class:`EmptcpError` when the chain is longer than the engine can run.
    """
    _check_depth(plan)
    followers = [*(program(step) for step in plan.steps), LAST]
    entries = [Entry(followers[0])]
    about = [0]
    for step, slot, counter in zip(plan.steps, slots, counters, strict=True):
        end = plan.policies[step.policy].last + 1
        on_match, skip = _skip(step, end)
        kind, value = parameters(step.stage.parameters, slot)
        entries.append(Entry(followers[step.index + 1], kind, on_match, skip, value))
        chunk, place = divmod(counter, CHUNK_STAGES)
        about.append(place | step.policy << 8 | chunk << 16 | (end - step.index - 1) << 24)
    return Context(tuple(entries), tuple(about))


def parameters(packed: bytes, slot: Slot | None) -> tuple[int, int]:
    """Return P and the last two bytes for a stage's parameters: the value itself where it is small enough."""
    if slot is None:
        return NOTHING, 0
    number = int.from_bytes(packed, "little")
    if not slot.flips and number <= 0xFFFF:
        return IMMEDIATE, number
    return ADDRESS, slot.offset // 8


def with_parameters(word: int, packed: bytes, slot: Slot) -> int:
    """Return an entry with other parameters."""
    entry = Entry.decode(word)
    kind, value = parameters(packed, slot)
    return Entry(entry.next, kind, entry.skip_on_match, entry.skip, value).encode()


def depth(plan: Plan) -> int:
    """Return the most stages that one packet can be given: each takes a tail call."""
    longest = [0] * (len(plan.steps) + 1)
    for step in reversed(plan.steps):
        end = plan.policies[step.policy].last + 1
        targets = {end if edge == END else edge for edge in (step.if_match, step.if_not)}
        longest[step.index] = 1 + max(longest[target] for target in targets)
    return longest[0]


def _check_depth(plan: Plan) -> None:
    needed = depth(plan)
    if needed > MOST_CALLS:
        raise EmptcpError(
            f"a packet could be given {needed} stages at {plan.hook}, and the engine 'tail' runs at most "
            f"{MOST_CALLS}, the kernel's limit of tail calls",
            fix="Use fewer stages on this device, or the engine 'fused'.",
        )


def _skip(step: Step, end: int) -> tuple[bool, int]:
    """Return by which answer a stage skips entries, and how many; an actor's RETURN has its own table."""
    match, miss = (end if edge == END else edge for edge in (step.if_match, step.if_not))
    if step.stage.kind == "actor":
        return False, 0
    following = step.index + 1
    assert following in (match, miss), "a selector is followed by what is written behind it"
    on_match = miss == following
    skip = (match if on_match else miss) - following
    if skip > MOST_SKIPPED:
        raise EmptcpError(
            f"a selector would skip {skip} stages, and the engine 'tail' can skip {MOST_SKIPPED}",
            fix="Split the policy in two, or use the engine 'fused'.",
        )
    return on_match, skip
