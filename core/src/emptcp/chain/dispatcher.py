# SPDX-License-Identifier: Apache-2.0
"""What every program does with a packet before any stage: parse it once, see whether it is MPTCP, count it.

::

    core_begin                               can't matter to any policy, or is left alone: pass
    [core_flow]; is it MPTCP?                no: pass
    companions
"""

from __future__ import annotations

from collections.abc import Sequence

from emptcp.chain import instructions as bpf
from emptcp.chain.code import Code
from emptcp.chain.instructions import R0, R1, R2, R3, R5, R10
from emptcp.chain.joining import CONTEXT, LENGTH, PACKET, Binding, Joiner
from emptcp.chain.plan import Plan


class Dispatcher(Joiner):
    """A program that is attached: the engines' classes go on after :meth:`prologue`."""

    def __init__(self, plan: Plan, binding: Binding, codes: Sequence[Code]) -> None:
        super().__init__(plan, binding, [binding.begin, *([binding.flow] if plan.flow else []), *codes])

    def prologue(self) -> None:
        """Append all that comes before the first policy."""
        asm = self.asm
        self.line("core: parse")
        self.keep(CONTEXT, R1)
        for register, value in ((R2, self.binding.how), (R3, self.binding.netns)):
            if register in self.binding.begin.wanted:
                asm.emit(bpf.MOV64_IMM, register, imm=value)
        self.copy(self.binding.begin, "parsed", "core: parse")
        self.line("core: counters of this program")
        asm.jump(self.exit("untouched"), bpf.JEQ_IMM, R0, 0)
        self.keep(PACKET, R0)
        asm.emit(bpf.LDX_W, R1, R0, self.binding.packet.length)
        asm.jump(self.exit("left"), bpf.JEQ_IMM, R1, 0)
        self.keep(LENGTH, R1)
        self._gate()
        self.load_counters(0)
        self.increment(0)
        self.count_bytes(8)
        self._companions()

    def untouched(self) -> None:
        """Append the ways out of packets that no fragment of a plugin was given: they pass."""
        self._left()
        super().untouched()

    def _gate(self) -> None:
        """Let only MPTCP subflows on, unless a policy asks for plain TCP; note the flow-table entry."""
        asm, packet = self.asm, self.binding.packet
        if not self.plan.flow:
            return  # the parser lets only on what some policy asks for
        self._call_core_flow()
        asm.emit(bpf.STX_DW, R10, R0, self.flow)
        if any(policy.plain_tcp for policy in self.plan.policies):
            return
        asm.emit(bpf.LDX_B, R2, PACKET, packet.flags)
        asm.jump("mptcp", bpf.JSET_IMM, R2, packet.mptcp_flag)
        asm.jump(self.exit("untouched"), bpf.JEQ_IMM, R0, 0)
        asm.emit(bpf.LDX_B, R2, R0, packet.flow_known)
        asm.jump(self.exit("untouched"), bpf.JEQ_IMM, R2, 0)
        asm.label("mptcp")

    def _call_core_flow(self) -> None:
        self.packet_arguments(self.binding.flow)
        self.copy(self.binding.flow, "flow", "core: flow table")
        self.line("core: is it MPTCP")

    def _left(self) -> None:
        """The parser took the packet out: count why, if it is broken rather than not ours."""
        asm = self.asm
        asm.label(self.exit("left"))
        self.load_reason()
        # For nothing but to tie the program's own maps to it.
        asm.load_map(R1, self.binding.maps.description)
        asm.load_map(R1, self.binding.maps.parameters)
        asm.jump(self.exit("untouched"), bpf.JEQ_IMM, R2, 0)
        self.load_counters(0)
        self.load_reason()
        self.count_reason(0)
        asm.jump(self.exit("untouched"))

    def _companions(self) -> None:
        for number, fragment in enumerate(self.plan.companions):
            name = f"companion '{fragment.name}' of plugin '{fragment.plugin}'"
            after = f"companion{number}"
            self.make_ready(fragment)
            self.line(name)
            if fragment.state_size:
                self.asm.emit(bpf.LDX_DW, R5, R10, self.flow)
                self.asm.jump(after, bpf.JEQ_IMM, R5, 0)
            self.arguments(fragment, None)
            self.run_fragment(fragment, after, name)
