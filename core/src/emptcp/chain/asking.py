# SPDX-License-Identifier: Apache-2.0
"""Ask sets and maps: the code that core puts before a stage, the same in both engines.

The key's fragment writes the packet's key into the per-CPU value of the parsed packet; core looks it up, and
an entry that has expired counts as none. Plugins never see a kernel map. Values that come from maps go into a
copy of the stage's struct in that same per-CPU value: the parameter map is shared by all CPUs.
"""

from __future__ import annotations

from collections.abc import Sequence

from emptcp.chain import instructions as bpf
from emptcp.chain.instructions import R0, R1, R2, R3, R4, R10
from emptcp.chain.joining import PACKET, Joiner
from emptcp.chain.layout import aligned
from emptcp.chain.plan import FragmentRef, ValueLookup
from emptcp.chain.storage import Store

_LOOKUP, _KTIME = 1, 5
_LOAD = {1: bpf.LDX_B, 2: bpf.LDX_H, 4: bpf.LDX_W, 8: bpf.LDX_DW}
_STORE = {1: bpf.STX_B, 2: bpf.STX_H, 4: bpf.STX_W, 8: bpf.STX_DW}


class Asking(Joiner):
    """A program some of whose stages ask sets or maps."""

    def membership(self, store: Store, name: str) -> None:
        """Answer in r0 whether the packet's key is in a set."""
        asm, number = self.asm, len(self.asm)
        self._look_up_store(store, f"absent{number}", name)
        asm.emit(bpf.MOV64_IMM, R0, imm=1)
        asm.jump(f"asked{number}")
        asm.label(f"absent{number}")
        asm.emit(bpf.MOV64_IMM, R0, imm=0)
        asm.label(f"asked{number}")

    def look_up_values(self, values: Sequence[ValueLookup], size: int, missing: str, name: str) -> None:
        """Copy a struct of ``size`` bytes from r3 into the packet's value, and put in what maps say.

        The copy's address comes in r3. Where a map has no entry it goes to ``missing``.
        """
        asm, place = self.asm, self.binding.packet.parameters
        for offset in range(0, aligned(size), 8):
            asm.emit(bpf.LDX_DW, R2, R3, offset)
            asm.emit(bpf.STX_DW, PACKET, R2, place + offset)
        for value in values:
            self._look_up_store(value.store, missing, name)
            asm.emit(_LOAD[value.size], R1, R0, 8)
            asm.emit(_STORE[value.size], PACKET, R1, place + value.offset)
        asm.emit(bpf.MOV64_REG, R3, PACKET)
        asm.emit(bpf.ADD64_IMM, R3, imm=place)

    def _look_up_store(self, store: Store, missing: str, name: str) -> None:
        """Put the address of the packet's entry into r0; without one that counts go to ``missing``."""
        asm, number = self.asm, len(self.asm)
        self._find_key(store.key, missing, f"{name}, key '{store.key.name}'")
        self.line(f"{name}: look-up in {store.kind} {store.name}")
        asm.emit(bpf.MOV64_REG, R2, PACKET)
        asm.emit(bpf.ADD64_IMM, R2, imm=self.binding.packet.found_key)
        asm.load_map(R1, self.binding.stores[store])
        asm.emit(bpf.CALL, imm=_LOOKUP)
        asm.jump(missing, bpf.JEQ_IMM, R0, 0)
        asm.emit(bpf.LDX_DW, R1, R0)
        asm.jump(f"counts{number}", bpf.JEQ_IMM, R1, 0)
        asm.emit(bpf.STX_DW, R10, R0, self.key)
        asm.emit(bpf.CALL, imm=_KTIME)
        asm.emit(bpf.MOV64_REG, R2, R0)
        asm.emit(bpf.LDX_DW, R0, R10, self.key)
        asm.emit(bpf.LDX_DW, R1, R0)
        asm.emit(bpf.SUB64_REG, R1, R2)
        asm.jump(f"counts{number}", bpf.JSGT_IMM, R1, 0)
        asm.jump(missing)
        asm.label(f"counts{number}")

    def _find_key(self, fragment: FragmentRef, missing: str, name: str) -> None:
        """Let a key's fragment write the packet's key; where there is none go to ``missing``."""
        asm = self.asm
        self.make_ready(fragment)
        self.nothing(fragment, R3)
        self.other_arguments(fragment)
        asm.emit(bpf.MOV64_REG, R4, PACKET)
        asm.emit(bpf.ADD64_IMM, R4, imm=self.binding.packet.found_key)
        self.run_fragment(fragment, f"key{len(asm)}", name)
        asm.jump(missing, bpf.JEQ32_IMM, R0, 0)
