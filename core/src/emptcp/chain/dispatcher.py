# SPDX-License-Identifier: Apache-2.0
"""What every program does with a packet before any stage: parse it once, see whether it is MPTCP, count it.

::

    core_glance                              can't matter to any policy: pass
    look up the parsed packet; core_parse;   leaves: pass
    [core_flow]; is it MPTCP?                no: pass
    companions
"""

from __future__ import annotations

from emptcp.chain import instructions as bpf
from emptcp.chain.instructions import R0, R1, R2, R3, R4, R5, R6, R10
from emptcp.chain.joining import Joiner


class Dispatcher(Joiner):
    """A program that is attached: the engines' classes go on after :meth:`prologue`."""

    def prologue(self) -> None:
        """Append all that comes before the first policy."""
        asm, maps = self.asm, self.binding.maps
        self._glance()
        self.line("core: look up the parsed packet")
        self.look_up(maps.packet, 0)
        asm.jump("found", bpf.JNE_IMM, R0, 0)
        # An array's look-up never fails, so this is never run: it ties the description to the program.
        asm.load_map(R1, maps.description)
        asm.jump(self.exit("untouched"))
        asm.label("found")
        asm.emit(bpf.STX_DW, R10, R0, self.pkt)
        self.packet_arguments()
        asm.load_map_value(R3, maps.parameters, 0)
        asm.emit(bpf.MOV64_REG, R4, R6)
        self.copy(self.binding.parse, "parsed", "core: parse")
        self.line("core: counters of this program")
        asm.jump("left", bpf.JEQ32_IMM, R0, 0)
        self._gate()
        self.load_counters(0)
        self._measure()
        self._count_program()
        asm.jump("begin")
        self._left()
        asm.label("begin")
        self._companions()

    def _glance(self) -> None:
        """Let go of most packets at once: nothing is looked up or written. It takes but r1 and r3.

        What it saw is kept in r6, for the parser.
        """
        asm = self.asm
        self.line("core: glance")
        asm.emit(bpf.STX_DW, R10, R1, self.ctx)
        asm.load_map_value(R3, self.binding.maps.parameters, 0)
        self.copy(self.binding.glance, "glanced", "core: glance")
        asm.jump(self.exit("untouched"), bpf.JEQ32_IMM, R0, 0)
        asm.emit(bpf.MOV64_REG, R6, R0)

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
            asm.jump(self.exit("untouched"), bpf.JEQ_IMM, R2, 0)
            return
        asm.jump("mptcp", bpf.JSET_IMM, R2, packet.mptcp_flag)
        asm.emit(bpf.LDX_DW, R1, R10, self.flow)
        asm.jump(self.exit("untouched"), bpf.JEQ_IMM, R1, 0)
        asm.emit(bpf.LDX_B, R2, R1, packet.flow_known)
        asm.jump(self.exit("untouched"), bpf.JEQ_IMM, R2, 0)
        asm.label("mptcp")

    def _call_core_flow(self) -> None:
        self.packet_arguments()
        self.copy(self.binding.flow, "flow", "core: flow table")
        self.line("core: is it MPTCP")

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
        self.increment(0)
        asm.emit(bpf.LDX_DW, R2, R10, self.length)
        self.add(8)

    def _left(self) -> None:
        """The parser took the packet out: count why, if it is broken rather than not ours."""
        asm = self.asm
        asm.label("left")
        self.load_reason()
        asm.jump(self.exit("untouched"), bpf.JEQ_IMM, R2, 0)
        self.load_counters(0)
        self.load_reason()
        self.count_reason(0)
        asm.jump(self.exit("untouched"))

    def _companions(self) -> None:
        for number, fragment in enumerate(self.plan.companions):
            name = f"companion '{fragment.name}' of plugin '{fragment.plugin}'"
            after = f"companion{number}"
            self.line(name)
            if fragment.state_size:
                self.asm.emit(bpf.LDX_DW, R5, R10, self.flow)
                self.asm.jump(after, bpf.JEQ_IMM, R5, 0)
            self.arguments(fragment, None)
            self.copy(self.binding.code[fragment], after, name)
