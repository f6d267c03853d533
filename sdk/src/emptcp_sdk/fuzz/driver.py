# SPDX-License-Identifier: Apache-2.0
"""Run one program on many packets: buffers are made once, and the program's maps are read as memory."""

from __future__ import annotations

import mmap
from dataclasses import dataclass

from emptcp.pybpf import Map, Program
from emptcp.pybpf.errors import failed
from emptcp.pybpf.libbpf import library

ROOM = 4096


@dataclass(frozen=True, slots=True)
class Ran:
    """What the program answered, and the packet that it left."""

    answer: int
    data: bytes


class Driver:
    """One program and the buffers for its packets."""

    def __init__(self, program: Program) -> None:
        opened = library()
        self._ffi = opened.ffi
        self._call = opened.function("bpf_prog_test_run_opts")
        self._program = program
        self._in, self._out = self._ffi.new("char[]", ROOM), self._ffi.new("char[]", ROOM)
        self._ctx = self._ffi.new("char[]", 256)
        self._opts = opened.options("bpf_test_run_opts", data_in=self._in, data_out=self._out, repeat=1)
        self.runs = 0

    def run(self, packet: bytes, ctx: bytes = b"") -> Ran:
        """Run the program once.

        :raises BpfError: the kernel takes no such packet or context for a trial.
        """
        opts = self._opts
        self._ffi.memmove(self._in, packet, len(packet))
        opts.data_size_in, opts.data_size_out = len(packet), ROOM
        opts.ctx_in, opts.ctx_size_in = (self._ctx, len(ctx)) if ctx else (self._ffi.NULL, 0)
        if ctx:
            self._ffi.memmove(self._ctx, ctx, len(ctx))
        code = self._call(self._program.fd, opts)
        if code < 0:
            raise failed(f"cannot test-run the program on {len(packet)} bytes", code)
        self.runs += 1
        return Ran(opts.retval, bytes(self._ffi.buffer(self._out, opts.data_size_out)))


def memory(of: Map, size: int) -> mmap.mmap:
    """Return the first ``size`` bytes of an array map with ``BPF_F_MMAPABLE`` as memory."""
    return mmap.mmap(of.fd, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE)
