# SPDX-License-Identifier: Apache-2.0
"""Join fragments into a program: what both engines do alike.

A joined program keeps core's values in r6 to r9: the parsed packet, the counters, the packet's length, the
context. They also stand in its own stack frame, *below* the deepest fragment's stack, so that no fragment's
code has to be moved, and are loaded from there again behind a fragment that uses these registers. A fragment
is copied as it is, except that ``exit`` becomes a jump to the end of its stage and calls
of subprograms get new distances; subprograms that several fragments share byte for byte are joined once.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import attrgetter

from emptcp import pybpf
from emptcp.chain import instructions as bpf
from emptcp.chain import reasons
from emptcp.chain.code import Code
from emptcp.chain.counters import CHUNK_BYTES
from emptcp.chain.instructions import (
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    R10,
    Assembler,
)
from emptcp.chain.layout import Slot
from emptcp.chain.plan import FragmentRef, Plan
from emptcp.chain.storage import Store
from emptcp.chain.typeinfo import TypeInfo
from emptcp.errors import EmptcpError

STACK_BUDGET = 256
"""Bytes of stack a fragment may use, static subprograms included; the kernel's limit for all is 512."""

_LOOKUP, _CPU, _REDIRECT = 1, 8, 23
_TEXTS = attrgetter("file", "text")
ANSWERS = {"pass": {"xdp": 2, "tc": -1}, "drop": {"xdp": 1, "tc": 2}, "redirect": {"xdp": 4, "tc": 7}}
"""XDP_PASS and TCX_NEXT (TC_ACT_UNSPEC): other programs on the hook go on. XDP_DROP and TC_ACT_SHOT.
XDP_REDIRECT and TC_ACT_REDIRECT: by what a helper was told."""

PACKET, COUNTERS, LENGTH, CONTEXT = R6, R7, R8, R9
"""Where core's values are between stages: the parsed packet, the chunk of counters, the bytes of the IP
packet, the hook's context."""

GIVEN = ((R1, CONTEXT), (R2, PACKET))
"""The arguments that are the same for all fragments, and where their values are."""

RETURN, ACCEPT, DROP, REDIRECT, GOTO = 1, 2, 3, 4, 5
VERDICTS = frozenset({RETURN, ACCEPT, DROP, REDIRECT, GOTO})
"""What an actor may answer but NEXT, which is 0."""


@dataclass(frozen=True)
class PacketLayout:
    """Byte offsets in ``struct emptcp_pkt`` and ``struct emptcp_flow`` (emptcp/abi.h), from core's BTF.

    ``on_demand`` are the members that the parser fills only if asked to, by the bit of
    ``emptcp_parse_config.needs`` that asks.
    """

    flags: int
    l3: int
    payload: int
    payload_len: int
    reason: int
    redirect: int
    key: int
    entry: int
    length: int
    found_key: int
    parameters: int
    chain: int
    kept: int
    flow_known: int
    flow_slots: int
    on_demand: Mapping[int, tuple[range, ...]]
    mptcp_flag: int = 1


@dataclass(frozen=True)
class Maps:
    """File descriptors of the maps a program is bound to."""

    packet: int
    parameters: int
    counters: int
    description: int


@dataclass(frozen=True)
class Binding:
    """Everything about one program that is not in the plan: places and descriptors.

    ``counter_slots`` and ``parameter_slots`` run parallel to the plan's steps; counter slot 0 is the
    program's own, ``row`` are the bytes of one CPU's counters. ``state_slots`` maps a plugin to its offset in
    a flow-table entry's slot area, ``stores`` a set or map to its descriptor. ``how`` and ``netns`` are what
    core's parser is told. ``older`` are the fragments that look for the TCP header in the packet,
    ``around_older`` what runs before and behind these.
    """

    backend: str
    code: Mapping[FragmentRef, Code]
    begin: Code
    flow: Code
    finish: Code
    packet: PacketLayout
    maps: Maps
    parameter_slots: list[Slot | None]
    counter_slots: list[int]
    row: int
    state_slots: Mapping[str, int]
    how: int
    netns: int
    stores: Mapping[Store, int] = field(default_factory=dict)
    older: Collection[FragmentRef] = ()
    around_older: tuple[Code, ...] = ()


