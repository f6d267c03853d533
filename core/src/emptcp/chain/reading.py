# SPDX-License-Identifier: Apache-2.0
"""Which members of the parsed packet a fragment may read, as far as its code tells.

What no fragment of a program reads, its parser need not write. The code is followed from where it is given
the packet: what else can be an address in it, and how far into it? In doubt the answer is that it may read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from emptcp.chain import instructions as bpf
from emptcp.chain.code import Code
from emptcp.chain.instructions import R0, R1, R2, R5, R10, Instruction

MOST_VISITS = 8
"""Times that an instruction is looked at because what is before it was told anew."""

_LOOKUP, _LOOKUP_ARGUMENTS, _ARGUMENTS = 1, 2, 5
_WIDTHS = {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}
_SIZE, _OPERATION = 0x18, 0xF0
_ADD, _OR, _AND, _LSH, _XOR, _MOV = 0x00, 0x40, 0x50, 0x60, 0xA0, 0xB0
_WORD = 1 << 32
_FAR = 1 << 64

NUMBER, PACKET, STACK = "number", "packet", "stack"


class Value(NamedTuple):
    """What is in a register or a stack slot: a number, or an address so many bytes into the packet."""

    kind: str
    least: int = -_FAR
    most: int = _FAR

    def __add__(self, other: object) -> Value:
        """Return an address, or a number, farther by a number."""
        assert isinstance(other, Value)
        return Value(self.kind, self.least + other.least, self.most + other.most)


_SOMEWHERE, _UNKNOWN = Value(PACKET), Value(NUMBER)

_Values = dict[int, Value]
"""By register (from 0) or stack slot (below 0, from r10); what is not there is any number."""


def may_read(code: Code, members: Mapping[int, Collection[range]], packet: int) -> set[int]:
    """Tell of which members a fragment may read any byte: its code is given the packet's address in r2.

    ``members`` are bytes of the packet by a number, which the answer has. ``packet`` is the descriptor of the
    packet's map, where a fragment could also find it.
    """
    return code.once((packet, *members.items()), lambda: _may_read(code, members, packet))


def _may_read(code: Code, members: Mapping[int, Collection[range]], packet: int) -> set[int]:
    everything, found = set(members), set[int]()
    if any(_finds_packet(one, packet) for one in code.body):
        return everything
    before: dict[int, _Values] = {0: {R2: Value(PACKET, 0, 0)}}
    visits = dict.fromkeys(range(len(code.body)), 0)
    ways = [0]
    while ways:
        at = ways.pop()
        one, values = code.body[at], dict(before[at])
        visits[at] += 1
        if visits[at] > MOST_VISITS or _lets_go(one, values):
            return everything
        first, end = _reads(one, values)
        if first < end:
            found |= {number for number, spans in members.items() if _overlap(first, end, spans)}
        if found == everything:
            return everything
        _follow(one, values)
        for target in bpf.following(at, one):
            merged = _merged(before.get(target), values)
            if merged != before.get(target):
                before[target] = merged
                ways.append(target)
    return found


def _overlap(first: int, end: int, spans: Collection[range]) -> bool:
    return any(first < span.stop and span.start < end for span in spans)


def _finds_packet(one: Instruction, packet: int) -> bool:
    """Tell whether an instruction calls a function of the object, or loads the packet's map."""
    if bpf.is_subprogram_call(one) or bpf.is_function_address(one):
        return True
    return one.op == bpf.LD_IMM64 and one.src == bpf.PSEUDO_MAP_FD and one.imm == packet


def _reads(one: Instruction, values: _Values) -> tuple[int, int]:
    """Return the first byte of the packet that an instruction may read, and what is behind the last one."""
    atomic = bpf.is_atomic(one)
    if one.op & bpf.CLASS_MASK != bpf.LDX_CLASS and not atomic:
        return 0, 0
    base = values.get(one.dst if atomic else one.src, _UNKNOWN)
    if base.kind == STACK:  # not by r10: of some slot
        known = not any(slot < 0 and value.kind == PACKET for slot, value in values.items())
        return (0, 0) if known else (-_FAR, _FAR)
    if base.kind != PACKET:
        return 0, 0
    return base.least + one.off, base.most + one.off + _width(one)


