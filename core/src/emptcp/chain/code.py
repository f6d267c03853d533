# SPDX-License-Identifier: Apache-2.0
"""A fragment's final code: instructions cut into functions, with the source lines they came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from emptcp.chain import instructions as bpf
from emptcp.chain.instructions import R0, Instruction, stack_depth
from emptcp.pybpf import Line


@dataclass(frozen=True)
class Function:
    """One BPF function of a fragment, ``start`` included, ``end`` excluded."""

    name: str
    start: int
    end: int
    arguments: int
    is_global: bool


@dataclass(frozen=True)
class Code:
    """A fragment after relocation. ``functions[0]`` is its body, the others are subprograms."""

    instructions: tuple[Instruction, ...]
    functions: tuple[Function, ...]
    lines: tuple[Line, ...]

    @property
    def body(self) -> Sequence[Instruction]:
        """The instructions of the fragment itself."""
        return self.instructions[: self.functions[0].end]

    @cached_property
    def stack(self) -> int:
        """Bytes of stack of the body, and of the deepest subprogram it may call."""
        return self.body_stack + max(map(self._stack, self.functions[1:]), default=0)

    @cached_property
    def body_stack(self) -> int:
        """Bytes of stack of the body alone."""
        return self._stack(self.functions[0])

    @cached_property
    def apart(self) -> tuple[int, ...]:
        """Offsets of what can't be copied as it is: exits, calls of functions, addresses of functions."""
        return tuple(offset for offset, one in enumerate(self.instructions) if _is_apart(one))

    @cached_property
    def written(self) -> frozenset[int]:
        """The registers that the body writes. A subprogram leaves r6 to r9 as they were."""
        return frozenset(one.dst for one in self.body if bpf.writes_register(one))

    def wants(self, argument: int) -> bool:
        """Tell whether the body may read what it is given in a register. A call may read all of r1 to r5."""
        ways, seen = [0], set[int]()
        while ways:
            at = ways.pop()
            if at in seen:
                continue
            seen.add(at)
            one = self.body[at]
            if one.op == bpf.CALL or bpf.reads_register(one, argument):
                return True
            if one.dst != argument or not bpf.writes_register(one):
                ways += bpf.following(at, one)
        return False

    @cached_property
    def answers(self) -> frozenset[int] | None:
        """The numbers that the body may answer; ``None`` where one is not a constant of its code."""
        before = self._before()
        ways = [at for at, one in enumerate(self.body) if one.op == bpf.EXIT]
        seen, found = set(ways), set[int]()
        while ways:
            for at in before[ways.pop()]:
                one = self.body[at]
                if one.dst == R0 and one.op in (bpf.MOV64_IMM, bpf.MOV32_IMM):
                    found.add(one.imm)
                elif one.op == bpf.CALL or (one.dst == R0 and bpf.writes_register(one)):
                    return None
                elif at not in seen:
                    seen.add(at)
                    ways.append(at)
        return frozenset(found)

    def _before(self) -> list[list[int]]:
        """Return for each instruction of the body those that it may follow."""
        before: list[list[int]] = [[] for _ in self.body]
        for at, one in enumerate(self.body):
            for target in bpf.following(at, one):
                before[target].append(at)
        return before

    def _stack(self, function: Function) -> int:
        return stack_depth(self.instructions[function.start : function.end])

    def function_at(self, offset: int) -> int:
        """Return the index of the function that starts at ``offset``."""
        return next(n for n, function in enumerate(self.functions) if function.start == offset)

    def lines_between(self, start: int, end: int) -> list[Line]:
        """Return the lines of instructions ``start`` to ``end`` (excluded)."""
        return [line for line in self.lines if start <= line.offset < end]


def _is_apart(one: Instruction) -> bool:
    return one.op == bpf.EXIT or bpf.is_subprogram_call(one) or bpf.is_function_address(one)
