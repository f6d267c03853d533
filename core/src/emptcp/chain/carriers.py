# SPDX-License-Identifier: Apache-2.0
"""What carries the chain context from one stage of the engine ``tail`` to the next.

:class:`PerCpu`: the entries stay in the parameter map, and the place among them travels in the per-CPU value
of the parsed packet.

:class:`Metadata`, at XDP, as in the paper: the root pushes all entries in front of the packet, each stage
finds its own first and pops it and those that are skipped, and what is left is popped before the packet
leaves. A packet for which the driver has no room there, or which has somebody else's metadata, goes on as
with :class:`PerCpu`: ``emptcp_pkt.kept`` tells the two apart.

:class:`ControlBlock`, at TC: ``skb->cb`` has five words, too few for entries, so the place travels in the
first, which gets its old value back before the packet leaves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from emptcp.chain import context
from emptcp.chain import instructions as bpf
from emptcp.chain.instructions import R0, R1, R2, R3, R4, R5, R10
from emptcp.chain.joining import CONTEXT, PACKET
from emptcp.errors import EmptcpError
from emptcp.pybpf import features

if TYPE_CHECKING:
    from emptcp.chain.joining import Joiner

_TAIL_CALL, _ADJUST_META = 12, 54
_DATA, _DATA_META = 0, 8
"""Offsets in ``struct xdp_md``."""
_CB = 48
"""Offset of ``cb[0]`` in ``struct __sk_buff``."""

MOST_DIRECT = 8
"""Programs that are called by a number in the code: each takes a comparison of those behind it."""

LONG_METADATA, SHORT_METADATA = 192, 32
"""Bytes. Newer kernels allow 252, but the usual headroom of 256 also holds ``struct xdp_frame``."""


@dataclass(frozen=True)
class Tables:
    """Where the chain context stands in the parameter map, and the maps that only this engine has.

    ``count`` entries, and ``choices`` words of the matrix of chosen chains. ``programs`` is the array of
    ``variants`` programs.
    """

    offset: int
    count: int
    choices: int
    parameters_size: int
    programs: int
    variants: int
    flows: int

    @property
    def about(self) -> int:
        """Offset of the second table."""
        return self.offset + 4 * self.count

    @property
    def rows(self) -> int:
        """Offset of the table that tells which row of the matrix of chosen chains is a stage's."""
        return self.about + 4 * self.count

    @property
    def distances(self) -> int:
        """Offset of that matrix."""
        return self.rows + 4 * self.count


class PerCpu:
    """The place travels in ``emptcp_pkt.entry``."""

    def __init__(self, joiner: Joiner, tables: Tables) -> None:
        self.joiner = joiner
        self.tables = tables
        self.asm = joiner.asm
        self.packet = joiner.binding.packet

    def begin(self) -> None:
        """In the root, before :meth:`go`: put the context where it travels."""

    def find(self) -> None:
        """In a stage: keep its place and its entry; r0 is the parsed packet."""
        self.load_place()
        self._keep_from_map()

    def load_place(self) -> None:
        """Load the place into r1; r0 is the parsed packet."""
        self.asm.emit(bpf.LDX_W, R1, R0, self.packet.entry)

    def go(self) -> None:
        """Call the stage after entry r1 of the context, which the verifier knows to be one; else leave."""
        asm = self.asm
        asm.emit(bpf.MOV64_REG, R2, R1)
        asm.emit(bpf.LSH64_IMM, R2, imm=2)
        asm.load_map_value(R3, self.joiner.binding.maps.parameters, self.tables.offset)
        asm.emit(bpf.ADD64_REG, R3, R2)
        asm.emit(bpf.LDX_B, R3, R3)
        asm.jump("leave", bpf.JEQ_IMM, R3, context.LAST)
        asm.emit(bpf.ADD64_IMM, R1, imm=1)
        self.store_place()
        self.call()

    def store_place(self) -> None:
        """Store place r1; r3 is kept."""
        self.asm.emit(bpf.STX_W, PACKET, R1, self.packet.entry)

    def call(self) -> None:
        """Call program r3 of the array; if there is none, the packet leaves.

        The kernel makes a plain jump of a call whose number stands in the code. One by a register goes
        through a retpoline, where the processor needs these.
        """
        asm = self.asm
        for number in range(min(self.tables.variants, MOST_DIRECT)):
            other = f"not {number} of {len(asm)}"
            asm.jump(other, bpf.JNE_IMM, R3, number)
            asm.emit(bpf.MOV64_IMM, R3, imm=number)
            self._tail_call()
            asm.label(other)
        self._tail_call()

    def _tail_call(self) -> None:
        self.asm.emit(bpf.MOV64_REG, R1, CONTEXT)
        self.asm.load_map(R2, self.tables.programs)
        self.asm.emit(bpf.CALL, imm=_TAIL_CALL)
        self.asm.jump("leave")

    def remove(self, way: str) -> None:
        """On a way out: take the context away."""

    def _keep_from_map(self) -> None:
        asm = self.asm
        asm.jump("pass", bpf.JGT_IMM, R1, self.tables.count - 1)
        asm.emit(bpf.STX_DW, R10, R1, self.joiner.place)
        self.keep_word(self.tables.offset, self.joiner.entry)

    def keep_word(self, offset: int, slot: int) -> None:
        """Keep word r1 of a table in a stack slot; r2 is used."""
        asm = self.asm
        asm.emit(bpf.MOV64_REG, R3, R1)
        asm.emit(bpf.LSH64_IMM, R3, imm=2)
        asm.load_map_value(R2, self.joiner.binding.maps.parameters, offset)
        asm.emit(bpf.ADD64_REG, R2, R3)
        asm.emit(bpf.LDX_W, R2, R2)
        asm.emit(bpf.STX_DW, R10, R2, slot)


