# SPDX-License-Identifier: Apache-2.0
"""Where a program's parameters stand in its one-value parameter map.

The value starts with a word of eight bytes that is no switch, and one for each policy, which switches it off
by one store (:func:`switch`).
A stage's struct of up to eight bytes has one aligned slot and is written by one store. A larger one
has two slots behind a word that tells how far it is to the one in force: the other is written first, then
the word flips, so that no packet sees half a change.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

VERSION = 4
"""Goes up when values are laid out otherwise, so that the next `apply` makes programs of before anew."""

HEAD_SIZE = 8
"""So that a place of 0 says that a program has no switch, and no map is empty."""

SWITCH_SIZE = 8
ATOMIC = 8


def aligned(size: int) -> int:
    """Return a size rounded up to eight bytes."""
    return (size + 7) & ~7


def stride(size: int) -> int:
    """Return the bytes between two sides: a power of two, so that a program masks what tells the side."""
    return 1 << (aligned(size) - 1).bit_length()


@dataclass(frozen=True)
class Slot:
    """A stage's place: ``offset`` in bytes, ``size`` of its struct. ``flips`` when it has two sides."""

    offset: int
    size: int

    @cached_property
    def flips(self) -> bool:
        """Whether the struct is too large for one store."""
        return self.size > ATOMIC

    @cached_property
    def stride(self) -> int:
        """Bytes between the two sides."""
        return stride(self.size)

    @cached_property
    def first_side(self) -> int:
        """Offset of side 0; what tells the side in force, if there is anything, stands at :attr:`offset`."""
        return self.offset + (8 if self.flips else 0)

    @property
    def end(self) -> int:
        """First byte after the slot."""
        return self.first_side + self.stride * (2 if self.flips else 1)


def switch(policy: int) -> int:
    """Return the offset of a policy's switch, by the policy's number: 0 is on, anything else is off."""
    return HEAD_SIZE + SWITCH_SIZE * policy


def turn(words: memoryview, place: int, off: bool) -> None:
    """Switch a policy off or on in a live parameter map; ``place`` is its switch's offset."""
    words[place // 8] = off


def slots(sizes: Iterable[int], policies: int) -> tuple[list[Slot | None], int]:
    """Place structs of the given sizes (0: a stage without parameters) behind the switches of ``policies``.

    Returns the slots and the total size.
    """
    placed: list[Slot | None] = []
    offset = switch(policies)
    for size in sizes:
        slot = Slot(offset, size) if size else None
        placed.append(slot)
        offset = slot.end if slot else offset
    return placed, offset


def read(value: bytes | memoryview, slot: Slot) -> bytes:
    """Return the struct in force."""
    start = slot.first_side
    if slot.flips:
        start += int.from_bytes(value[slot.offset : slot.offset + 8], "little")
    return bytes(value[start : start + slot.size])


def fill(value: bytearray, slot: Slot, packed: bytes) -> None:
    """Write a stage's struct into a parameter value that no program uses yet."""
    value[slot.first_side : slot.first_side + len(packed)] = packed


def change(words: memoryview, slot: Slot, packed: bytes) -> None:
    """Put a new struct in force in a live parameter map.

    ``words`` is the mapped value as a memoryview of format ``Q``: each item is stored at once.
    """
    if slot.size <= ATOMIC:
        words[slot.offset // 8] = int.from_bytes(packed, "little")
        return
    prepare(words, slot, packed)
    flip(words, slot)


def prepare(words: memoryview, slot: Slot, packed: bytes) -> None:
    """Write a new struct to the side that is not in force; where there is one side only, to that."""
    start = slot.first_side // 8
    if not slot.flips:
        words[start] = int.from_bytes(packed, "little")
        return
    length = slot.stride // 8
    start += length - words[slot.offset // 8] // 8
    words[start : start + length] = memoryview(packed.ljust(slot.stride, b"\0")).cast("Q")


def flip(words: memoryview, slot: Slot) -> None:
    """Put the side that was prepared in force; nothing to do where there is one side only."""
    if slot.flips:
        words[slot.offset // 8] = slot.stride - words[slot.offset // 8]
