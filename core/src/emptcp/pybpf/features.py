# SPDX-License-Identifier: Apache-2.0
"""What this kernel, with this libbpf and these rights, can do: found by trying, once per process.

``EMPTCP_DISABLE=tcx,batch`` makes features look absent, to try how emptcp does without them.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path

from emptcp.pybpf import kinds
from emptcp.pybpf.assembly import EXIT, answer, call, instruction, move, move_register
from emptcp.pybpf.errors import BpfError, failed, meaning
from emptcp.pybpf.feature_table import FEATURES
from emptcp.pybpf.libbpf import library
from emptcp.pybpf.link import Link
from emptcp.pybpf.loaded_btf import load_btf
from emptcp.pybpf.map import BPF_F_MMAPABLE, Map
from emptcp.pybpf.program import Program, load_program

SO_NETNS_COOKIE = 71
_NO_DEVICE = 0x7FFFFFFF
_LOOPBACK = 1
_SOL_SOCKET, _SO_MAX_PACING_RATE, _BPF_SETSOCKOPT, _BPF_LOOP = 1, 47, 49, 181
_XDP_ADJUST_META = 54
_TRACEPOINT = "bpf_xdp_link_attach_failed"


def has(name: str) -> bool:
    """Return whether a feature of ``FEATURES`` is there.

    :raises BpfError: there is no feature of that name.
    """
    return not reason(name)


def reason(name: str) -> str:
    """Return why a feature is not there, in words; empty when it is.

    :raises BpfError: there is no feature of that name.
    """
    if name not in FEATURES:
        raise BpfError(f"there is no feature '{name}'", fix=f"Known: {', '.join(FEATURES)}.")
    if name in disabled():
        return "switched off by EMPTCP_DISABLE"
    return _probed(name)


def disabled() -> frozenset[str]:
    """Return the names in ``EMPTCP_DISABLE``."""
    return frozenset(filter(None, (n.strip() for n in os.environ.get("EMPTCP_DISABLE", "").split(","))))


@cache
def _probed(name: str) -> str:
    try:
        _PROBES[name]()
    except BpfError as problem:
        return problem.sentence
    return ""


def _btf() -> None:
    # One type: int, 4 bytes, signed, 32 bits.
    types = struct.pack("<IIII", 1, 1 << 24, 4, 1 << 24 | 32)
    strings = b"\0int\0"
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(strings))
    load_btf(header + types + strings).close()


def _vmlinux_btf() -> None:
    if not Path("/sys/kernel/btf/vmlinux").exists():
        raise BpfError("the kernel was built without its types (CONFIG_DEBUG_INFO_BTF)")


def _xdp_link() -> None:
    # The loopback device has no native XDP, so nothing gets attached: a kernel that knows links says
    # EOPNOTSUPP, an older one EINVAL.
    with load_program("xdp", answer(2), name="emptcp_probe", write_log=False) as program:
        try:
            Link.attach_xdp(program, _LOOPBACK).close()
        except BpfError as problem:
            if problem.errno in (errno.EINVAL, errno.EPERM):
                raise BpfError(
                    "the kernel has no XDP links (they came with 5.9)", errno=problem.errno
                ) from None


def _tcx() -> None:
    opened = library()
    opts = opened.options("bpf_prog_query_opts")
    code = opened.function("bpf_prog_query_opts")(_NO_DEVICE, kinds.ATTACH["tcx_ingress"], opts)
    if code == -errno.EPERM:
        raise failed("cannot ask for TCX", code)
    if code not in (0, -errno.ENODEV):
        raise BpfError("the kernel has no TCX (it came with 6.6)", errno=-code)


def _raw_tracepoint() -> None:
    with load_program("raw_tracepoint", answer(0), name="emptcp_probe", write_log=False) as program:
        Link.attach_raw_tracepoint(program, "sys_enter").close()


def _attach_error() -> None:
    with load_program("raw_tracepoint", answer(0), name="emptcp_probe", write_log=False) as program:
        Link.attach_raw_tracepoint(program, _TRACEPOINT).close()


def _batch() -> None:
    opened = library()
    room = [opened.ffi.new("char[8]") for _ in range(3)]
    count = opened.ffi.new("uint32_t *", 1)
    opts = opened.options("bpf_map_batch_opts")
    with Map.create("hash", 4, 4, 1, name="emptcp_probe") as probe:
        code = opened.function("bpf_map_lookup_batch")(probe.fd, opened.ffi.NULL, *room, count, opts)
    if code not in (0, -errno.ENOENT):
        raise BpfError(f"the kernel has no batch operations: {meaning(code)}", errno=-code)


def _ringbuf() -> None:
    library().function("ring_buffer__new")
    Map.create("ringbuf", 0, 0, os.sysconf("SC_PAGE_SIZE"), name="emptcp_probe").close()


def _mmapable_array() -> None:
    with Map.create("array", 4, 8, 1, flags=BPF_F_MMAPABLE, name="emptcp_probe") as probe:
        probe.mmap().release()


def _live_frames() -> None:
    # XDP_DROP: the frame goes nowhere.
    with load_program("xdp", answer(1), name="emptcp_probe", write_log=False) as program:
        program.test_run(bytes(64), live_frames=True, batch_size=1)


def _bpf_loop() -> None:
    found = library().function("libbpf_probe_bpf_helper")(
        kinds.PROGRAMS["xdp"], _BPF_LOOP, library().ffi.NULL
    )
    if found < 0:
        raise failed("cannot ask for bpf_loop", found)
    if not found:
        raise BpfError("the kernel has no helper bpf_loop")


def _long_metadata() -> None:
    # Answers XDP_PASS where so many bytes could be put in front of the packet; the kernel's own limit is 252.
    code = move(2, -192) + call(_XDP_ADJUST_META) + instruction(0x07, 0, value=2) + EXIT
    with load_program("xdp", code, name="emptcp_probe", write_log=False) as program:
        if program.test_run(bytes(64)).retval != 2:
            raise BpfError("the kernel has 32 bytes of XDP metadata")


def _iterator(instructions: bytes) -> Program:
    opened = library()
    number = opened.function("libbpf_find_vmlinux_btf_id")(b"tcp", kinds.ATTACH["trace_iter"])
    if number < 0:
        raise BpfError("the kernel has no iterator over TCP sockets", errno=-number)
    attach = kinds.ATTACH["trace_iter"]
    return load_program(
        "tracing",
        instructions,
        name="emptcp_probe",
        expected_attach_type=attach,
        attach_btf_id=number,
        write_log=False,
    )


def _bpf_iter_tcp() -> None:
    with _iterator(answer(0)) as program:
        Link.attach_iter(program).close()


def _bpf_iter_setsockopt() -> None:
    leave = 8
    instructions = (
        instruction(0x79, dst=1, src=1, offset=8)  # r1 = ctx->sk_common
        + instruction(0x15, dst=1, offset=leave)  # if it is NULL, leave
        + instruction(0x7A, dst=10, offset=-8)  # *(u64 *)(fp - 8) = 0
        + move(2, _SOL_SOCKET)
        + move(3, _SO_MAX_PACING_RATE)
        + move_register(4, 10)
        + instruction(0x07, dst=4, value=-8)
        + move(5, 4)
        + call(_BPF_SETSOCKOPT)
        + instruction(0x05)
        + move(0, 0)
        + EXIT
    )
    _iterator(instructions).close()


def _sock_ops() -> None:
    attach = kinds.ATTACH["cgroup_sock_ops"]
    load_program(
        "sock_ops", answer(1), name="emptcp_probe", expected_attach_type=attach, write_log=False
    ).close()


def _netns_cookie() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)
        except OSError:
            raise BpfError("the kernel tells no cookies of network namespaces") from None


_PROBES: dict[str, Callable[[], None]] = {
    "btf": _btf,
    "vmlinux_btf": _vmlinux_btf,
    "xdp_link": _xdp_link,
    "tcx": _tcx,
    "raw_tracepoint": _raw_tracepoint,
    "attach_error": _attach_error,
    "batch": _batch,
    "ringbuf": _ringbuf,
    "mmapable_array": _mmapable_array,
    "live_frames": _live_frames,
    "bpf_loop": _bpf_loop,
    "long_metadata": _long_metadata,
    "bpf_iter_tcp": _bpf_iter_tcp,
    "bpf_iter_setsockopt": _bpf_iter_setsockopt,
    "sock_ops": _sock_ops,
    "netns_cookie": _netns_cookie,
}
