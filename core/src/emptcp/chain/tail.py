# SPDX-License-Identifier: Apache-2.0
"""The engine of the paper (section IV-A): each fragment is a program, chained by tail calls.

A root program, the one that is attached, does what every dispatcher does, then calls the first stage. A
stage's program reads its entry of the chain context (:mod:`emptcp.chain.context`), runs the fragment, counts,
and calls the next one. Fragments that several stages use are one program: what differs between stages is in
their entries. Only a policy's first stage is a program apart, as it looks at the policy's switch. The place
in the context travels with the packet in ``emptcp_pkt.entry``, in the per-CPU value of the parsed packet.
Programs that share a program array are of one kind; an entry that is missing ends the chain, and the packet
passes.
"""

from __future__ import annotations

from dataclasses import dataclass

from emptcp.chain import context, reasons
from emptcp.chain import instructions as bpf
from emptcp.chain.asking import Asking
from emptcp.chain.carriers import Tables, carrier
from emptcp.chain.code import Code
from emptcp.chain.counters import CHUNK_BYTES, COUNTER_BYTES
from emptcp.chain.dispatcher import Dispatcher
from emptcp.chain.instructions import R0, R1, R2, R3, R4, R5, R10
from emptcp.chain.joining import (
    ACCEPT,
    CONTEXT,
    COUNTERS,
    DROP,
    GOTO,
    LENGTH,
    PACKET,
    REDIRECT,
    RETURN,
    Binding,
    Joined,
    check_stack,
)
from emptcp.chain.layout import ATOMIC, SWITCH_SIZE, stride, switch
from emptcp.chain.plan import FragmentRef, Plan, Step, ValueLookup
from emptcp.chain.storage import Store
from emptcp.errors import EmptcpError

MOST_PROGRAMS = 255
"""Programs that a one-byte *next policy* can name; the last number means the end."""

_LOOKUP = 1


@dataclass(frozen=True)
class Variant:
    """What one program of the array is made of; ``member`` and ``values`` are the stage's.

    ``first``: the first stage of a policy, which looks at its switch. ``gated``: and the policy sees MPTCP
    only, on a hook where another policy sees all TCP. ``chooses``: among named chains.
    """

    fragment: FragmentRef
    kind: str
    first: bool
    gated: bool
    parameters: int
    chooses: bool
    member: Store | None = None
    values: tuple[ValueLookup, ...] = ()

    @property
    def flow(self) -> bool:
        """Whether the flow-table entry is looked for."""
        keys = (value.store.key for value in self.values)
        return bool(self.fragment.state_size) or any(one.flow for one in (self.fragment, *keys))


def variant(plan: Plan, step: Step) -> Variant:
    """Return which program runs a step."""
    policy = plan.policies[step.policy]
    mixed = any(other.plain_tcp for other in plan.policies)
    first = step.index == policy.first
    gated = first and mixed and not policy.plain_tcp
    stage = step.stage
    size, chooses = len(stage.parameters), bool(step.gotos)
    return Variant(stage.fragment, stage.kind, first, gated, size, chooses, stage.member, stage.values)


def variants(plan: Plan) -> list[Variant]:
    """Return the programs of a plan in the order of the program array.

    Raises :class:`EmptcpError` when there are too many.
    """
    found = list(dict.fromkeys(variant(plan, step) for step in plan.steps))
    if len(found) > MOST_PROGRAMS:
        raise EmptcpError(
            f"the policies of one hook use {len(found)} different stages, more than the "
            "engine 'tail' can name",
            fix="Use the engine 'fused'.",
        )
    return found


def root(plan: Plan, binding: Binding, tables: Tables, metadata: bool = False) -> Joined:
    """Join the program that is attached; ``metadata``: see :mod:`emptcp.chain.carriers`."""
    check_stack(plan, binding)
    return _Root(plan, binding, tables, metadata).run()


def stage(plan: Plan, binding: Binding, tables: Tables, made: Variant, metadata: bool = False) -> Joined:
    """Join the program of one fragment."""
    return _Stage(plan, binding, tables, made, metadata).run()


class _Root(Dispatcher):
    def __init__(self, plan: Plan, binding: Binding, tables: Tables, metadata: bool) -> None:
        companions = [binding.code[fragment] for fragment in plan.companions]
        super().__init__(plan, binding, companions)
        self.carrier = carrier(metadata, self, tables)

    def run(self) -> Joined:
        self.prologue()
        self.line("tail: call the first stage")
        self.carrier.begin()
        self.asm.emit(bpf.MOV64_IMM, R1, imm=0)
        self.carrier.go()
        self.asm.label("leave")
        self.carrier.remove("pass")
        self.way_out("pass")
        self.untouched()
        return self.finish(f"emptcp_{self.plan.hook}")