class Metadata(PerCpu):
    """The entries travel in front of an XDP packet."""

    def begin(self) -> None:
        """Push all entries, unless there is somebody's metadata or no room."""
        asm, size = self.asm, 4 * self.tables.count
        asm.emit(bpf.ST_W, PACKET, 0, self.packet.kept, 0)
        self._ends()
        asm.emit(bpf.SUB64_REG, R3, R2)
        asm.jump("begun", bpf.JNE_IMM, R3, 0)
        asm.emit(bpf.MOV64_REG, R1, CONTEXT)
        asm.emit(bpf.MOV64_IMM, R2, imm=-size)
        asm.emit(bpf.CALL, imm=_ADJUST_META)
        asm.jump("begun", bpf.JNE_IMM, R0, 0)
        self._ends()
        asm.emit(bpf.MOV64_REG, R4, R2)
        asm.emit(bpf.ADD64_IMM, R4, imm=size)
        asm.jump("leave", bpf.JGT_REG, R4, src=R3)
        asm.load_map_value(R4, self.joiner.binding.maps.parameters, self.tables.offset)
        for word in range(self.tables.count):
            asm.emit(bpf.LDX_W, R5, R4, 4 * word)
            asm.emit(bpf.STX_W, R2, R5, 4 * word)
        asm.emit(bpf.ST_W, PACKET, 0, self.packet.kept, 1)
        asm.label("begun")

    def find(self) -> None:
        """The first entry in front of the packet is the stage's own; how many there are tells its place."""
        asm = self.asm
        asm.emit(bpf.LDX_W, R1, R0, self.packet.kept)
        asm.jump("not carried", bpf.JEQ_IMM, R1, 0)
        self._ends()
        asm.emit(bpf.MOV64_REG, R4, R3)
        asm.emit(bpf.SUB64_REG, R4, R2)
        asm.emit(bpf.RSH64_IMM, R4, imm=2)
        asm.emit(bpf.MOV64_IMM, R1, imm=self.tables.count)
        asm.emit(bpf.SUB64_REG, R1, R4)
        asm.jump("pass", bpf.JGT_IMM, R1, self.tables.count - 1)
        asm.emit(bpf.STX_DW, R10, R1, self.joiner.place)
        asm.emit(bpf.MOV64_REG, R4, R2)
        asm.emit(bpf.ADD64_IMM, R4, imm=4)
        asm.jump("pass", bpf.JGT_REG, R4, src=R3)
        asm.emit(bpf.LDX_W, R2, R2)
        asm.emit(bpf.STX_DW, R10, R2, self.joiner.entry)
        asm.jump("carried")
        asm.label("not carried")
        super().find()
        asm.label("carried")

    def go(self) -> None:
        """Pop up to behind entry r1, and call what it tells."""
        asm = self.asm
        asm.emit(bpf.LDX_W, R2, PACKET, self.packet.kept)
        asm.jump("go per cpu", bpf.JEQ_IMM, R2, 0)
        asm.emit(bpf.MOV64_REG, R0, R1)
        self._ends()
        asm.emit(bpf.MOV64_REG, R4, R3)
        asm.emit(bpf.SUB64_REG, R4, R2)
        # r0 becomes how many entries lie before that one: its place less the first one's.
        asm.emit(bpf.RSH64_IMM, R4, imm=2)
        asm.emit(bpf.ADD64_REG, R0, R4)
        asm.emit(bpf.ADD64_IMM, R0, imm=-self.tables.count)
        asm.jump("leave", bpf.JGT_IMM, R0, self.tables.count - 1)
        asm.emit(bpf.LSH64_IMM, R0, imm=2)
        asm.emit(bpf.ADD64_REG, R2, R0)
        asm.emit(bpf.MOV64_REG, R4, R2)
        asm.emit(bpf.ADD64_IMM, R4, imm=4)
        asm.jump("leave", bpf.JGT_REG, R4, src=R3)
        asm.emit(bpf.LDX_B, R3, R2)
        asm.jump("leave", bpf.JEQ_IMM, R3, context.LAST)
        asm.emit(bpf.STX_DW, R10, R3, self.joiner.key)
        asm.emit(bpf.MOV64_REG, R1, CONTEXT)
        asm.emit(bpf.MOV64_REG, R2, R0)
        asm.emit(bpf.ADD64_IMM, R2, imm=4)
        asm.emit(bpf.CALL, imm=_ADJUST_META)
        asm.jump("leave", bpf.JNE_IMM, R0, 0)
        asm.emit(bpf.LDX_DW, R3, R10, self.joiner.key)
        self.call()
        asm.label("go per cpu")
        super().go()

    def remove(self, way: str) -> None:
        """Pop what is left."""
        asm = self.asm
        asm.emit(bpf.LDX_W, R2, PACKET, self.packet.kept)
        asm.jump(f"bare {way}", bpf.JEQ_IMM, R2, 0)
        self._ends()
        asm.emit(bpf.SUB64_REG, R3, R2)
        asm.emit(bpf.MOV64_REG, R2, R3)
        asm.emit(bpf.CALL, imm=_ADJUST_META)
        asm.label(f"bare {way}")

    def _ends(self) -> None:
        """Load where metadata begins into r2, where it ends into r3; r1 is the context."""
        self.asm.emit(bpf.MOV64_REG, R1, CONTEXT)
        self.asm.emit(bpf.LDX_W, R2, R1, _DATA_META)
        self.asm.emit(bpf.LDX_W, R3, R1, _DATA)


