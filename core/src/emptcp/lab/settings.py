# SPDX-License-Identifier: Apache-2.0
"""Settings of a lab's hosts that make runs repeatable: congestion control and buffer sizes."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from emptcp.errors import EmptcpError
from emptcp.lab import state
from emptcp.lab.host import Host

MPTCP = Path("/proc/sys/net/mptcp")
CONTROL = "net.ipv4.tcp_congestion_control"
ALLOWED = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
# Room for the slowest path's share to wait while the faster one runs ahead (RFC 8684 section 3.3.4).
BUFFERS = {"net.ipv4.tcp_rmem": "4096 131072 33554432", "net.ipv4.tcp_wmem": "4096 131072 33554432"}


def need_mptcp() -> None:
    """Raise EmptcpError on a kernel without MPTCP."""
    if not MPTCP.is_dir():
        raise EmptcpError(
            "this kernel has no MPTCP",
            fix="Run a kernel of 5.10 or later with CONFIG_MPTCP, such as the one of Debian 12.",
        )


def make_steady(host: Host) -> str:
    """Give a host large buffers and a congestion control that holds its rate; return the control's name.

    BBR, a default on some machines, drains its queue every ten seconds and shows that as a dip.
    """
    for setting, value in BUFFERS.items():
        host.set(setting, value)
    for name in ("cubic", "reno"):
        if use_control(host, name):
            return name
    return ""


def use_control(host: Host, name: str) -> bool:
    """Let new sockets of a host use a congestion control; return whether the kernel has it."""
    if _try(host, name):
        return True
    with _allowed(name):
        return _try(host, name)


def _try(host: Host, name: str) -> bool:
    try:
        host.set(CONTROL, name)
    except EmptcpError:
        return False
    return True


@contextlib.contextmanager
def _allowed(name: str) -> Iterator[None]:
    """Allow a control to namespaces for a moment.

    A namespace may only choose what the machine's list holds (tcp_set_default_congestion_control); once it
    has chosen, the list is put back. The lock keeps two labs that start together from restoring each other's.
    """
    folder = os.open(state.folder(), os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        before = ALLOWED.read_text()
        try:
            with contextlib.suppress(OSError):
                ALLOWED.write_text(f"{before.strip()} {name}\n")
            yield
        finally:
            ALLOWED.write_text(before)
    finally:
        os.close(folder)
