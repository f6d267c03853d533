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
with the next entry, by the other (*S*: a match) it skips so many, or all that are left of the policy (31).
Of an actor *S* says that its chain ends here. Of a ``goto`` the last two bytes tell how many entries it
skips. Entry 0 belongs to no stage and tells the first one.

Behind the entries stands a second table, in parallel: where each stage counts, and how many entries are left
of its policy. Where actors choose chains at run time, a third one tells each its row of a matrix: by the
chain's number how far it leads, plus one; 0 for a chain that the actor was not given.
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

TO_END = 31
"""*skip* of a selector's answer that leaves the policy."""

MOST_STEPS = 255
"""Stages of one policy, those of its named chains counted."""

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
    """The entries of a plan and the tables beside them, as they stand in the parameter map.

    ``rows`` and ``distances`` are empty unless actors choose chains.
    """

    entries: tuple[Entry, ...]
    about: tuple[int, ...]
    rows: tuple[int, ...] = ()
    distances: tuple[int, ...] = ()

    def encode(self) -> bytes:
        """Return all tables."""
        words = [*(entry.encode() for entry in self.entries), *self.about, *self.rows, *self.distances]
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
    rows, distances = _choices(plan)
    for step, slot, counter in zip(plan.steps, slots, counters, strict=True):
        end = plan.policies[step.policy].last + 1
        on_match, skip = _skip(step, end)
        kind, value = parameters(step.stage.parameters, slot)
        if step.stage.kind == "goto":
            kind, value = IMMEDIATE, step.if_match - step.index - 1
        entries.append(Entry(followers[step.index + 1], kind, on_match, skip, value))
        chunk, place = divmod(counter, CHUNK_STAGES)
        about.append(place | step.policy << 8 | chunk << 16 | (end - step.index - 1) << 24)
    return Context(tuple(entries), tuple(about), tuple(rows), tuple(distances))


def width(plan: Plan) -> int:
    """Return how long a row of the matrix of chosen chains is, 0 where no actor chooses."""
    return max((number + 1 for step in plan.steps for number, _ in step.gotos), default=0)


def _choices(plan: Plan) -> tuple[list[int], list[int]]:
    """Return each entry's row as the place where it begins, and the rows; the first row has no chains."""
    across = width(plan)
    if not across:
        return [], []
    rows, distances = [0], [0] * across
    for step in plan.steps:
        rows.append(len(distances) if step.gotos else 0)
        chosen = {number: first - step.index for number, first in step.gotos}
        if chosen:
            distances += [chosen.get(number, 0) for number in range(across)]
    return rows, distances


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
        edges = (step.if_match, step.if_not, *(first for _, first in step.gotos))
        targets = {end if edge == END else edge for edge in edges}
        longest[step.index] = 1 + max(longest[target] for target in targets)
    return longest[0]


def _check_depth(plan: Plan) -> None:
    for policy in plan.policies:
        count = policy.last - policy.first + 1
        if count > MOST_STEPS:
            raise EmptcpError(
                f"policy '{policy.name}' and its chains have {count} stages, and the engine 'tail' runs at "
                f"most {MOST_STEPS}",
                fix="Split it into several policies, or use the engine 'fused'.",
            )
    needed = depth(plan)
    if needed > MOST_CALLS:
        raise EmptcpError(
            f"a packet could be given {needed} stages at {plan.hook}, and the engine 'tail' runs at most "
            f"{MOST_CALLS}, the kernel's limit of tail calls",
            fix="Use fewer stages on this device, or the engine 'fused'.",
        )


def _skip(step: Step, end: int) -> tuple[bool, int]:
    """Return S and *skip*: where a stage's answers lead."""
    following = step.index + 1
    if step.stage.kind != "selector":
        return step.if_match == END and following != end, 0
    edges = (step.if_match, step.if_not)
    assert following in edges, "a selector is followed by what is written behind it"
    on_match = step.if_not == following
    target = step.if_match if on_match else step.if_not
    if target == END:
        return on_match, TO_END
    skip = target - following
    if skip >= TO_END:
        raise EmptcpError(
            f"a selector would skip {skip} stages, and the engine 'tail' can skip {TO_END - 1}",
            fix="Split the policy in two, or use the engine 'fused'.",
        )
    return on_match, skip
