# SPDX-License-Identifier: Apache-2.0
"""The features of a kernel that emptcp asks for, and what it does where one is missing."""

from __future__ import annotations

from dataclasses import dataclass

from emptcp.pybpf.since import Version, text


@dataclass(frozen=True)
class Feature:
    """Something that a kernel has or has not.

    ``since`` is the kernel it came with, ``None`` where the configuration decides. ``otherwise`` is what
    emptcp does without it; empty: what needs it is refused, with the feature's name. ``lesser``: that is less
    than what the feature gives; else nothing is lost but time (`tox -e kernel-fallbacks`).
    """

    what: str
    since: Version | None = None
    otherwise: str = ""
    lesser: bool = False

    def __str__(self) -> str:
        return f"{self.what} ({text(self.since)})" if self.since else self.what


_ERRNO = "a refusal is explained by the kernel's error number"
_POLICED = "rates are policed, not paced"

FEATURES = {
    "btf": Feature("type information of programs and maps", (4, 18)),
    "vmlinux_btf": Feature("the kernel's own types, which CO-RE and iterators need"),
    "xdp_link": Feature(
        "XDP attached by a link that can be updated atomically", (5, 9), "XDP is attached by netlink"
    ),
    "tcx": Feature("TC programs attached by a link", (6, 6), "TC programs are attached by a clsact filter"),
    "raw_tracepoint": Feature("programs on raw tracepoints", None, _ERRNO),
    "attach_error": Feature("the driver's own sentence when it refuses XDP", (6, 5), _ERRNO),
    "batch": Feature("many map entries per system call", (5, 6), "maps are read and written entry by entry"),
    "ringbuf": Feature("ring buffers for events", (5, 8)),
    "mmapable_array": Feature(
        "parameters written through mapped memory", (5, 5), "parameters are written by two system calls"
    ),
    "live_frames": Feature(
        "injection of packets by BPF_PROG_TEST_RUN",
        (5, 18),
        "options ride on packets that pass: idle subflows here are not told, nor told back",
        lesser=True,
    ),
    "bpf_loop": Feature("the helper bpf_loop in XDP programs", (5, 17)),
    "long_metadata": Feature(
        "more than 32 bytes of XDP metadata",
        (6, 5),
        "a chain context in metadata is of eight entries at most",
    ),
    "bpf_iter_tcp": Feature("iterators over TCP sockets", (5, 9)),
    "bpf_iter_setsockopt": Feature(
        "setsockopt on live sockets from an iterator", (5, 15), _POLICED, lesser=True
    ),
    "sock_ops": Feature("programs on socket events", None, _POLICED, lesser=True),
    "netns_cookie": Feature("cookies of network namespaces", (5, 14), f"inode numbers stand in; {_POLICED}"),
}
