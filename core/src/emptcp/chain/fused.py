# SPDX-License-Identifier: Apache-2.0
"""The fused engine: join a plan's fragments into one program.

The joined program keeps four things in its own stack frame, *below* the deepest fragment's stack, so
that no fragment's code has to be moved: the context, the parsed packet, the running program's counters
and the flow-table entry. Registers r6 to r9 are free for every fragment because nothing lives in them
between stages. A fragment is copied as it is, except that ``exit`` becomes a jump to the end of its
stage and calls of subprograms get new distances; subprograms that several fragments share byte for
byte are joined once.

::

    look up the parsed packet; core_parse;   leaves: pass
    [core_flow]; is it MPTCP?                no: pass
    companions
    policy: stage .. stage                   edges from the plan, counters after each stage
    policy: ..
    pass | drop | redirect

Jumps have 16 bits. Long programs hop: every few thousand instructions a policy ends with a small
island that forwards jumps to the next one.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from emptcp.chain import instructions as bpf
from emptcp.chain import reasons
from emptcp.chain.code import Code
from emptcp.chain.counters import CHUNK_STAGES, COUNTER_BYTES
from emptcp.chain.instructions import R0, R1, R2, R3, R4, R5, R10, Assembler, Instruction
from emptcp.chain.layout import Slot
from emptcp.chain.plan import END, FragmentRef, Plan, PlannedPolicy, Step
from emptcp.chain.typeinfo import TypeInfo
from emptcp.errors import EmptcpError

STACK_BUDGET = 256
"""Bytes of stack a fragment may use, static subprograms included; the kernel's limit for all is 512."""

INSTRUCTION_BUDGET = 500_000
"""Instructions of one program; the kernel's verifier stops at a million visited ones."""

ISLAND_EVERY = 12_000
"""Instructions after which jumps to the exits are forwarded by an island."""

_LOOKUP, _REDIRECT = 1, 23
_PASS = {"xdp": 2, "tc": -1}
_DROP = {"xdp": 1, "tc": 2}
"""XDP_PASS and TCX_NEXT (TC_ACT_UNSPEC): other programs on the hook go on. XDP_DROP and TC_ACT_SHOT."""

RETURN, ACCEPT, DROP, REDIRECT = 1, 2, 3, 4


@dataclass(frozen=True)
class PacketLayout:
    """Byte offsets in ``struct emptcp_pkt`` and ``struct emptcp_flow`` (emptcp/abi.h), from core's BTF."""

    flags: int
    l3: int
    payload: int
    payload_len: int
    reason: int
    redirect: int
    flow_known: int
    flow_slots: int
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
    program's own. ``state_slots`` maps a plugin to its offset in a flow-table entry's slot area.
    """

    backend: str
    code: Mapping[FragmentRef, Code]
    parse: Code
    flow: Code
    packet: PacketLayout
    maps: Maps
    parameter_slots: list[Slot | None]
    counter_slots: list[int]
    state_slots: Mapping[str, int]


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
        return b"".join(struct.pack("<IIII", *record) for record in self.lines)

    def place(self, instruction: int) -> str:
        """Return what stands at an instruction: ``table/policy: stage``, or a core block's name."""
        return next((name for start, end, name in self.places if start <= instruction < end), "core")


def join(plan: Plan, binding: Binding) -> Joined:
    """Join ``plan`` for one back-end. Raises :class:`EmptcpError` when a budget is exceeded."""
    _check_stack(plan, binding)
    try:
        joined = _Joiner(plan, binding).run()
    except OverflowError as error:
        raise EmptcpError(
            f"the code around '{error}' is longer than a BPF jump reaches ({bpf.JUMP_REACH} instructions)",
            fix="Split the policy in two.",
        ) from None
    count = len(joined.instructions) // 8
    if count > INSTRUCTION_BUDGET:
        raise EmptcpError(
            f"the policies of one hook make {count} instructions, more than the {INSTRUCTION_BUDGET} allowed",
            fix="Use fewer policies on this device, or the engine 'tail'.",
        )
    return joined


