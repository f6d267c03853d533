# SPDX-License-Identifier: Apache-2.0
"""A fragment's final code: instructions cut into functions, with the source lines they came from."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import attrgetter
from typing import Any, TypeVar

from emptcp.chain import instructions as bpf
from emptcp.chain.instructions import R0, R1, R6, Instruction, stack_depth
from emptcp.pybpf import Line

_OFFSET = attrgetter("offset")

_Answer = TypeVar("_Answer")


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

    @cached_property
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

    @cached_property
    def wanted(self) -> frozenset[int]:
        """The registers in which the body may read what it is given. A call may read all of r1 to r5."""
        return frozenset(argument for argument in range(R1, R6) if self._wants(argument))

    def _wants(self, argument: int) -> bool:
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

    def settled(self, given: tuple[tuple[int, int], ...]) -> Code:
        """Return this code, reading arguments where they are kept: ``given`` are pairs of registers.

        So for arguments that stay what they are to the end: nothing is written there, and nothing is called.
        Where stages name what they share in the same way, a processor sees early that one reads what another
        one has written.
        """
        return self.once(given, lambda: self._settle(dict(given)))

    def once(self, asked: Hashable, find: Callable[[], _Answer]) -> _Answer:
        """Return what is found out about this code, by what is asked: once, as it stays what it is."""
        if asked not in self._answers:
            self._answers[asked] = find()
        answer: _Answer = self._answers[asked]
        return answer

    @cached_property
    def _answers(self) -> dict[Hashable, Any]:
        return {}

    def _settle(self, given: Mapping[int, int]) -> Code:
        body = self.body
        if any(one.op == bpf.CALL or bpf.is_atomic(one) for one in body):
            return self
        moved = {old: new for old, new in given.items() if not {old, new} & self.written}
        if not moved:
            return self
        renamed = tuple(bpf.with_registers(one, moved) for one in body)
        return replace(self, instructions=renamed + self.instructions[len(body) :])

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

    def identity(self, index: int) -> tuple[object, ...]:
        """Return what makes a function the same in another object: its code, and that of those it calls."""
        return self.once(index, lambda: self._identity(index))

    def _identity(self, index: int, above: tuple[int, ...] = ()) -> tuple[object, ...]:
        function = self.functions[index]
        parts: list[object] = [function.name]
        for offset in range(function.start, function.end):
            instruction = self.instructions[offset]
            if bpf.is_subprogram_call(instruction) or bpf.is_function_address(instruction):
                target = self.function_at(offset + 1 + instruction.imm)
                inner = target if target in (*above, index) else self._identity(target, (*above, index))
                parts.append((instruction._replace(imm=0), inner))
            else:
                parts.append(instruction)
        return tuple(parts)

    def lines_between(self, start: int, end: int) -> Sequence[Line]:
        """Return the lines of instructions ``start`` to ``end`` (excluded)."""
        first, last = (bisect_left(self.lines, place, key=_OFFSET) for place in (start, end))
        return self.lines[first:last]


def _is_apart(one: Instruction) -> bool:
    return one.op == bpf.EXIT or bpf.is_subprogram_call(one) or bpf.is_function_address(one)