@dataclass(frozen=True)
class Joined:
    """A program ready for BPF_PROG_LOAD. ``places`` maps instruction ranges to what the operator wrote."""

    instructions: bytes
    btf: bytes
    functions: tuple[tuple[int, int], ...]
    lines: tuple[tuple[int, int, int, int], ...]
    places: tuple[tuple[int, int, str], ...]

    @property
    def func_info(self) -> bytes:
        """``struct bpf_func_info`` records."""
        return b"".join(struct.pack("<II", *record) for record in self.functions)

    @property
    def line_info(self) -> bytes:
        """``struct bpf_line_info`` records."""
        return struct.pack(f"<{4 * len(self.lines)}I", *chain.from_iterable(self.lines))

    def place(self, instruction: int) -> str:
        """Return whose code stands at an instruction: a stage's, with plugin and policy, or core's."""
        return next((name for start, end, name in self.places if start <= instruction < end), "core")


def check_stack(plan: Plan, binding: Binding) -> None:
    """Raise :class:`EmptcpError` for a fragment that uses more stack than :data:`STACK_BUDGET`."""
    for fragment in plan.fragments:
        used = binding.code[fragment].stack
        if used > STACK_BUDGET:
            raise EmptcpError(
                f"fragment '{fragment.name}' of plugin '{fragment.plugin}' uses {used} bytes of stack, "
                f"more than the {STACK_BUDGET} a fragment may use",
                fix="Move large variables into a map of the plugin.",
            )


@dataclass
class Subprogram:
    """A function that fragments call: number ``index`` of ``code``, joined at ``start``."""

    code: Code
    index: int
    start: int = 0


