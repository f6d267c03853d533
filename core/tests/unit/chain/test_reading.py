# SPDX-License-Identifier: Apache-2.0
"""What a fragment reads of the packet is found in its code, and no less than it reads when it runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emptcp.chain import instructions as bpf
from emptcp.chain import reading
from emptcp.chain.code import Code, Function
from emptcp.chain.instructions import R0, R1, R2, R3, R4, R6, R10, Assembler, Instruction

OPTIONS = (range(32, 64), range(120, 184))
PACKET_MAP, OTHER_MAP = 7, 8
LOOKUP, PRANDOM, REDIRECT = 1, 7, 23
ATOMIC_ADD = 0xDB


def code_of(instructions: list[Instruction]) -> Code:
    """Return a fragment's code."""
    return Code(tuple(instructions), (Function("body", 0, len(instructions), 5, False),), ())


def reads_options(code: Code) -> bool:
    """Tell whether code may read options."""
    found = reading.may_read(code, {1: OPTIONS, 2: (range(1000, 1001),)}, PACKET_MAP)
    assert found in (set(), {1}, {1, 2})
    return 1 in found


def may_read(write: Callable[[Assembler], None]) -> bool:
    """Tell whether what ``write`` appends may read options."""
    asm = Assembler()
    write(asm)
    asm.emit(bpf.EXIT)
    return reads_options(code_of(asm.finish()))


@pytest.mark.parametrize(
    ("op", "offset", "expected"),
    [
        (bpf.LDX_B, 31, False),
        (bpf.LDX_B, 32, True),
        (bpf.LDX_DW, 31, True),
        (bpf.LDX_B, 63, True),
        (bpf.LDX_DW, 64, False),
        (bpf.LDX_W, 116, False),
        (bpf.LDX_W, 118, True),
        (bpf.STX_W, 32, False),
        (ATOMIC_ADD, 32, True),
    ],
)
def test_every_byte_counts(op: int, offset: int, expected: bool) -> None:
    dst, src = (R0, R2) if op & bpf.CLASS_MASK == bpf.LDX_CLASS else (R2, R1)
    assert may_read(lambda asm: asm.emit(op, dst, src, offset)) is expected


@pytest.mark.parametrize(("shift", "expected"), [(4, False), (5, False), (6, True)])
def test_an_index_that_has_bounds_is_followed(shift: int, expected: bool) -> None:
    def write(asm: Assembler) -> None:
        asm.emit(bpf.LDX_B, R3, R2, 21)
        asm.emit(bpf.AND64_IMM, R3, imm=1)
        asm.emit(bpf.LSH64_IMM, R3, imm=shift)
        asm.emit(bpf.ADD64_REG, R3, R2)
        asm.emit(bpf.LDX_W, R0, R3, 68)

    assert may_read(write) is expected


def test_an_index_without_bounds_may_be_any() -> None:
    def write(asm: Assembler) -> None:
        asm.emit(bpf.LDX_W, R3, R1)
        asm.emit(bpf.ADD64_REG, R3, R2)
        asm.emit(bpf.LDX_W, R0, R3, 90)

    assert may_read(write)


@pytest.mark.parametrize(("offset", "expected"), [(16, True), (100, False)])
def test_an_address_on_the_stack_is_followed(offset: int, expected: bool) -> None:
    def write(asm: Assembler) -> None:
        asm.emit(bpf.ADD64_IMM, R2, imm=16)
        asm.emit(bpf.STX_DW, R10, R2, -8)
        asm.emit(bpf.CALL, imm=PRANDOM)
        asm.emit(bpf.LDX_DW, R6, R10, -8)
        asm.emit(bpf.LDX_W, R0, R6, offset)

    # What the call is given could be the address too: r2 holds it.
    assert may_read(write)
    asm = Assembler()
    write(asm)
    del asm.code[2]
    asm.emit(bpf.EXIT)
    assert reads_options(code_of(asm.finish())) is expected


@pytest.mark.parametrize(("register", "expected"), [(R2, True), (R3, False), (R4, False)])
def test_a_look_up_takes_two_arguments(register: int, expected: bool) -> None:
    def write(asm: Assembler) -> None:
        asm.emit(bpf.MOV64_REG, register, R2)
        if register != R2:
            asm.emit(bpf.MOV64_REG, R2, R10)
        asm.load_map(R1, OTHER_MAP)
        asm.emit(bpf.CALL, imm=LOOKUP)

    assert may_read(write) is expected


def test_what_goes_out_of_sight_may_be_read() -> None:
    def store_away(asm: Assembler) -> None:
        asm.emit(bpf.STX_DW, R1, R2)

    def read_by_a_copy_of_r10(asm: Assembler) -> None:
        asm.emit(bpf.STX_DW, R10, R2, -8)
        asm.emit(bpf.MOV64_REG, R3, R10)
        asm.emit(bpf.LDX_DW, R0, R3, -8)

    def give_to_a_helper(asm: Assembler) -> None:
        asm.emit(bpf.CALL, imm=REDIRECT)

    def call(asm: Assembler) -> None:
        asm.emit(bpf.CALL, src=bpf.PSEUDO_CALL)

    def find_the_packet(asm: Assembler) -> None:
        asm.load_map(R1, PACKET_MAP)

    for write in (store_away, read_by_a_copy_of_r10, give_to_a_helper, call, find_the_packet):
        assert may_read(write), write.__name__


