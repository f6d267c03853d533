# SPDX-License-Identifier: Apache-2.0
"""BPF instructions as numbers, and an assembler with labels.

An instruction is the kernel's ``struct bpf_insn``: opcode, destination and source register, 16-bit
offset, 32-bit immediate (Documentation/bpf/standardization/instruction-set.rst). ``ld_imm64`` takes
two slots here as there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = range(11)

LD_IMM64 = 0x18
CALL = 0x85
EXIT = 0x95
JA = 0x05
JEQ_IMM = 0x15
JNE_IMM = 0x55
JGT_IMM = 0x25
JLT_IMM = 0xA5
JGT_REG = 0x2D
JSGT_IMM = 0x65
JSET_IMM = 0x45
JEQ32_IMM = 0x16
JNE32_IMM = 0x56
MOV64_REG = 0xBF
MOV64_IMM = 0xB7
MOV32_REG = 0xBC
MOV32_IMM = 0xB4
ADD64_REG = 0x0F
ADD64_IMM = 0x07
AND64_IMM = 0x57
MUL64_IMM = 0x27
LSH64_IMM = 0x67
RSH64_IMM = 0x77
SUB64_REG = 0x1F
LDX_DW, LDX_W, LDX_H, LDX_B = 0x79, 0x61, 0x69, 0x71
STX_DW, STX_W, STX_H, STX_B = 0x7B, 0x63, 0x6B, 0x73
ST_DW, ST_W, ST_B = 0x7A, 0x62, 0x72

PSEUDO_MAP_FD = 1
PSEUDO_MAP_VALUE = 2
PSEUDO_CALL = 1
PSEUDO_FUNC = 4

CLASS_MASK, JMP, JMP32 = 0x07, 0x05, 0x06
LD_CLASS, LDX_CLASS, ST_CLASS, STX_CLASS, ALU, ALU64 = 0x00, 0x01, 0x02, 0x03, 0x04, 0x07
_ACCESSES, _WRITES = (LDX_CLASS, ST_CLASS, STX_CLASS), (LD_CLASS, LDX_CLASS, ALU, ALU64)
"""Classes of what reads or writes memory, and of what writes its destination register."""
MODE_MASK, ATOMIC, FROM_REGISTER = 0xE0, 0xC0, 0x08
"""Of the opcode: how memory is accessed; whether arithmetic or a jump takes a register or a number."""
JUMP_REACH = 32767
"""Instructions that the 16-bit offset of a jump spans."""

_FORM = struct.Struct("<BBhi")


class Instruction(NamedTuple):
    """One slot. ``imm`` is signed; the upper half of an ``ld_imm64`` has opcode 0."""

    op: int
    dst: int = 0
    src: int = 0
    off: int = 0
    imm: int = 0


def decode(code: bytes) -> list[Instruction]:
    """Split bytecode (a multiple of eight bytes) into instructions."""
    fields = _FORM.iter_unpack(code)
    return [Instruction(op, regs & 0xF, regs >> 4, off, imm) for op, regs, off, imm in fields]


def encode(code: Iterable[Instruction]) -> bytes:
    """Return the bytecode of a sequence of instructions."""
    return b"".join(_FORM.pack(op, src << 4 | dst, off, imm) for op, dst, src, off, imm in code)


def is_jump(instruction: Instruction) -> bool:
    """Tell whether the offset field is a jump's distance (calls and exits have none)."""
    return instruction.op & CLASS_MASK in (JMP, JMP32) and instruction.op not in (CALL, EXIT)


def is_subprogram_call(instruction: Instruction) -> bool:
    """Tell whether the immediate is the distance to a BPF function."""
    return instruction.op == CALL and instruction.src == PSEUDO_CALL


def is_function_address(instruction: Instruction) -> bool:
    """Tell whether this ``ld_imm64`` loads the address of a BPF function (a callback)."""
    return instruction.op == LD_IMM64 and instruction.src == PSEUDO_FUNC


def following(at: int, instruction: Instruction) -> Iterator[int]:
    """Yield the places in its function that may come after the instruction at a place."""
    if is_jump(instruction):
        yield at + 1 + instruction.off
    if instruction.op not in (JA, EXIT):
        yield at + 1


