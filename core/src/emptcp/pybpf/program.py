# SPDX-License-Identifier: Apache-2.0
"""Programs: load instructions, ask the kernel about them, run them on a packet without attaching."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from emptcp.pybpf import descriptor, kinds
from emptcp.pybpf.errors import failed
from emptcp.pybpf.libbpf import Library, collect, library
from emptcp.pybpf.map import kernel_name
from emptcp.pybpf.verifier import Line, VerifierError, keep_log

BPF_F_TEST_XDP_LIVE_FRAMES = 1 << 1
BPF_STATS_RUN_TIME = 0
INSTRUCTION = 8
LOG_SIZE = 16 << 20
_rooms = threading.local()


def log_room() -> Any:
    """Return this thread's room for a verifier's log, emptied, of LOG_SIZE bytes.

    One for all: pieces of this size, made and freed with each object, leave a heap that grows.
    """
    if not hasattr(_rooms, "log"):
        _rooms.log = library().ffi.new("char[]", LOG_SIZE)
    _rooms.log[0] = b"\0"
    return _rooms.log


@dataclass(frozen=True)
class ProgramInfo:
    """What the kernel says about a program. Times are nanoseconds and need statistics switched on."""

    kind: str
    id: int
    name: str
    tag: str
    map_ids: tuple[int, ...]
    instructions: int
    jited: int
    verified_instructions: int
    run_time: int
    run_count: int
    uid: int
    btf_id: int
    load_time: int


@dataclass(frozen=True)
class TestRun:
    """The outcome of a test run: the program's answer, the packet and context after it, ns per run."""

    __test__ = False

    retval: int
    data: bytes
    ctx: bytes
    duration_ns: int


class Program(descriptor.Descriptor):
    """A program in the kernel."""

    what = "program"

    @classmethod
    def from_id(cls, number: int) -> Self:
        """Open the program with this id.

        :raises BpfError: there is none.
        """
        return cls(descriptor.by_id("bpf_prog_get_fd_by_id", number, cls.what))

    @property
    def info(self) -> ProgramInfo:
        """What the kernel says about the program now."""
        opened = library()
        info = descriptor.information(self.fd, "bpf_prog_info", self.what)
        # With no room given the kernel answers only how much is needed.
        again = opened.ffi.new("struct bpf_prog_info *")
        maps = opened.ffi.new("uint32_t[]", max(info.nr_map_ids, 1))
        again.nr_map_ids = info.nr_map_ids
        again.map_ids = int(opened.ffi.cast("uintptr_t", maps))
        descriptor.fill_information(self.fd, again, self.what)
        return _program_info(opened, again, tuple(maps[0 : min(info.nr_map_ids, again.nr_map_ids)]))

    @property
    def id(self) -> int:
        """The kernel's number of the program."""
        return int(descriptor.information(self.fd, "bpf_prog_info", self.what).id)

    def duplicate(self) -> Program:
        """Return another owner of the same program."""
        return Program(os.dup(self.fd))

    def test_run(
        self,
        data: bytes,
        *,
        ctx: bytes | None = None,
        repeat: int = 1,
        size_out: int | None = None,
        live_frames: bool = False,
        batch_size: int = 64,
    ) -> TestRun:
        """Run the program on a packet (``BPF_PROG_TEST_RUN``).

        :param data: the packet from its first byte; at TC at least 14 bytes.
        :param ctx: a ``struct xdp_md`` or ``struct __sk_buff`` to begin with; ``TestRun.ctx`` is what
            became of it.
        :param repeat: runs; changes to the packet add up. With ``live_frames`` the number of frames.
        :param size_out: room for the packet after the run, by default the packet and 512 bytes.
        :param live_frames: act on the verdict: XDP frames go into the stack of this thread's namespace, or
            out.
        :param batch_size: frames per batch of ``live_frames``.
        :raises BpfError: the kernel refuses, for one because it does not know live frames.
        """
        opened = library()
        room = _Room(opened, data, ctx, size_out, live_frames)
        opts = room.options(repeat)
        if live_frames:
            opts.flags, opts.batch_size = BPF_F_TEST_XDP_LIVE_FRAMES, batch_size
        code = opened.function("bpf_prog_test_run_opts")(self.fd, opts)
        if code < 0:
            raise failed(f"cannot test-run the program on {len(data)} bytes", code)
        return room.outcome(opts)


class Statistics(descriptor.Descriptor):
    """As long as one is open, the kernel counts runs and time of every program (:class:`ProgramInfo`)."""

    what = "statistics"

    @classmethod
    def switch_on(cls) -> Self:
        """Let the kernel count from now on.

        :raises BpfError: it is older than Linux 5.8, or has no statistics.
        """
        code = library().function("bpf_enable_stats")(BPF_STATS_RUN_TIME)
        if code < 0:
            raise failed("cannot switch on the kernel's statistics of programs", code)
        return cls(code)