class Joiner:
    """A program under construction; the engines' classes say in which order things are emitted."""

    def __init__(self, plan: Plan, binding: Binding, codes: Sequence[Code]) -> None:
        self.plan = plan
        self.binding = binding
        self.asm = Assembler()
        frame = max(code.body_stack for code in (binding.finish, *binding.around_older, *codes))
        slots = [-frame - 8 * n for n in range(1, 12)]
        self.flow, self.key, self.place, self.entry, self.about, self.immediate, self.answered = slots[4:]
        self._places = dict(zip((PACKET, COUNTERS, LENGTH, CONTEXT), slots, strict=False))
        # The parser runs before all but the context is kept; behind the last fragment nobody asks for it, but
        # for a redirection.
        others = [*binding.around_older, *(code for code in codes if code is not binding.begin)]
        self._lost = {CONTEXT}.union(*(code.written for code in others))
        self._kept: set[int] = set()
        self.types = TypeInfo(binding.backend)
        self.lines: list[tuple[int, int, int, int]] = []
        self.places: list[tuple[int, int, str]] = []
        self.calls: list[tuple[int, Subprogram]] = []
        self.subprograms: dict[tuple[object, ...], Subprogram] = {}

    def finish(self, name: str) -> Joined:
        """Append the subprograms and return the program. ``name`` is its function's."""
        functions = [(0, self.types.function(name, 1, True)), *self._append_subprograms()]
        self._resolve_calls()
        code = bpf.encode(self.asm.finish())
        return Joined(code, self.types.encode(), tuple(functions), tuple(self.lines), tuple(self.places))

    def exit(self, name: str) -> str:
        """Return the label of a way out, or of what leads to one and is as far away."""
        return name

    # Blocks of core.

    def keep(self, register: int, source: int) -> None:
        """Put a value into the register of core's where it is from here on, and by which it can come back."""
        if register != source:
            self.asm.emit(bpf.MOV64_REG, register, source)
        if register in self._lost:
            self._save(register, source)

    def _save(self, register: int, source: int) -> None:
        """Put a value where the register of core's is loaded from again."""
        self.asm.emit(bpf.STX_DW, R10, source, self._places[register])
        self._kept.add(register)

    def look_up(self, fd: int, index: int) -> None:
        """Look up an element of an array map; its address, or 0, comes in r0."""
        self.asm.emit(bpf.ST_W, R10, 0, self.key, index)
        self.asm.emit(bpf.MOV64_REG, R2, R10)
        self.asm.emit(bpf.ADD64_IMM, R2, imm=self.key)
        self.asm.load_map(R1, fd)
        self.asm.emit(bpf.CALL, imm=_LOOKUP)

    def load_counters(self, chunk: int) -> None:
        """Put the address of a chunk of counters where it is kept."""
        self.find_row()
        self.asm.load_map_value(COUNTERS, self.binding.maps.counters, chunk * CHUNK_BYTES)
        self.asm.emit(bpf.ADD64_REG, COUNTERS, R0)
        self.keep(COUNTERS, COUNTERS)

    def find_row(self) -> None:
        """Put into r0 how far into the counters' value this CPU's are."""
        self.asm.emit(bpf.CALL, imm=_CPU)
        self.asm.jump(self.exit("lost"), bpf.JGT_IMM, R0, pybpf.cpu_ids() - 1)
        self.asm.emit(bpf.MUL64_IMM, R0, imm=self.binding.row)

    def load_reason(self) -> None:
        """Load the packet's reason into r2."""
        self.asm.emit(bpf.LDX_B, R2, PACKET, self.binding.packet.reason)

    # Stages.

    def arguments(self, fragment: FragmentRef, slot: Slot | None) -> None:
        """Load r1 to r5 as emptcp/abi.h says; where there is a state, its flow was seen to be there."""
        if slot is None:
            self.nothing(fragment, R3)
        else:
            self.parameter_address(slot)
        self.other_arguments(fragment)

    def nothing(self, fragment: FragmentRef, argument: int) -> None:
        """Load 0 for an argument that there is not, where the fragment looks at it."""
        if argument in self.binding.code[fragment].wanted:
            self.asm.emit(bpf.MOV64_IMM, argument)

    def other_arguments(self, fragment: FragmentRef) -> None:
        """Load all arguments but r3."""
        self.flow_arguments(fragment)
        self.packet_arguments(self.binding.code[fragment])

    def packet_arguments(self, code: Code) -> None:
        """Load the context and the packet, where the code looks at them; all else is kept."""
        for argument, place in GIVEN:
            if argument in code.wanted:
                self.asm.emit(bpf.MOV64_REG, argument, place)

    def flow_arguments(self, fragment: FragmentRef) -> None:
        """Load the state into r4 and the flow into r5; what a fragment does not ask for is 0."""
        asm = self.asm
        if fragment.state_size or fragment.flow:
            asm.emit(bpf.LDX_DW, R5, R10, self.flow)
        else:
            self.nothing(fragment, R5)
        if fragment.state_size:
            offset = self.binding.packet.flow_slots + self.binding.state_slots[fragment.plugin]
            asm.emit(bpf.MOV64_REG, R4, R5)
            asm.emit(bpf.ADD64_IMM, R4, imm=offset)
        else:
            self.nothing(fragment, R4)

    def parameter_address(self, slot: Slot) -> None:
        """Put the address of the struct in force into r3."""
        asm, fd = self.asm, self.binding.maps.parameters
        if not slot.flips:
            asm.load_map_value(R3, fd, slot.first_side)
            return
        asm.load_map_value(R1, fd, slot.offset)
        asm.emit(bpf.LDX_W, R1, R1)
        asm.emit(bpf.AND64_IMM, R1, imm=slot.stride)
        asm.load_map_value(R3, fd, slot.first_side)
        asm.emit(bpf.ADD64_REG, R3, R1)

    def verdicts(self, fragment: FragmentRef, chooses: bool) -> frozenset[int]:
        """Return what an actor may answer but NEXT; GOTO, too, where it was given chains to choose from."""
        answers = self.binding.code[fragment].answers
        if answers is None:
            return VERDICTS
        return answers & VERDICTS | ({GOTO} if chooses else frozenset())

    def leave(self, verdicts: frozenset[int], targets: Mapping[int, str], name: str, base: int) -> None:
        """Count those of the verdicts that have a target, and go there; what follows is for the others.

        The label behind a verdict is ``name``, a dot and the verdict; ``base`` is where the stage counts.
        """
        for verdict in sorted(verdicts & targets.keys()):
            other = f"{name}.{verdict}"
            self.asm.jump(other, bpf.JNE32_IMM, R0, verdict)
            self.increment(base + 8 * (2 + verdict))
            self.asm.jump(targets[verdict])
            self.asm.label(other)

    # Counters.

    def increment(self, offset: int, chunk: int = COUNTERS) -> None:
        """Count one more; r2 is used."""
        self.asm.emit(bpf.LDX_DW, R2, chunk, offset)
        self.asm.emit(bpf.ADD64_IMM, R2, imm=1)
        self.asm.emit(bpf.STX_DW, chunk, R2, offset)

    def count_bytes(self, offset: int) -> None:
        """Add the packet's length to a counter; r3 is used."""
        self.asm.emit(bpf.LDX_DW, R3, COUNTERS, offset)
        self.asm.emit(bpf.ADD64_REG, R3, LENGTH)
        self.asm.emit(bpf.STX_DW, COUNTERS, R3, offset)

    def count_reason(self, base: int) -> None:
        """Count reason r2 in the block at ``base``; r1 is used."""
        asm = self.asm
        known = f"known{len(asm)}"
        asm.jump(known, bpf.JLT_IMM, R2, reasons.SLOTS)
        asm.emit(bpf.MOV64_IMM, R2, imm=0)
        asm.label(known)
        asm.emit(bpf.MOV64_REG, R1, R2)
        self.increment(base + 56)
        asm.emit(bpf.LSH64_IMM, R1, imm=3)
        asm.emit(bpf.ADD64_REG, R1, COUNTERS)
        self.increment(base + 64, R1)

    # Ways out.

    def ways_out(self) -> None:
        """Append the ways out that something leads to; to pass, what comes before does."""
        for name in ("pass", "drop", "redirect"):
            if name == "pass" or self.asm.leads_to(self.exit(name)):
                self.way_out(name)

    def way_out(self, name: str) -> None:
        """Append a way out: ``pass``, ``drop`` or ``redirect``."""
        self.asm.label(self.exit(name))
        self.finish_packet(name)
        self.answer(name)

    def untouched(self) -> None:
        """Append the way out of packets that no fragment of a plugin was given: they pass.

        And that of packets that core can't work on, which are none: a verifier that knows it drops that jump,
        if nothing else leads to the same code.
        """
        for name in ("untouched", "lost"):
            if self.asm.leads_to(self.exit(name)):
                self.asm.label(self.exit(name))
                self.answer("pass")

    def finish_packet(self, name: str) -> None:
        """Bring header and checksum along with what the stages changed; nobody minds a dropped packet's."""
        if name == "drop":
            return
        self.line("core: TCP header")
        if name == "redirect" and PACKET in self.binding.finish.written - self._kept:
            self._save(PACKET, PACKET)  # behind the header it is asked where to
        self.packet_arguments(self.binding.finish)
        self.copy(self.binding.finish, f"finished {name}", "core: TCP header")

    def answer(self, name: str) -> None:
        """End the program with what a way out answers."""
        asm = self.asm
        asm.emit(bpf.MOV64_IMM, R0, imm=ANSWERS[name][self.binding.backend])
        if name == "redirect":
            asm.emit(bpf.LDX_W, R1, PACKET, self.binding.packet.redirect)
            asm.jump("told", bpf.JEQ_IMM, R1)
            asm.emit(bpf.MOV64_IMM, R2)
            asm.emit(bpf.CALL, imm=_REDIRECT)
            asm.label("told")
        asm.emit(bpf.EXIT)

    # Copying fragments.

    def make_ready(self, fragment: FragmentRef) -> None:
        """Append what comes before a fragment, and before its arguments are loaded."""
        if fragment in self.binding.older:
            self._core_between(self.binding.around_older[0])

    def run_fragment(self, fragment: FragmentRef, after: str, name: str) -> None:
        """Append a fragment's body and what comes behind it; the answer is in r0 then. See :meth:`copy`."""
        code = self.binding.code[fragment]
        if fragment not in self.binding.older:
            self.copy(code, after, name)
            return
        self.copy(code, f"{after}, answered", name)
        self.asm.emit(bpf.STX_DW, R10, R0, self.answered)
        self._core_between(self.binding.around_older[1])
        self.asm.emit(bpf.LDX_DW, R0, R10, self.answered)
        self.asm.label(after)

    def _core_between(self, code: Code) -> None:
        self.line("core: TCP header")
        self.packet_arguments(code)
        self.copy(code, f"between{len(self.asm)}", "core: TCP header")

    def copy(self, code: Code, after: str, name: str) -> None:
        """Append a fragment's body; its exits lead to ``after``, which is given to what follows.

        Core's values are in their registers again then.
        """
        start = len(self.asm)
        body = code.body
        self._copy_lines(code, 0, len(body), start)
        self._append(code, 0, len(body), after)
        self.asm.label(after)
        self.places.append((start, len(self.asm), name))
        for register in sorted(self._kept & code.written):
            self.asm.emit(bpf.LDX_DW, register, R10, self._places[register])

    def clear_stack(self, code: Code) -> None:
        """Zero what a fragment's body left on the stack.

        The verifier can't tell that nobody reads it, and goes through all that follows once for each way
        through the fragment: through five policies with 2.6 times as many instructions.
        """
        for below in range(8, code.body_stack + 1, 8):
            self.asm.emit(bpf.ST_DW, R10, 0, -below)

    def _append(self, code: Code, start: int, end: int, after: str = "") -> None:
        """Append instructions ``start`` to ``end`` (excluded); exits lead to ``after``, where it is given."""
        done = start
        for offset in code.apart:
            if not start <= offset < end:
                continue
            instruction = code.instructions[offset]
            self.asm.code += code.instructions[done:offset]
            done = offset + 1
            if instruction.op == bpf.EXIT and after:
                self.asm.jump(after)
                continue
            if instruction.op != bpf.EXIT:
                target = code.function_at(offset + 1 + instruction.imm)
                self.calls.append((len(self.asm), self._subprogram(code, target)))
            self.asm.code.append(instruction)
        self.asm.code += code.instructions[done:end]

    def _subprogram(self, code: Code, index: int) -> Subprogram:
        key = code.identity(index)
        if key not in self.subprograms:
            self.subprograms[key] = Subprogram(code, index)
        return self.subprograms[key]

    def _append_subprograms(self) -> list[tuple[int, int]]:
        """Append each used subprogram once; appending one may find more."""
        done: list[tuple[int, int]] = []
        while len(done) < len(self.subprograms):
            sub = list(self.subprograms.values())[len(done)]
            function = sub.code.functions[sub.index]
            sub.start = len(self.asm)
            self.line(f"function {function.name}")
            self._copy_lines(sub.code, function.start, function.end, sub.start)
            self._append(sub.code, function.start, function.end)
            self.places.append((sub.start, len(self.asm), f"function {function.name}"))
            kind = self.types.function(function.name, function.arguments, function.is_global)
            done.append((sub.start, kind))
        return done

    def _resolve_calls(self) -> None:
        for place, sub in self.calls:
            self.asm.code[place] = self.asm.code[place]._replace(imm=sub.start - place - 1)

    def _copy_lines(self, code: Code, start: int, end: int, to: int) -> None:
        self._replace_line(to)
        moved, lines = to - start, code.lines_between(start, end)
        string = self.types.strings(chain.from_iterable(map(_TEXTS, lines)))
        self.lines += [
            (offset + moved, string[file], string[text], line << 10 | min(column, 1023))
            for offset, file, text, line, column in lines
        ]

    def line(self, text: str) -> None:
        """Begin a generated block: a verifier message quotes this text."""
        self._replace_line(len(self.asm))
        self.lines.append((len(self.asm), self.types.string("emptcp"), self.types.string(text), 0))

    def _replace_line(self, offset: int) -> None:
        """Make room for another line at an offset: each instruction has one at most."""
        if self.lines and self.lines[-1][0] == offset:
            self.lines.pop()