def _lets_go(one: Instruction, values: _Values) -> bool:
    """Tell whether an address in the packet goes where it is not followed."""
    if one.op == bpf.CALL:
        given = range(R1, R1 + (_LOOKUP_ARGUMENTS if one.imm == _LOOKUP else _ARGUMENTS))
        return any(values.get(argument, _UNKNOWN).kind == PACKET for argument in given)
    if one.op & bpf.CLASS_MASK != bpf.STX_CLASS or values.get(one.src, _UNKNOWN).kind != PACKET:
        return False
    return one.op != bpf.STX_DW or one.dst != R10


def _follow(one: Instruction, values: _Values) -> None:
    kind = one.op & bpf.CLASS_MASK
    if one.op == bpf.CALL:
        for register in range(R0, R5 + 1):
            values.pop(register, None)
    elif kind in (bpf.ST_CLASS, bpf.STX_CLASS):
        if one.dst == R10:
            _store(one, values)
    elif kind == bpf.LDX_CLASS:
        _put(values, one.dst, _loaded(one, values))
    elif kind in (bpf.ALU, bpf.ALU64):
        _put(values, one.dst, _computed(one, values))
    elif bpf.writes_register(one):
        values.pop(one.dst, None)


def _store(one: Instruction, values: _Values) -> None:
    """Overwrite a part of the stack."""
    for slot in range(one.off - 7, one.off + _width(one)):
        values.pop(slot, None)
    if one.op == bpf.STX_DW:
        _put(values, one.off, values.get(one.src, _UNKNOWN))


def _loaded(one: Instruction, values: _Values) -> Value:
    if one.op == bpf.LDX_DW:
        return values.get(one.off, _UNKNOWN) if one.src == R10 else _UNKNOWN
    return Value(NUMBER, 0, (1 << 8 * _width(one)) - 1)


def _computed(one: Instruction, values: _Values) -> Value:
    """Return what an instruction of arithmetic makes: of an address in the packet, one somewhere in it."""
    operation = one.op & _OPERATION
    old = values.get(one.dst, _UNKNOWN)
    given = Value(NUMBER, one.imm, one.imm)
    if one.op & bpf.FROM_REGISTER:
        given = Value(STACK) if one.src == R10 else values.get(one.src, _UNKNOWN)
    kinds = {given.kind} if operation == _MOV else {given.kind, old.kind}
    if one.op & bpf.CLASS_MASK == bpf.ALU:
        number = _number(operation, old, given) if kinds == {NUMBER} else _UNKNOWN  # half an address is none
        return number if number.least >= 0 and number.most < _WORD else Value(NUMBER, 0, _WORD - 1)
    if operation == _MOV:
        return given
    if operation == _ADD and NUMBER in kinds:
        return old + given if given.kind == NUMBER else given + old
    if PACKET in kinds:
        return _SOMEWHERE
    return _number(operation, old, given) if kinds == {NUMBER} else Value(STACK)


def _number(operation: int, old: Value, given: Value) -> Value:
    """Return what is known of a number that is computed from numbers."""
    if operation == _MOV:
        return given
    if operation == _ADD:
        return old + given
    if operation == _AND and given.least == given.most >= 0:
        return Value(NUMBER, 0, given.most)
    if operation == _LSH and 0 <= given.least == given.most < 32 and old.least >= 0:
        return Value(NUMBER, old.least << given.most, old.most << given.most)
    if operation in (_OR, _XOR) and min(old.least, given.least) >= 0:
        return Value(NUMBER, 0, (1 << max(old.most, given.most).bit_length()) - 1)
    return _UNKNOWN


def _put(values: _Values, key: int, value: Value) -> None:
    if value == _UNKNOWN:
        values.pop(key, None)
    else:
        values[key] = value


def _merged(one: _Values | None, other: _Values) -> _Values:
    """Return what may be there after either of two ways."""
    if one is None:
        return dict(other)
    found: _Values = {}
    for key in one.keys() | other.keys():
        _put(found, key, _either(one.get(key, _UNKNOWN), other.get(key, _UNKNOWN)))
    return found


def _either(one: Value, other: Value) -> Value:
    if one.kind == other.kind:
        return Value(one.kind, min(one.least, other.least), max(one.most, other.most))
    addresses = [value for value in (one, other) if value.kind != NUMBER]
    return addresses[0] if len(addresses) == 1 else _SOMEWHERE


def _width(one: Instruction) -> int:
    return _WIDTHS[one.op & _SIZE]