@pytest.mark.parametrize(("offset", "expected"), [(0, True), (70, False)])
def test_either_of_two_ways_counts(offset: int, expected: bool) -> None:
    def write(asm: Assembler) -> None:
        asm.jump("other", bpf.JEQ_IMM, R1, 0)
        asm.emit(bpf.ADD64_IMM, R2, imm=40)
        asm.label("other")
        asm.emit(bpf.LDX_B, R0, R2, offset)

    assert may_read(write) is expected


def test_a_loop_ends() -> None:
    def write(asm: Assembler) -> None:
        asm.label("again")
        asm.emit(bpf.ADD64_IMM, R2, imm=1)
        asm.emit(bpf.LDX_B, R0, R2, 200)
        asm.jump("again", bpf.JNE_IMM, R0, 0)

    assert may_read(write)


REGISTERS = st.integers(0, 6)
SLOTS = st.sampled_from([-8, -12, -16, -24])


@st.composite
def programs(draw: st.DrawFn) -> list[Instruction]:
    """Draw code that moves addresses about; jumps lead forward."""
    count = draw(st.integers(1, 16))
    made = [draw(steps(count - at)) for at in range(count)]
    return [*made, Instruction(bpf.EXIT)]


def steps(left: int) -> st.SearchStrategy[Instruction]:
    """Draw one instruction, with ``left`` ones behind it."""
    small = st.sampled_from([-40, -1, 0, 1, 8, 16, 40, 64])
    arithmetic = st.sampled_from(
        [bpf.MOV64_IMM, bpf.ADD64_IMM, bpf.AND64_IMM, 0xB4, 0x04, 0x54, 0xA7, 0x47, 0xA4]
    )
    between = st.sampled_from([bpf.MOV64_REG, bpf.ADD64_REG, 0xBC, 0x0C, bpf.SUB64_REG, 0xAF])
    shift = st.builds(Instruction, st.sampled_from([bpf.LSH64_IMM, 0x64]), REGISTERS, imm=st.integers(0, 5))
    loads = st.sampled_from([bpf.LDX_B, bpf.LDX_H, bpf.LDX_W, bpf.LDX_DW])
    return st.one_of(
        st.builds(Instruction, arithmetic, REGISTERS, imm=small),
        st.builds(Instruction, between, REGISTERS, REGISTERS),
        shift,
        st.builds(Instruction, st.just(bpf.MOV64_REG), REGISTERS, st.just(R10)),
        st.builds(Instruction, loads, REGISTERS, REGISTERS, st.sampled_from([-24, -8, 0, 20, 33, 60, 90])),
        st.builds(Instruction, st.just(bpf.LDX_DW), REGISTERS, st.just(R10), SLOTS),
        st.builds(Instruction, st.just(bpf.STX_DW), st.just(R10), REGISTERS, SLOTS),
        st.builds(Instruction, st.just(bpf.STX_W), st.just(R10), REGISTERS, SLOTS),
        st.builds(Instruction, st.just(bpf.JEQ_IMM), REGISTERS, off=st.integers(0, left - 1), imm=st.just(0)),
    )


class Machine:
    """Runs such code: memory is a dict of bytes, and what is nowhere else is drawn from ``noise``."""

    PACKET, TOP = 1 << 40, 1 << 50

    def __init__(self, noise: list[int]) -> None:
        self.registers = {n: noise[n] for n in range(7)} | {R2: self.PACKET, R10: self.TOP}
        self.memory: dict[int, int] = {}
        self.noise = noise
        self.read: set[int] = set()

    def run(self, code: list[Instruction]) -> None:
        """Run up to the exit."""
        at = 0
        while code[at].op != bpf.EXIT:
            at = self._step(code[at], at)

    def _step(self, one: Instruction, at: int) -> int:
        kind, width = one.op & bpf.CLASS_MASK, {0x00: 4, 0x08: 2, 0x10: 1, 0x18: 8}[one.op & 0x18]
        if one.op == bpf.JEQ_IMM:
            return at + 1 + (one.off if self.registers[one.dst] == 0 else 0)
        if kind == bpf.LDX_CLASS:
            place = self.registers[one.src] + one.off
            found = bytes(self._byte(byte) for byte in range(place, place + width))
            self.registers[one.dst] = int.from_bytes(found, "little")
        elif kind == bpf.STX_CLASS:
            place = self.registers[one.dst] + one.off
            stored = self.registers[one.src].to_bytes(8, "little")[:width]
            self.memory |= dict(zip(range(place, place + width), stored, strict=True))
        else:
            self._compute(one, 64 if kind == 0x07 else 32)
        return at + 1

    def _byte(self, place: int) -> int:
        self.read.add(place - self.PACKET)
        return self.memory.get(place, self.noise[place % len(self.noise)] & 0xFF)

    def _compute(self, one: Instruction, bits: int) -> None:
        mask = (1 << bits) - 1
        old, new = self.registers[one.dst] & mask, (self.registers[one.src] if one.op & 8 else one.imm) & mask
        results = {
            0x00: old + new,
            0x10: old - new,
            0x40: old | new,
            0x50: old & new,
            0x60: old << new if one.op & 0xF0 == 0x60 else 0,
            0xA0: old ^ new,
            0xB0: new,
        }
        self.registers[one.dst] = results[one.op & 0xF0] & mask


@given(programs(), st.lists(st.integers(0, 300), min_size=7, max_size=11))
def test_what_code_reads_when_it_runs_was_found(code: list[Instruction], noise: list[int]) -> None:
    machine = Machine(noise)
    machine.run(code)
    if any(machine.read & set(member) for member in OPTIONS):
        assert reads_options(code_of(code))
