# SPDX-License-Identifier: Apache-2.0
"""XDP programs without links, for kernels before 5.9: by netlink, replaced only where the expected one is."""

from __future__ import annotations

import errno

from emptcp.pybpf.errors import BpfError, failed
from emptcp.pybpf.libbpf import collect, library
from emptcp.pybpf.link import XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE
from emptcp.pybpf.program import Program

_IF_NOEXIST = 1 << 0
_NO_PROGRAM = -1


def put(ifindex: int, program: Program, *, native: bool, old: Program | None = None) -> None:
    """Attach a program to a device of this thread's namespace, or replace the old one between two packets.

    :raises BpfError: the driver refuses, or another program than the old one is there.
    """
    _set(ifindex, program.fd, native, old)


def take(ifindex: int, program: Program, *, native: bool) -> None:
    """Detach a program if it is the one that is there.

    :raises BpfError: it is not.
    """
    _set(ifindex, _NO_PROGRAM, native, program)


def _set(ifindex: int, descriptor: int, native: bool, old: Program | None) -> None:
    opened = library()
    mode = XDP_FLAGS_DRV_MODE if native else XDP_FLAGS_SKB_MODE
    opts = opened.options("bpf_xdp_attach_opts", old_prog_fd=old.fd if old else 0)
    with collect() as said:
        code = opened.function("bpf_xdp_attach")(
            ifindex, descriptor, mode | (0 if old else _IF_NOEXIST), opts
        )
    if code == 0:
        return
    # libbpf passes the kernel's extended answer on as a message.
    heard = [line.rsplit("Kernel error message: ", 1)[1] for line in said if "Kernel error message: " in line]
    if heard and code not in (-errno.EBUSY, -errno.EEXIST):
        raise BpfError(heard[-1], errno=-code)
    raise failed(f"cannot attach the program to device {ifindex} (xdp)", code)