def writes_register(instruction: Instruction) -> bool:
    """Tell whether an instruction of arithmetic or a load may change its destination (a call changes r0)."""
    return instruction.op != 0 and instruction.op & CLASS_MASK in _WRITES


def reads_register(instruction: Instruction, register: int) -> bool:
    """Tell whether an instruction other than a call may read a register."""
    op, dst, src, *_ = instruction
    kind = op & CLASS_MASK
    if kind in (LD_CLASS, LDX_CLASS):
        return kind == LDX_CLASS and src == register
    if register == src and (op & 0x08 or kind == STX_CLASS):
        return True
    return register == dst and op not in (MOV64_REG, MOV64_IMM, MOV32_REG, MOV32_IMM)


def is_atomic(instruction: Instruction) -> bool:
    """Tell whether an instruction changes memory in one step; it may write its source."""
    return instruction.op & CLASS_MASK == STX_CLASS and instruction.op & MODE_MASK == ATOMIC


def with_registers(instruction: Instruction, others: Mapping[int, int]) -> Instruction:
    """Return an instruction with other registers in place of those it reads or writes; calls have none."""
    op, dst, src, *_ = instruction
    kind = op & CLASS_MASK
    if op == 0 or kind == LD_CLASS:  # in these `src` says what the number is
        return instruction._replace(dst=others.get(dst, dst)) if op else instruction
    from_register = op & FROM_REGISTER or kind in (LDX_CLASS, STX_CLASS)
    return instruction._replace(dst=others.get(dst, dst), src=others.get(src, src) if from_register else src)


def stack_depth(code: Iterable[Instruction]) -> int:
    """Return the bytes of stack that one function uses, from its accesses relative to r10.

    Follows copies of r10 in program order, which is how clang forms stack addresses.
    """
    below = {R10: 0}
    deepest = 0
    for op, dst, src, off, imm in code:
        kind = op & CLASS_MASK
        base = src if kind == LDX_CLASS else dst
        if kind in _ACCESSES and base in below:
            deepest = max(deepest, -(below[base] + off))
        if op == MOV64_REG and src in below:
            below[dst] = below[src]
        elif op == ADD64_IMM and dst in below:
            below[dst] += imm
        elif kind in _WRITES and dst != R10:
            below.pop(dst, None)
        deepest = max(deepest, -below.get(dst, 0))
    return (deepest + 7) & ~7


class Assembler:
    """A growing list of instructions with named places.

    Jumps to labels are resolved by :meth:`finish`, which raises ``OverflowError`` with the label's name
    when one is farther than :data:`JUMP_REACH`.
    """

    def __init__(self) -> None:
        self.code: list[Instruction] = []
        self._labels: dict[str, int] = {}
        self._jumps: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self.code)

    def emit(self, op: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> None:
        """Append one instruction."""
        self.code.append(Instruction(op, dst, src, off, imm))

    def label(self, name: str) -> None:
        """Give the next instruction a name; each name is given once."""
        if name in self._labels:
            raise ValueError(f"label {name} is given twice")
        self._labels[name] = len(self.code)

    def leads_to(self, name: str) -> bool:
        """Tell whether there is a jump to a label. The kernel refuses code that nothing leads to."""
        return any(label == name for _, label in self._jumps)

    def jump(self, name: str, op: int = JA, dst: int = 0, imm: int = 0, src: int = 0) -> None:
        """Append a jump, conditional unless ``op`` is ``JA``, to a label given before or later."""
        self._jumps.append((len(self.code), name))
        self.emit(op, dst, src, imm=imm)

    def load_map(self, dst: int, fd: int) -> None:
        """Append ``dst = map`` for a helper's argument."""
        self.emit(LD_IMM64, dst, PSEUDO_MAP_FD, imm=fd)
        self.emit(0)

    def load_map_value(self, dst: int, fd: int, offset: int) -> None:
        """Append ``dst = address of offset in the only value of an array map``."""
        self.emit(LD_IMM64, dst, PSEUDO_MAP_VALUE, imm=fd)
        self.emit(0, imm=offset)

    def finish(self) -> list[Instruction]:
        """Resolve the jumps and return the code."""
        for place, name in self._jumps:
            distance = self._labels[name] - place - 1
            if abs(distance) > JUMP_REACH:
                raise OverflowError(name)
            self.code[place] = self.code[place]._replace(off=distance)
        return self.code
