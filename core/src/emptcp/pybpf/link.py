# SPDX-License-Identifier: Apache-2.0
"""Links: an attachment as an object that can be pinned, updated atomically and taken away.

Everything goes through ``bpf_link_create``, which libbpf passes on for attach types newer than itself (TCX on
libbpf 1.1), so no version of libbpf limits what a kernel can do.
"""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import dataclass
from typing import Any, Self

from emptcp.pybpf import descriptor, kinds
from emptcp.pybpf.errors import BpfError, failed
from emptcp.pybpf.libbpf import library
from emptcp.pybpf.program import Program

XDP_FLAGS_SKB_MODE = 1 << 1
XDP_FLAGS_DRV_MODE = 1 << 2
BPF_F_REPLACE = 1 << 2
BPF_F_BEFORE = 1 << 3

_READ = 1 << 16
_READ_LIMIT = 1 << 28


@dataclass(frozen=True)
class LinkInfo:
    """What the kernel says about a link.

    ``ifindex`` is 0 for kinds without a device and when the device is gone; ``attach`` names the attach
    type where the kernel tells it; ``cgroup_id`` is the cgroup's inode number.
    """

    kind: str
    id: int
    program_id: int
    ifindex: int = 0
    attach: str = ""
    cgroup_id: int = 0


class Link(descriptor.Descriptor):
    """An attachment. It ends with its last descriptor or pin."""

    what = "link"

    @classmethod
    def attach_xdp(cls, program: Program, ifindex: int, native: bool = True) -> Self:
        """Attach to a device of this thread's namespace as XDP.

        :param native: in the driver, else generically.

        :raises BpfError: the device or its driver refuses, or another program is there.
        """
        mode = XDP_FLAGS_DRV_MODE if native else XDP_FLAGS_SKB_MODE
        return cls._create(program, ifindex, "xdp", f"device {ifindex}", flags=mode)

    @classmethod
    def attach_tcx(cls, program: Program, ifindex: int, ingress: bool, *, first: bool = False) -> Self:
        """Attach to a device of this thread's namespace at TC (kernel 6.6).

        :param first: run before the programs that are there, else behind them.

        :raises BpfError: the kernel has no TCX, or refuses.
        """
        where = "tcx_ingress" if ingress else "tcx_egress"
        return cls._create(program, ifindex, where, f"device {ifindex}", flags=BPF_F_BEFORE if first else 0)

    @classmethod
    def attach_cgroup(cls, program: Program, cgroup_fd: int, attach: str = "cgroup_sock_ops") -> Self:
        """Attach to a cgroup (v2) beside the programs that are there.

        :raises BpfError: the kernel refuses.
        """
        return cls._create(program, cgroup_fd, attach, "the cgroup")

    @classmethod
    def attach_iter(cls, program: Program) -> Self:
        """Make an iterator of a program loaded for one; see :meth:`read`.

        :raises BpfError: the kernel refuses.
        """
        return cls._create(program, 0, "trace_iter", "the iterator")

    @classmethod
    def attach_raw_tracepoint(cls, program: Program, tracepoint: str) -> Self:
        """Attach to a raw tracepoint by its event's name.

        :raises BpfError: the kernel has no such tracepoint, or refuses.
        """
        fd = library().function("bpf_raw_tracepoint_open")(tracepoint.encode(), program.fd)
        if fd < 0:
            raise failed(f"cannot attach the program to the tracepoint {tracepoint}", fd)
        return cls(fd)

    @classmethod
    def _create(cls, program: Program, target: int, attach: str, where: str, flags: int = 0) -> Self:
        opened = library()
        opts = opened.options("bpf_link_create_opts", flags=flags)
        number = kinds.number(kinds.ATTACH, "attachment", attach)
        fd = opened.function("bpf_link_create")(program.fd, target, number, opts)
        if fd < 0:
            raise failed(f"cannot attach the program to {where} ({attach})", fd)
        return cls(fd)

    @classmethod
    def from_id(cls, number: int) -> Self:
        """Open the link with this id.

        :raises BpfError: there is none.
        """
        return cls(descriptor.by_id("bpf_link_get_fd_by_id", number, cls.what))

    def duplicate(self) -> Link:
        """Return another owner of the same link."""
        return Link(os.dup(self.fd))

    @property
    def info(self) -> LinkInfo:
        """What the kernel says about the link now."""
        info = descriptor.information(self.fd, "bpf_link_info", self.what)
        kind = kinds.LINKS.get(info.type, f"kind {info.type}")
        return LinkInfo(kind, info.id, info.prog_id, **_place(kind, bytes(library().ffi.buffer(info.rest))))

    @property
    def id(self) -> int:
        """The kernel's number of the link."""
        return self.info.id

    def update(self, program: Program, old: Program | None = None) -> None:
        """Put another program in place of the link's, between two packets.

        :param old: only if this is the one that is there now.
        :raises BpfError: it is not, the programs don't fit, or the device is gone.
        """
        opened = library()
        opts = opened.options("bpf_link_update_opts")
        if old is not None:
            opts.flags, opts.old_prog_fd = BPF_F_REPLACE, old.fd
        code = opened.function("bpf_link_update")(self.fd, program.fd, opts)
        if code == -errno.EPERM and old is not None:
            raise BpfError(
                f"link {self.id} was switched to another program meanwhile",
                errno=errno.EPERM,
                fix="Try again.",
            )
        if code < 0:
            raise failed("cannot switch the link to the new program", code)

    def detach(self) -> None:
        """End the attachment at once, although descriptors and pins remain.

        :raises BpfError: this kind can't be detached.
        """
        code = library().function("bpf_link_detach")(self.fd)
        if code < 0:
            raise failed("cannot detach the link", code)

    @staticmethod
    def unpin(path: str | os.PathLike[str]) -> None:
        """Remove a pin; the attachment ends if nothing else holds it."""
        os.unlink(path)

    def read(self) -> bytes:
        """Run an iterator once and return what its program wrote.

        :raises BpfError: the link is no iterator, or the program wrote over 256 MiB.
        """
        fd = library().function("bpf_iter_create")(self.fd)
        if fd < 0:
            raise failed("cannot run the iterator", fd)
        try:
            return _read_all(fd)
        finally:
            os.close(fd)


def _read_all(fd: int) -> bytes:
    parts: list[bytes] = []
    total = 0
    while total < _READ_LIMIT:
        part = os.read(fd, _READ)
        if not part:
            return b"".join(parts)
        parts.append(part)
        total += len(part)
    raise BpfError(f"the iterator wrote more than {_READ_LIMIT >> 20} MiB")


def _place(kind: str, rest: bytes) -> dict[str, Any]:
    """Return the fields of ``struct bpf_link_info``'s union that a kind has."""
    if kind == "xdp":
        return {"ifindex": struct.unpack_from("<I", rest)[0], "attach": "xdp"}
    if kind == "tcx":
        ifindex, attach = struct.unpack_from("<II", rest)
        return {"ifindex": ifindex, "attach": kinds.name(kinds.ATTACH, attach)}
    if kind == "cgroup":
        cgroup_id, attach = struct.unpack_from("<QI", rest)
        return {"cgroup_id": cgroup_id, "attach": kinds.name(kinds.ATTACH, attach)}
    return {}
