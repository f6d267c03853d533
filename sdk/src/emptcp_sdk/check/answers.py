# SPDX-License-Identifier: Apache-2.0
"""What a fragment may answer, told from its instructions without running them.

Each register's possible constants are followed along every path; where a value comes from memory, a call or
arithmetic on what is not known, nothing is claimed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from operator import add, and_, lshift, mul, or_, rshift, sub, xor

Values = frozenset[int] | None
"""A register's possible values; ``None``: any."""

State = tuple[Values, ...]

_INSTRUCTION = struct.Struct("<BBhi")
_REGISTERS = 11
_MOST = 16
_AND, _SHIFT_LEFT, _SHIFT_RIGHT = 0x50, 0x60, 0x70
_ARITHMETIC: dict[int, Callable[[int, int], int]] = {
    0x00: add, 0x10: sub, 0x20: mul, 0x40: or_, _AND: and_, _SHIFT_LEFT: lshift, _SHIFT_RIGHT: rshift,
    0xA0: xor,
}  # fmt: skip
_ALU32, _JUMP, _JUMP32, _ALU64, _LOAD = 4, 5, 6, 7, (0, 1)
_MOV, _EXIT, _CALL, _ALWAYS, _LD_IMM64 = 0xB0, 0x90, 0x80, 0x00, 0x18


def answers(code: bytes) -> Values:
    """Return all that a function may answer (its lower 32 bits), or ``None`` when that can't be told."""
    instructions = list(_INSTRUCTION.iter_unpack(code))
    reached: dict[int, State] = {0: (None,) * _REGISTERS}
    waiting, answered = [0], frozenset[int]()
    while waiting:
        at = waiting.pop()
        state = reached[at]
        if instructions[at][0] == _JUMP | _EXIT:
            if state[0] is None:
                return None
            answered |= state[0]
            continue
        after = _after(instructions[at], state)
        for target in _targets(at, instructions[at]):
            merged = _merged(reached.get(target), after)
            if merged != reached.get(target):
                reached[target] = merged
                waiting.append(target)
    return answered


def _targets(at: int, instruction: tuple[int, int, int, int]) -> Iterator[int]:
    operation, _registers, offset, value = instruction
    group, kind = operation & 7, operation & 0xF0
    if operation == _LD_IMM64:
        yield at + 2
        return
    jumps = group in (_JUMP, _JUMP32) and kind != _CALL
    if jumps:
        # `gotol` (group JMP32, kind JA) has its offset in the immediate.
        yield at + 1 + (value if (group, kind) == (_JUMP32, _ALWAYS) else offset)
    if not jumps or kind != _ALWAYS:
        yield at + 1


def _after(instruction: tuple[int, int, int, int], state: State) -> State:
    operation, registers, _offset, value = instruction
    group, kind, target = operation & 7, operation & 0xF0, registers & 0xF
    if group == _JUMP and kind == _CALL:
        return (None,) * 6 + state[6:]
    if group in (_ALU32, _ALU64):
        given = state[registers >> 4] if operation & 8 else frozenset({value & 0xFFFFFFFF})
        return _put(state, target, _computed(kind, group == _ALU64, state[target], given))
    if operation == _LD_IMM64 or group in _LOAD:
        return _put(state, target, None)
    return state


def _computed(kind: int, wide: bool, mine: Values, given: Values) -> Values:
    if kind == _MOV:
        return given
    if (kind, given) in ((_AND, frozenset({1})), (_SHIFT_RIGHT, frozenset({63 if wide else 31}))):
        return frozenset({0, 1})
    calculate = _ARITHMETIC.get(kind)
    if calculate is None or mine is None or given is None or (wide and kind == _SHIFT_RIGHT):
        return None
    if kind in (_SHIFT_LEFT, _SHIFT_RIGHT) and max(given) > 31:
        return None
    found = frozenset(calculate(one, other) & 0xFFFFFFFF for one in mine for other in given)
    return found if len(found) <= _MOST else None


def _put(state: State, register: int, values: Values) -> State:
    return (*state[:register], values, *state[register + 1 :])


def _merged(known: State | None, new: State) -> State:
    if known is None:
        return new
    return tuple(_union(one, other) for one, other in zip(known, new, strict=True))


def _union(one: Values, other: Values) -> Values:
    if one is None or other is None:
        return None
    both = one | other
    return both if len(both) <= _MOST else None
