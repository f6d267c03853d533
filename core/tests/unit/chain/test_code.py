# SPDX-License-Identifier: Apache-2.0
"""What a fragment's body writes, wants to be given and may answer, told by its code."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from emptcp.chain import instructions as bpf
from emptcp.chain.code import Code, Function
from emptcp.chain.instructions import R0, R1, R2, R3, R4, R5, R6, R7, R9, Assembler


def body(write: Callable[[Assembler], None]) -> Code:
    """Return a fragment with what ``write`` appends, and an exit."""
    asm = Assembler()
    write(asm)
    asm.emit(bpf.EXIT)
    made = tuple(asm.finish())
    return Code(made, (Function("body", 0, len(made), 5, False),), ())


def overwritten(asm: Assembler) -> None:
    """Write r4 before any use."""
    asm.emit(bpf.LDX_W, R4, R1)
    asm.emit(bpf.MOV64_REG, R0, R4)


def read_on_one_way(asm: Assembler) -> None:
    """Write r4 on one way, read it on the other."""
    asm.jump("other", bpf.JEQ_IMM, R1, 0)
    asm.emit(bpf.MOV64_IMM, R4, imm=1)
    asm.label("other")
    asm.emit(bpf.MOV64_REG, R0, R4)


def compared(asm: Assembler) -> None:
    """Compare r4 with a number."""
    asm.jump("there", bpf.JEQ_IMM, R4, 0)
    asm.label("there")


def added_to(asm: Assembler) -> None:
    """Add to r4."""
    asm.emit(bpf.ADD64_IMM, R4, imm=1)


def helper(asm: Assembler) -> None:
    """Call a helper: it may take r4."""
    asm.emit(bpf.CALL, imm=1)


def loop(asm: Assembler) -> None:
    """Go round without r4."""
    asm.label("again")
    asm.emit(bpf.ADD64_IMM, R5, imm=1)
    asm.jump("again", bpf.JNE_IMM, R5, 9)


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (overwritten, False),
        (read_on_one_way, True),
        (compared, True),
        (added_to, True),
        (helper, True),
        (loop, False),
    ],
)
def test_an_argument_is_wanted_if_some_way_reads_it_first(
    write: Callable[[Assembler], None], expected: bool
) -> None:
    assert (R4 in body(write).wanted) is expected


def test_what_a_body_writes_is_known_and_what_it_stores_is_not_a_register() -> None:
    def write(asm: Assembler) -> None:
        asm.emit(bpf.LDX_W, R7, R1)
        asm.emit(bpf.STX_W, R4, R7)
        asm.load_map_value(R5, 3, 8)

    assert body(write).written & {R4, R5, R7} == {R5, R7}


def next_or_drop(asm: Assembler) -> None:
    """Answer 0 on one way, which a jump makes longer, and 3 on the other."""
    asm.jump("drop", bpf.JEQ_IMM, R1, 0)
    asm.emit(bpf.MOV32_IMM, R0, imm=0)
    asm.load_map_value(R5, 3, 8)
    asm.jump("out")
    asm.label("drop")
    asm.emit(bpf.MOV64_IMM, R0, imm=3)
    asm.label("out")


def next_after_a_helper(asm: Assembler) -> None:
    """Answer 0, whatever the helper answers."""
    asm.emit(bpf.CALL, imm=1)
    asm.emit(bpf.MOV32_IMM, R0, imm=0)


def a_variable_on_one_way(asm: Assembler) -> None:
    """Answer 0, or what a register holds."""
    asm.emit(bpf.MOV32_IMM, R0, imm=0)
    asm.jump("out", bpf.JEQ_IMM, R1, 0)
    asm.emit(bpf.MOV64_REG, R0, R4)
    asm.label("out")


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (next_or_drop, {0, 3}),
        (next_after_a_helper, {0}),
        (a_variable_on_one_way, None),
        (helper, None),
    ],
)
def test_answers_are_known_where_all_of_them_are_constants(
    write: Callable[[Assembler], None], expected: set[int] | None
) -> None:
    assert body(write).answers == expected


GIVEN = ((R1, R9), (R2, R6))


def test_what_is_given_and_stays_is_read_where_it_is_kept() -> None:
    def write(asm: Assembler) -> None:
        asm.emit(bpf.LDX_W, R4, R2, 8)
        asm.load_map_value(R3, 5, 16)
        asm.jump("there", bpf.JEQ_IMM, R2, 2)
        asm.emit(bpf.STX_W, R2, R1, 4)
        asm.label("there")
        asm.emit(bpf.MOV64_REG, R0, R1)

    settled = body(write).settled(GIVEN)
    assert settled.wanted & {R1, R2} == set()
    assert [(one.dst, one.src) for one in settled.body] == [
        (R4, R6),
        (R3, bpf.PSEUDO_MAP_VALUE),
        (0, 0),
        (R6, 0),
        (R6, R9),
        (R0, R9),
        (0, 0),
    ]


def moved(asm: Assembler) -> None:
    """Move along in what r2 points to."""
    asm.emit(bpf.ADD64_IMM, R2, imm=8)
    asm.emit(bpf.LDX_W, R0, R1)


def with_own(asm: Assembler) -> None:
    """Use r6 for something else."""
    asm.emit(bpf.LDX_W, R6, R1)
    asm.emit(bpf.LDX_W, R0, R2)


@pytest.mark.parametrize(("write", "stays"), [(moved, {R2}), (with_own, {R2}), (helper, {R1, R2})])
def test_what_is_given_stays_an_argument_where_it_is_changed_or_something_called(
    write: Callable[[Assembler], None], stays: set[int]
) -> None:
    assert body(write).settled(GIVEN).wanted & {R1, R2} == stays