class _Room:
    """The buffers of one test run."""

    def __init__(
        self, opened: Library, data: bytes, ctx: bytes | None, size_out: int | None, live_frames: bool
    ) -> None:
        ffi = opened.ffi
        self._opened, self._data, self._ctx = opened, bytes(data), ctx
        # Live frames leave nothing to look at, and the kernel refuses room for it.
        size = 0 if live_frames else (len(data) + 512 if size_out is None else size_out)
        self.out = ffi.new("char[]", size) if size else ffi.NULL
        self.size = size
        self.ctx_out = ffi.new("char[]", len(ctx)) if ctx and not live_frames else ffi.NULL
        self._in = ffi.from_buffer(self._data)
        self._ctx_in = ffi.from_buffer(bytes(ctx)) if ctx else ffi.NULL

    def options(self, repeat: int) -> Any:
        size = len(self._ctx or b"")
        return self._opened.options(
            "bpf_test_run_opts",
            data_in=self._in,
            data_size_in=len(self._data),
            data_out=self.out,
            data_size_out=self.size,
            ctx_in=self._ctx_in,
            ctx_size_in=size,
            ctx_out=self.ctx_out,
            ctx_size_out=size if self.ctx_out else 0,
            repeat=repeat,
        )

    def outcome(self, opts: Any) -> TestRun:
        ffi = self._opened.ffi
        data = bytes(ffi.buffer(self.out, opts.data_size_out)) if self.size else b""
        ctx = bytes(ffi.buffer(self.ctx_out, opts.ctx_size_out)) if self.ctx_out else b""
        return TestRun(opts.retval, data, ctx, opts.duration)


def load_program(
    kind: str,
    instructions: bytes,
    *,
    name: str = "",
    license: str = "Dual BSD/GPL",
    btf: int | None = None,
    func_info: bytes = b"",
    line_info: bytes = b"",
    expected_attach_type: int = 0,
    attach_btf_id: int = 0,
    flags: int = 0,
    ifindex: int = 0,
    log_level: int = 0,
    lines: Sequence[Line] = (),
    write_log: bool = True,
) -> Program:
    """Load instructions (8 bytes each) as a program.

    :param kind: as in ``kinds.PROGRAMS``: ``xdp``, ``sched_cls``, ``sock_ops``, ``tracing`` ..
    :param btf: descriptor of a loaded BTF for ``func_info`` (8 bytes a record) and ``line_info`` (16 bytes).
    :param log_level: 0: the verifier's log is fetched only when it refuses.
    :param lines: where the instructions come from, for the error.
    :param write_log: whether a refusal leaves the verifier's whole log in a file, which the error names.
    :raises VerifierError: the verifier refuses; its whole log is ``error.log``.
    :raises BpfError: the kernel refuses before it looks at the instructions.
    """
    opened = library()
    number = kinds.number(kinds.PROGRAMS, "program", kind)
    # The buffers must live as long as the call.
    infos = (opened.ffi.from_buffer(func_info), opened.ffi.from_buffer(line_info))
    opts = opened.options(
        "bpf_prog_load_opts",
        expected_attach_type=expected_attach_type,
        prog_flags=flags,
        prog_ifindex=ifindex,
        attach_btf_id=attach_btf_id,
    )
    if btf is not None:
        opts.prog_btf_fd = btf
        opts.func_info, opts.func_info_cnt, opts.func_info_rec_size = infos[0], len(func_info) // 8, 8
        opts.line_info, opts.line_info_cnt, opts.line_info_rec_size = infos[1], len(line_info) // 16, 16
    return _load(
        opened, _Request(number, kind, name, license, bytes(instructions), lines, write_log), opts, log_level
    )


@dataclass(frozen=True)
class _Request:
    number: int
    kind: str
    name: str
    license: str
    instructions: bytes
    lines: Sequence[Line]
    keep_log: bool


def _load(opened: Library, request: _Request, opts: Any, log_level: int) -> Program:
    first = _try(opened, request, opts) if log_level == 0 else -1
    if first >= 0:
        return Program(first)
    log = log_room()
    opts.log_buf, opts.log_size, opts.log_level = log, LOG_SIZE, log_level or 1
    with collect() as said:
        fd = _try(opened, request, opts)
    if fd >= 0:
        return Program(fd)
    text = opened.text(log)
    if not text:
        raise failed(f"cannot load the {request.kind} program '{request.name}'", fd, log="\n".join(said))
    file = keep_log(request.name, text) if request.keep_log else None
    what = f"the {request.kind} program '{request.name}'"
    raise VerifierError(what, errno=-fd, log=text, lines=request.lines, log_file=file)


def _try(opened: Library, request: _Request, opts: Any) -> int:
    code = opened.function("bpf_prog_load")(
        request.number,
        kernel_name(request.name),
        request.license.encode(),
        request.instructions,
        len(request.instructions) // INSTRUCTION,
        opts,
    )
    return int(code)


def _program_info(opened: Library, info: Any, maps: tuple[int, ...]) -> ProgramInfo:
    return ProgramInfo(
        kind=kinds.name(kinds.PROGRAMS, info.type),
        id=info.id,
        name=opened.text(info.name),
        tag=bytes(info.tag).hex(),
        map_ids=maps,
        instructions=info.xlated_prog_len // INSTRUCTION,
        jited=info.jited_prog_len,
        verified_instructions=info.verified_insns,
        run_time=info.run_time_ns,
        run_count=info.run_cnt,
        uid=info.created_by_uid,
        btf_id=info.btf_id,
        load_time=info.load_time,
    )