class ControlBlock(PerCpu):
    """The place travels in ``skb->cb``."""

    def begin(self) -> None:
        """Keep what stands there."""
        asm = self.asm
        asm.emit(bpf.LDX_W, R2, CONTEXT, _CB)
        asm.emit(bpf.STX_W, PACKET, R2, self.packet.kept)

    def load_place(self) -> None:
        """See :meth:`PerCpu.load_place`."""
        self.asm.emit(bpf.LDX_W, R1, CONTEXT, _CB)

    def store_place(self) -> None:
        """See :meth:`PerCpu.store_place`."""
        self.asm.emit(bpf.STX_W, CONTEXT, R1, _CB)

    def remove(self, way: str) -> None:
        """Put back what stood there."""
        asm = self.asm
        asm.emit(bpf.LDX_W, R2, PACKET, self.packet.kept)
        asm.emit(bpf.STX_W, CONTEXT, R2, _CB)


def carrier(metadata: bool, joiner: Joiner, tables: Tables) -> PerCpu:
    """Return the carrier of a program, by what the table asks for and the back-end."""
    if not metadata:
        return PerCpu(joiner, tables)
    kinds = {"xdp": Metadata, "tc": ControlBlock}
    return kinds[joiner.binding.backend](joiner, tables)


def check_room(entries: int, backend: str) -> None:
    """Raise :class:`EmptcpError` when so many entries don't fit in front of an XDP packet on this kernel."""
    room = LONG_METADATA if features.has("long_metadata") else SHORT_METADATA
    if backend == "xdp" and 4 * entries > room:
        raise EmptcpError(
            f"a chain context of {entries} entries takes {4 * entries} bytes, and this kernel has room for "
            f"{room} in front of a packet",
            fix='Use fewer stages on this device, or tail.carrier = "per-cpu".',
        )