def _check_stack(plan: Plan, binding: Binding) -> None:
    for fragment in plan.fragments:
        used = binding.code[fragment].stack
        if used > STACK_BUDGET:
            raise EmptcpError(
                f"fragment '{fragment.name}' of plugin '{fragment.plugin}' uses {used} bytes of stack, "
                f"more than the {STACK_BUDGET} a fragment may use",
                fix="Move large variables into a map of the plugin.",
            )


@dataclass
class _Subprogram:
    code: Code
    index: int
    start: int = 0


@dataclass
class _Joiner:
    plan: Plan
    binding: Binding
    asm: Assembler = field(default_factory=Assembler)

    def __post_init__(self) -> None:
        b = self.binding
        codes = [b.parse, b.flow, *b.code.values()]
        frame = max(code.body_stack for code in codes)
        slots = (-frame - 8 * n for n in range(1, 7))
        self.ctx, self.pkt, self.counters, self.flow, self.length, self.key = slots
        self.types = TypeInfo(b.backend)
        self.lines: list[tuple[int, int, int, int]] = []
        self.places: list[tuple[int, int, str]] = []
        self.calls: list[tuple[int, _Subprogram]] = []
        self.subprograms: dict[tuple[object, ...], _Subprogram] = {}
        self.zone = 0
        self.island_at = 0
        self.chunk = 0

    def run(self) -> Joined:
        self._prologue()
        for policy in self.plan.policies:
            self._policy(policy)
        self._exits()
        functions = [(0, self.types.function(f"emptcp_{self.plan.hook}", 1, True))]
        functions += self._append_subprograms()
        self._resolve_calls()
        code = bpf.encode(self.asm.finish())
        return Joined(code, self.types.encode(), tuple(functions), tuple(self.lines), tuple(self.places))

    # Blocks of core.

    def _prologue(self) -> None:
        asm, maps = self.asm, self.binding.maps
        self._line("core: look up the parsed packet")
        asm.emit(bpf.STX_DW, R10, R1, self.ctx)
        self._look_up(maps.packet, 0)
        asm.jump("found", bpf.JNE_IMM, R0, 0)
        # An array's look-up never fails, so this is never run: it ties the description to the program.
        asm.load_map(R1, maps.description)
        asm.jump(self._exit("pass"))
        asm.label("found")
        asm.emit(bpf.STX_DW, R10, R0, self.pkt)
        asm.emit(bpf.MOV64_REG, R2, R0)
        asm.emit(bpf.LDX_DW, R1, R10, self.ctx)
        asm.load_map_value(R3, maps.parameters, 0)
        asm.emit(bpf.MOV64_IMM, R4)
        asm.emit(bpf.MOV64_IMM, R5)
        self._copy(self.binding.parse, "parsed", "core: parse")
        self._line("core: counters of this program")
        asm.jump("left", bpf.JEQ32_IMM, R0, 0)
        self._gate()
        self._load_counters(0)
        self._measure()
        self._count_program()
        asm.jump("begin")
        self._left()
        asm.label("begin")
        self._companions()

    def _look_up(self, fd: int, index: int) -> None:
        self.asm.emit(bpf.ST_W, R10, 0, self.key, index)
        self.asm.emit(bpf.MOV64_REG, R2, R10)
        self.asm.emit(bpf.ADD64_IMM, R2, imm=self.key)
        self.asm.load_map(R1, fd)
        self.asm.emit(bpf.CALL, imm=_LOOKUP)

    def _load_counters(self, chunk: int) -> None:
        self._look_up(self.binding.maps.counters, chunk)
        self.asm.jump(self._exit("pass"), bpf.JEQ_IMM, R0, 0)
        self.asm.emit(bpf.STX_DW, R10, R0, self.counters)
        self.chunk = chunk

    def _gate(self) -> None:
        """Let only MPTCP subflows on, unless a policy asks for plain TCP; note the flow-table entry."""
        asm, packet = self.asm, self.binding.packet
        plain = any(policy.plain_tcp for policy in self.plan.policies)
        if self.plan.flow:
            self._call_core_flow()
            asm.emit(bpf.STX_DW, R10, R0, self.flow)
        if plain:
            return
        asm.emit(bpf.LDX_DW, R1, R10, self.pkt)
        asm.emit(bpf.LDX_B, R2, R1, packet.flags)
        if not self.plan.flow:
            asm.emit(bpf.AND64_IMM, R2, imm=packet.mptcp_flag)
            asm.jump(self._exit("pass"), bpf.JEQ_IMM, R2, 0)
            return
        asm.jump("mptcp", bpf.JSET_IMM, R2, packet.mptcp_flag)
        asm.emit(bpf.LDX_DW, R1, R10, self.flow)
        asm.jump(self._exit("pass"), bpf.JEQ_IMM, R1, 0)
        asm.emit(bpf.LDX_B, R2, R1, packet.flow_known)
        asm.jump(self._exit("pass"), bpf.JEQ_IMM, R2, 0)
        asm.label("mptcp")

    def _call_core_flow(self) -> None:
        self.asm.emit(bpf.LDX_DW, R1, R10, self.ctx)
        self.asm.emit(bpf.LDX_DW, R2, R10, self.pkt)
        self.asm.emit(bpf.MOV64_IMM, R3)
        self.asm.emit(bpf.MOV64_IMM, R4)
        self.asm.emit(bpf.MOV64_IMM, R5)
        self._copy(self.binding.flow, "flow", "core: flow table")
        self._line("core: is it MPTCP")

    def _measure(self) -> None:
        """Keep the length of the IP packet, for the byte counters."""
        asm, packet = self.asm, self.binding.packet
        asm.emit(bpf.LDX_DW, R1, R10, self.pkt)
        asm.emit(bpf.LDX_W, R2, R1, packet.payload_len)
        asm.emit(bpf.LDX_H, R3, R1, packet.payload)
        asm.emit(bpf.ADD64_REG, R2, R3)
        asm.emit(bpf.LDX_H, R3, R1, packet.l3)
        asm.emit(bpf.SUB64_REG, R2, R3)
        asm.emit(bpf.STX_DW, R10, R2, self.length)

    def _count_program(self) -> None:
        asm = self.asm
        asm.emit(bpf.LDX_DW, R1, R10, self.counters)
        self._increment(0)
        asm.emit(bpf.LDX_DW, R2, R10, self.length)
        self._add(8)

    def _left(self) -> None:
        """The parser took the packet out: count why, if it is broken rather than not ours."""
        asm = self.asm
        asm.label("left")
        self._load_reason()
        asm.jump(self._exit("pass"), bpf.JEQ_IMM, R2, 0)
        self._load_counters(0)
        self._load_reason()
        self._count_reason(0)
        asm.jump(self._exit("pass"))

    def _load_reason(self) -> None:
        """Load the packet into r3 and its reason into r2."""
        self.asm.emit(bpf.LDX_DW, R3, R10, self.pkt)
        self.asm.emit(bpf.LDX_B, R2, R3, self.binding.packet.reason)

    def _companions(self) -> None:
        for number, fragment in enumerate(self.plan.companions):
            name = f"companion {fragment.plugin}:{fragment.name}"
            after = f"companion{number}"
            self._line(name)
            if fragment.state_size:
                self.asm.emit(bpf.LDX_DW, R5, R10, self.flow)
                self.asm.jump(after, bpf.JEQ_IMM, R5, 0)
            self._arguments(fragment, None)
            self._copy(self.binding.code[fragment], after, name)

    # Policies.

    def _policy(self, policy: PlannedPolicy) -> None:
        self._line(f"{policy.table}/{policy.name}")
        end = f"end{policy.first}"
        self._enter(policy, end)
        for step in self.plan.steps[policy.first : policy.last + 1]:
            self.asm.label(f"step{step.index}")
            self._step(step, end)
        for step in self.plan.steps[policy.first : policy.last + 1]:
            self._slow(step, end)
        self._island()
        self.asm.label(end)

    def _enter(self, policy: PlannedPolicy, end: str) -> None:
        """Begin a policy: all its counters are in one chunk, and plain TCP is only for those who ask."""
        chunk = self.binding.counter_slots[policy.first] // CHUNK_STAGES
        if chunk != self.chunk:
            self._load_counters(chunk)
        if not policy.plain_tcp and any(other.plain_tcp for other in self.plan.policies):
            self._skip_plain_tcp(policy, end)

    def _skip_plain_tcp(self, policy: PlannedPolicy, end: str) -> None:
        asm, inside = self.asm, f"in{policy.first}"
        asm.emit(bpf.LDX_DW, R1, R10, self.pkt)
        asm.emit(bpf.LDX_B, R2, R1, self.binding.packet.flags)
        asm.jump(inside, bpf.JSET_IMM, R2, self.binding.packet.mptcp_flag)
        if self.plan.flow:
            asm.emit(bpf.LDX_DW, R1, R10, self.flow)
            asm.jump(end, bpf.JEQ_IMM, R1, 0)
            asm.emit(bpf.LDX_B, R2, R1, self.binding.packet.flow_known)
            asm.jump(end, bpf.JEQ_IMM, R2, 0)
        else:
            asm.jump(end)
        asm.label(inside)

    def _step(self, step: Step, end: str) -> None:
        stage, slot = step.stage, self.binding.parameter_slots[step.index]
        policy = self.plan.policies[step.policy]
        name = f"{policy.table}/{policy.name}: {stage.id}"
        self._line(name)
        if stage.fragment.state_size:
            self.asm.emit(bpf.LDX_DW, R5, R10, self.flow)
            self.asm.jump(f"noflow{step.index}", bpf.JEQ_IMM, R5, 0)
        self._arguments(stage.fragment, slot)
        self._copy(self.binding.code[stage.fragment], f"after{step.index}", name)
        self._line(name)
        if stage.kind == "selector":
            self._after_selector(step, end)
        else:
            self._after_actor(step, end)

    def _arguments(self, fragment: FragmentRef, slot: Slot | None) -> None:
        """Load r1 to r5 as emptcp/abi.h says; a state was checked to be there, and is in r5."""
        asm = self.asm
        if fragment.state_size:
            offset = self.binding.packet.flow_slots + self.binding.state_slots[fragment.plugin]
            asm.emit(bpf.MOV64_REG, R4, R5)
            asm.emit(bpf.ADD64_IMM, R4, imm=offset)
        else:
            asm.emit(bpf.MOV64_IMM, R4)
            asm.emit(bpf.MOV64_IMM, R5)
        if slot is None:
            asm.emit(bpf.MOV64_IMM, R3)
        else:
            self._parameter_address(slot)
        asm.emit(bpf.LDX_DW, R1, R10, self.ctx)
        asm.emit(bpf.LDX_DW, R2, R10, self.pkt)

    def _parameter_address(self, slot: Slot) -> None:
        asm, fd = self.asm, self.binding.maps.parameters
        if not slot.flips:
            asm.load_map_value(R3, fd, slot.first_side)
            return
        asm.load_map_value(R1, fd, slot.offset)
        asm.emit(bpf.LDX_W, R1, R1)
        asm.emit(bpf.AND64_IMM, R1, imm=1)
        asm.emit(bpf.MUL64_IMM, R1, imm=slot.stride)
        asm.load_map_value(R3, fd, slot.first_side)
        asm.emit(bpf.ADD64_REG, R3, R1)

    def _base(self, step: Step) -> int:
        return self.binding.counter_slots[step.index] % CHUNK_STAGES * COUNTER_BYTES

    def _target(self, edge: int, end: str) -> str:
        return end if edge == END else f"step{edge}"

    def _after_selector(self, step: Step, end: str) -> None:
        """Count, then follow the edge. Falls through where the next step is the edge's target."""
        asm, base = self.asm, self._base(step)
        asm.emit(bpf.LDX_DW, R1, R10, self.counters)
        self._increment(base)
        asm.jump(f"not{step.index}", bpf.JEQ32_IMM, R0, 0)
        self._increment(base + 16)
        asm.emit(bpf.LDX_DW, R2, R10, self.length)
        self._add(base + 8)
        asm.jump(self._target(step.if_match, end))
        asm.label(f"not{step.index}")
        if step.if_not != step.index + 1:
            asm.jump(self._target(step.if_not, end))

    def _after_actor(self, step: Step, end: str) -> None:
        asm, base = self.asm, self._base(step)
        asm.emit(bpf.LDX_DW, R1, R10, self.counters)
        self._increment(base)
        asm.emit(bpf.LDX_DW, R2, R10, self.length)
        self._add(base + 8)
        asm.jump(f"verdict{step.index}", bpf.JNE32_IMM, R0, 0)
        self._load_reason()
        asm.jump(f"reason{step.index}", bpf.JNE_IMM, R2, 0)
        if step.if_match != step.index + 1:
            asm.jump(self._target(step.if_match, end))

    def _slow(self, step: Step, end: str) -> None:
        """Out of the hot path: what a stage answers rarely."""
        stage, following = step.stage, self._target(step.if_not, end)
        self._line(f"{self.plan.policies[step.policy].name}: {stage.id}, counters")
        if stage.fragment.state_size:
            self._slow_no_flow(step, following)
        if stage.kind == "actor":
            self._slow_reason(step, self._target(step.if_match, end))
            self._slow_verdict(step, end)

    def _slow_no_flow(self, step: Step, following: str) -> None:
        asm = self.asm
        asm.label(f"noflow{step.index}")
        asm.emit(bpf.LDX_DW, R1, R10, self.counters)
        self._increment(self._base(step))
        asm.emit(bpf.MOV64_IMM, R2, imm=reasons.REASONS.index("no_flow"))
        self._count_reason(self._base(step))
        asm.jump(following)

    def _slow_reason(self, step: Step, following: str) -> None:
        asm = self.asm
        asm.label(f"reason{step.index}")
        asm.emit(bpf.ST_B, R3, 0, self.binding.packet.reason, 0)
        self._count_reason(self._base(step))
        asm.jump(following)

    def _slow_verdict(self, step: Step, end: str) -> None:
        """Verdicts other than NEXT; an unknown one means NEXT, as a stage that errs does."""
        asm, base = self.asm, self._base(step)
        exits = {ACCEPT: "pass", DROP: "drop", REDIRECT: "redirect"}
        targets = {RETURN: end} | {verdict: self._exit(name) for verdict, name in exits.items()}
        asm.label(f"verdict{step.index}")
        for verdict, target in targets.items():
            other = f"verdict{step.index}.{verdict}"
            asm.jump(other, bpf.JNE32_IMM, R0, verdict)
            self._increment(base + 8 * (2 + verdict))
            asm.jump(target)
            asm.label(other)
        asm.jump(self._target(step.if_match, end))

    # Counters: r1 holds the chunk's address.

    def _increment(self, offset: int) -> None:
        self.asm.emit(bpf.LDX_DW, R2, R1, offset)
        self.asm.emit(bpf.ADD64_IMM, R2, imm=1)
        self.asm.emit(bpf.STX_DW, R1, R2, offset)

    def _add(self, offset: int) -> None:
        """Add r2 to a counter."""
        self.asm.emit(bpf.LDX_DW, R3, R1, offset)
        self.asm.emit(bpf.ADD64_REG, R3, R2)
        self.asm.emit(bpf.STX_DW, R1, R3, offset)

    def _count_reason(self, base: int) -> None:
        """Count reason r2 in the block at ``base``; r1 may hold anything before."""
        asm = self.asm
        known = f"known{len(asm)}"
        asm.emit(bpf.LDX_DW, R1, R10, self.counters)
        asm.jump(known, bpf.JLT_IMM, R2, reasons.SLOTS)
        asm.emit(bpf.MOV64_IMM, R2, imm=0)
        asm.label(known)
        asm.emit(bpf.MOV64_REG, R4, R2)
        self._increment(base + 56)
        asm.emit(bpf.LSH64_IMM, R4, imm=3)
        asm.emit(bpf.ADD64_REG, R1, R4)
        self._increment(base + 64)

    # Ways out.

    def _exit(self, name: str) -> str:
        return f"{name}.{self.zone}"

    def _island(self) -> None:
        """Forward the exits when the code since the last island has grown long."""
        if len(self.asm) - self.island_at < ISLAND_EVERY:
            return
        zone, self.zone = self.zone, self.zone + 1
        for name in ("pass", "drop", "redirect"):
            self.asm.label(f"{name}.{zone}")
            self.asm.jump(f"{name}.{self.zone}")
        self.island_at = len(self.asm)

    def _exits(self) -> None:
        asm, backend = self.asm, self.binding.backend
        self._line("core: verdict")
        asm.label(self._exit("pass"))
        asm.emit(bpf.MOV64_IMM, R0, imm=_PASS[backend])
        asm.emit(bpf.EXIT)
        if not self.plan.policies:
            return
        asm.label(self._exit("drop"))
        asm.emit(bpf.MOV64_IMM, R0, imm=_DROP[backend])
        asm.emit(bpf.EXIT)
        asm.label(self._exit("redirect"))
        asm.emit(bpf.LDX_DW, R1, R10, self.pkt)
        asm.emit(bpf.LDX_W, R1, R1, self.binding.packet.redirect)
        asm.emit(bpf.MOV64_IMM, R2)
        asm.emit(bpf.CALL, imm=_REDIRECT)
        asm.emit(bpf.EXIT)

    # Copying fragments.

    def _copy(self, code: Code, after: str, name: str) -> None:
        """Append a fragment's body; its exits lead to ``after``, which is given to what follows."""
        start = len(self.asm)
        body = code.body
        self._copy_lines(code, 0, len(body), start)
        for offset, instruction in enumerate(body):
            if instruction.op == bpf.EXIT:
                self.asm.jump(after)
            else:
                self._append(code, offset, instruction)
        self.asm.label(after)
        self.places.append((start, len(self.asm), name))

    def _append(self, code: Code, offset: int, instruction: Instruction) -> None:
        if bpf.is_subprogram_call(instruction) or bpf.is_function_address(instruction):
            target = code.function_at(offset + 1 + instruction.imm)
            self.calls.append((len(self.asm), self._subprogram(code, target)))
        self.asm.code.append(instruction)

    def _subprogram(self, code: Code, index: int) -> _Subprogram:
        key = _identity(code, index)
        if key not in self.subprograms:
            self.subprograms[key] = _Subprogram(code, index)
        return self.subprograms[key]

    def _append_subprograms(self) -> list[tuple[int, int]]:
        """Append each used subprogram once; appending one may find more."""
        done: list[tuple[int, int]] = []
        while len(done) < len(self.subprograms):
            sub = list(self.subprograms.values())[len(done)]
            function = sub.code.functions[sub.index]
            sub.start = len(self.asm)
            self._line(f"function {function.name}")
            self._copy_lines(sub.code, function.start, function.end, sub.start)
            for offset in range(function.start, function.end):
                self._append(sub.code, offset, sub.code.instructions[offset])
            self.places.append((sub.start, len(self.asm), f"function {function.name}"))
            kind = self.types.function(function.name, function.arguments, function.is_global)
            done.append((sub.start, kind))
        return done

    def _resolve_calls(self) -> None:
        for place, sub in self.calls:
            self.asm.code[place] = self.asm.code[place]._replace(imm=sub.start - place - 1)

    def _copy_lines(self, code: Code, start: int, end: int, to: int) -> None:
        for line in code.lines_between(start, end):
            self._record(to + line.offset - start, line.file, line.text, line.line, line.column)

    def _line(self, text: str) -> None:
        """Begin a generated block: a verifier message quotes this text."""
        self._record(len(self.asm), "emptcp", text, 0, 0)

    def _record(self, offset: int, file: str, text: str, line: int, column: int) -> None:
        if self.lines and self.lines[-1][0] == offset:
            self.lines.pop()
        place = (self.types.string(file), self.types.string(text), line << 10 | min(column, 1023))
        self.lines.append((offset, *place))


def _identity(code: Code, index: int, above: tuple[int, ...] = ()) -> tuple[object, ...]:
    """What makes two subprograms the same: their code, and that of those they call."""
    function = code.functions[index]
    parts: list[object] = [function.name]
    for offset in range(function.start, function.end):
        instruction = code.instructions[offset]
        if bpf.is_subprogram_call(instruction) or bpf.is_function_address(instruction):
            target = code.function_at(offset + 1 + instruction.imm)
            inner = target if target in (*above, index) else _identity(code, target, (*above, index))
            parts.append((instruction._replace(imm=0), inner))
        else:
            parts.append(instruction)
    return tuple(parts)