class _Stage(Asking):
    def __init__(self, plan: Plan, binding: Binding, tables: Tables, made: Variant, metadata: bool) -> None:
        self.code: Code | None = binding.code.get(made.fragment)
        keys = [binding.code[value.store.key] for value in made.values]
        super().__init__(plan, binding, [*([self.code] if self.code is not None else []), *keys])
        self.tables = tables
        self.carrier = carrier(metadata, self, tables)
        self.made = made
        self.name = f"fragment '{made.fragment.name}' of plugin '{made.fragment.plugin}'"
        if self.code is None:
            self.name = "goto"

    def run(self) -> Joined:
        self.line(self.name)
        self._find_packet()
        self._find_entry()
        if self.made.first:
            self._switch()
        if self.made.gated:
            self._gate()
        self._find_counters()
        if self.made.kind == "goto":
            self._goto()
        else:
            self._run_fragment()
        if self.made.kind != "goto" or self.made.first:
            self._return()
        self._go_on()
        self.ways_out()
        self.untouched()
        return self.finish("emptcp_stage")

    def way_out(self, name: str) -> None:
        """Append a way out, before which the chain context is taken away."""
        self.asm.label(self.exit(name))
        if name == "pass":
            self.asm.label("leave")
        self.carrier.remove(name)
        self.finish_packet(name)
        self.answer(name)

    def _run_fragment(self) -> None:
        if self.made.flow:
            self._find_flow("noflow" if self.made.fragment.state_size else "")
        self._body()
        self.line(f"{self.name}: counters")
        if self.made.kind == "selector":
            self._after_selector()
        else:
            self._after_actor()
        if self.made.fragment.state_size:
            self._skipped("no_flow")
        if self.made.values:
            self._skipped("no_value")

    def _goto(self) -> None:
        """Count, and skip to the named chain."""
        asm = self.asm
        self.increment(0)
        self.count_bytes(8)
        asm.emit(bpf.LDX_DW, R4, R10, self.entry)
        asm.emit(bpf.RSH64_IMM, R4, imm=16)
        asm.jump("go on")

    # Before the fragment.

    def _find_packet(self) -> None:
        asm = self.asm
        self.keep(CONTEXT, R1)
        self.look_up(self.binding.maps.packet, 0)
        asm.jump(self.exit("lost"), bpf.JEQ_IMM, R0, 0)
        self.keep(PACKET, R0)
        asm.emit(bpf.LDX_W, R1, R0, self.binding.packet.length)
        self.keep(LENGTH, R1)

    def _find_entry(self) -> None:
        """Keep this stage's entry, and what the second table says of it."""
        self.carrier.find()
        self.asm.emit(bpf.LDX_DW, R1, R10, self.place)
        self.asm.jump("pass", bpf.JGT_IMM, R1, self.tables.count - 1)
        self.carrier.keep_word(self.tables.about, self.about)

    def _switch(self) -> None:
        """Skip a policy that is switched off."""
        asm = self.asm
        asm.emit(bpf.LDX_DW, R1, R10, self.about)
        asm.emit(bpf.RSH64_IMM, R1, imm=8)
        asm.emit(bpf.AND64_IMM, R1, imm=0xFF)
        asm.jump("pass", bpf.JGT_IMM, R1, len(self.plan.policies) - 1)
        asm.emit(bpf.MUL64_IMM, R1, imm=SWITCH_SIZE)
        asm.load_map_value(R2, self.binding.maps.parameters, switch(0))
        asm.emit(bpf.ADD64_REG, R2, R1)
        asm.emit(bpf.LDX_DW, R2, R2)
        asm.jump("return", bpf.JNE_IMM, R2, 0)

    def _gate(self) -> None:
        """Skip the policy for a packet of plain TCP."""
        asm, packet = self.asm, self.binding.packet
        asm.emit(bpf.LDX_B, R2, PACKET, packet.flags)
        asm.jump("mptcp", bpf.JSET_IMM, R2, packet.mptcp_flag)
        if self.plan.flow:
            self._find_flow("return")
            asm.emit(bpf.LDX_DW, R1, R10, self.flow)
            asm.emit(bpf.LDX_B, R2, R1, packet.flow_known)
            asm.jump("mptcp", bpf.JNE_IMM, R2, 0)
        asm.jump("return")
        asm.label("mptcp")

    def _find_counters(self) -> None:
        """Keep the address of this stage's own counters."""
        asm = self.asm
        self.find_row()
        asm.emit(bpf.LDX_DW, R1, R10, self.about)
        asm.emit(bpf.MOV64_REG, R2, R1)
        asm.emit(bpf.RSH64_IMM, R1, imm=16)
        asm.emit(bpf.AND64_IMM, R1, imm=0xFF)
        asm.emit(bpf.MUL64_IMM, R1, imm=CHUNK_BYTES)
        asm.emit(bpf.AND64_IMM, R2, imm=0xFF)
        asm.emit(bpf.MUL64_IMM, R2, imm=COUNTER_BYTES)
        asm.emit(bpf.ADD64_REG, R1, R2)
        asm.jump("pass", bpf.JGT_IMM, R1, self.binding.row - COUNTER_BYTES)
        asm.load_map_value(COUNTERS, self.binding.maps.counters, 0)
        asm.emit(bpf.ADD64_REG, COUNTERS, R0)
        asm.emit(bpf.ADD64_REG, COUNTERS, R1)
        self.keep(COUNTERS, COUNTERS)

    def _find_flow(self, missing: str) -> None:
        """Keep the flow-table entry; without one go to ``missing``, or on with 0 where that is empty."""
        asm = self.asm
        asm.emit(bpf.MOV64_REG, R2, PACKET)
        asm.emit(bpf.ADD64_IMM, R2, imm=self.binding.packet.key)
        asm.load_map(R1, self.tables.flows)
        asm.emit(bpf.CALL, imm=_LOOKUP)
        if missing:
            asm.jump(missing, bpf.JEQ_IMM, R0, 0)
        asm.emit(bpf.STX_DW, R10, R0, self.flow)

    def _parameters(self) -> None:
        """Put the address of the parameters into r3: on the stack, or in the parameter map."""
        size, asm = self.made.parameters, self.asm
        if not size:
            asm.emit(bpf.MOV64_IMM, R3)
            return
        asm.emit(bpf.LDX_DW, R1, R10, self.entry)
        if size <= ATOMIC:
            asm.jump("address", bpf.JSET_IMM, R1, context.ADDRESS << 8)
            asm.emit(bpf.RSH64_IMM, R1, imm=16)
            asm.emit(bpf.STX_DW, R10, R1, self.immediate)
            asm.emit(bpf.MOV64_REG, R3, R10)
            asm.emit(bpf.ADD64_IMM, R3, imm=self.immediate)
            asm.jump("arguments")
            asm.label("address")
        self._parameter_place(size)
        asm.label("arguments")

    def _parameter_place(self, size: int) -> None:
        """Put the address that entry r1 tells into r3; before two sides stands which is in force."""
        asm, between = self.asm, stride(size)
        sides = 8 + 2 * between if size > ATOMIC else between
        asm.emit(bpf.RSH64_IMM, R1, imm=16)
        asm.emit(bpf.LSH64_IMM, R1, imm=3)
        asm.jump("pass", bpf.JGT_IMM, R1, self.tables.parameters_size - sides)
        asm.load_map_value(R3, self.binding.maps.parameters, 0)
        asm.emit(bpf.ADD64_REG, R3, R1)
        if size > ATOMIC:
            asm.emit(bpf.LDX_W, R1, R3)
            asm.emit(bpf.AND64_IMM, R1, imm=between)
            asm.emit(bpf.ADD64_IMM, R3, imm=8)
            asm.emit(bpf.ADD64_REG, R3, R1)

    def _body(self) -> None:
        """Run the fragment, or ask its set."""
        made = self.made
        if made.member is not None:
            self.membership(made.member, self.name)
            return
        self.make_ready(made.fragment)
        self._parameters()
        if made.values:
            self.look_up_values(made.values, made.parameters, "novalue", self.name)
        self.other_arguments(made.fragment)
        self.run_fragment(made.fragment, "after", self.name)

    # After the fragment. The counters' address is that of the stage's own block.

    def _after_selector(self) -> None:
        asm, stateful = self.asm, self.made.fragment.state_size
        self.increment(0)
        asm.emit(bpf.LDX_DW, R4, R10, self.entry)
        asm.jump("no match" if stateful else "not", bpf.JEQ32_IMM, R0, 0)
        self.increment(16)
        self.count_bytes(8)
        asm.jump("skip", bpf.JSET_IMM, R4, 1 << 10)
        asm.emit(bpf.MOV64_IMM, R4, imm=0)
        asm.jump("go on")
        if stateful:
            self._not_known()
        asm.label("not")
        asm.jump("stay", bpf.JSET_IMM, R4, 1 << 10)
        asm.label("skip")
        asm.emit(bpf.RSH64_IMM, R4, imm=11)
        asm.emit(bpf.AND64_IMM, R4, imm=context.TO_END)
        asm.jump("return", bpf.JEQ_IMM, R4, context.TO_END)
        asm.jump("go on")
        asm.label("stay")
        asm.emit(bpf.MOV64_IMM, R4, imm=0)
        asm.jump("go on")

    def _not_known(self) -> None:
        """Count why a selector could not tell; r4 is the entry, before and after."""
        asm = self.asm
        asm.label("no match")
        self.load_reason()
        asm.jump("not", bpf.JEQ_IMM, R2, 0)
        asm.emit(bpf.ST_B, PACKET, 0, self.binding.packet.reason, 0)
        self.count_reason(0)
        asm.emit(bpf.LDX_DW, R4, R10, self.entry)

    def _after_actor(self) -> None:
        asm = self.asm
        self.increment(0)
        self.count_bytes(8)
        self.load_reason()
        asm.emit(bpf.ST_B, PACKET, 0, self.binding.packet.reason, 0)
        self._verdicts()
        asm.jump("following", bpf.JEQ_IMM, R2, 0)
        asm.label("reason")
        self.count_reason(0)
        asm.label("following")
        asm.emit(bpf.LDX_DW, R4, R10, self.entry)
        asm.jump("return", bpf.JSET_IMM, R4, 1 << 10)
        asm.emit(bpf.MOV64_IMM, R4, imm=0)
        asm.jump("go on")

    def _verdicts(self) -> None:
        """Leave by a verdict other than NEXT; the reason in r2 is kept where there is none."""
        asm, verdicts = self.asm, self.verdicts(self.made.fragment, self.made.chooses)
        if not verdicts:
            return
        asm.jump("next", bpf.JEQ32_IMM, R0, 0)
        targets = {RETURN: "return", ACCEPT: "pass", DROP: "drop", REDIRECT: "redirect"}
        self.leave(verdicts, targets, "verdict", 0)
        if self.made.chooses:
            self._chosen_chain()
        asm.emit(bpf.MOV64_IMM, R2, imm=0)
        asm.label("next")

    def _chosen_chain(self) -> None:
        """Verdict GOTO: skip to a chain that the stage may choose; r3 is the packet. Else as NEXT."""
        asm, tables, other = self.asm, self.tables, f"verdict.{GOTO}"
        asm.jump(other, bpf.JNE32_IMM, R0, GOTO)
        asm.emit(bpf.LDX_W, R4, PACKET, self.binding.packet.chain)
        asm.jump("refused", bpf.JGT_IMM, R4, context.width(self.plan) - 1)
        asm.emit(bpf.LDX_DW, R5, R10, self.place)
        asm.jump("pass", bpf.JGT_IMM, R5, tables.count - 1)
        self._load_word(tables.rows)
        asm.emit(bpf.ADD64_REG, R5, R4)
        asm.jump("refused", bpf.JGT_IMM, R5, tables.choices - 1)
        self._load_word(tables.distances)
        asm.jump("refused", bpf.JEQ_IMM, R5, 0)
        self.increment(16)
        asm.emit(bpf.MOV64_REG, R4, R5)
        asm.emit(bpf.ADD64_IMM, R4, imm=-1)
        asm.jump("go on")
        asm.label("refused")
        asm.emit(bpf.MOV64_IMM, R2, imm=reasons.REASONS.index("refused"))
        asm.jump("reason")
        asm.label(other)

    def _load_word(self, offset: int) -> None:
        """Load word r5 of a table into r5; r2 is used."""
        self.asm.emit(bpf.LSH64_IMM, R5, imm=2)
        self.asm.load_map_value(R2, self.binding.maps.parameters, offset)
        self.asm.emit(bpf.ADD64_REG, R2, R5)
        self.asm.emit(bpf.LDX_W, R5, R2)

    def _return(self) -> None:
        """Go on behind the policy's end."""
        self.asm.label("return")
        self.asm.emit(bpf.LDX_DW, R4, R10, self.about)
        self.asm.emit(bpf.RSH64_IMM, R4, imm=24)
        self.asm.jump("go on")

    def _skipped(self, reason: str) -> None:
        """A stage that lacks what it works with: counted, and on as by NEXT or no match."""
        asm = self.asm
        asm.label(reason.replace("_", ""))
        self.increment(0)
        asm.emit(bpf.MOV64_IMM, R2, imm=reasons.REASONS.index(reason))
        self.count_reason(0)
        if self.made.kind == "selector":
            asm.emit(bpf.LDX_DW, R4, R10, self.entry)
            asm.jump("not")
        else:
            asm.jump("following")

    def _go_on(self) -> None:
        """Skip r4 entries and call what follows."""
        asm = self.asm
        asm.label("go on")
        asm.emit(bpf.LDX_DW, R1, R10, self.place)
        asm.emit(bpf.ADD64_REG, R1, R4)
        asm.jump("pass", bpf.JGT_IMM, R1, self.tables.count - 1)
        self.carrier.go()
