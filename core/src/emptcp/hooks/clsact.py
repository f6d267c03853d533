# SPDX-License-Identifier: Apache-2.0
"""TC programs by a clsact filter, for kernels without TCX (before 6.6).

A filter has no owner, so emptcp's is known by its place (priority and handle, both fixed) and by its name.
The name also says whether emptcp made the qdisc, and so may take it away with the last filter.
"""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass

from emptcp.errors import EmptcpError
from emptcp.hooks import rtnetlink
from emptcp.hooks.rtnetlink import NetlinkRefusal, RouteSocket, attribute, nested

# Before the filters of most tools: one that ends the walk would hide the packet from the policies.
PRIORITY = 3
HANDLE = 0xE3

_NAME, _NAME_AND_QDISC = "emptcp", "emptcp+clsact"
_PARENTS = {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}
_CLSACT, _CLSACT_HANDLE = 0xFFFFFFF1, 0xFFFF0000
_ETH_P_ALL = 3
_TCA_KIND, _TCA_OPTIONS = 1, 2
_BPF_FD, _BPF_NAME, _BPF_FLAGS, _BPF_ID = 6, 7, 8, 11
_DIRECT_ACTION = 1
# struct tcmsg: family, padding, ifindex, handle, parent, info
_MESSAGE = struct.Struct("=BxxxiIII")


@dataclass(frozen=True)
class Filter:
    """A BPF filter on a device: which hook, its place, its name and the program's id."""

    hook: str
    priority: int
    handle: int
    name: str
    program_id: int

    @property
    def ours(self) -> bool:
        """Whether emptcp put it there."""
        return (self.priority, self.handle) == (PRIORITY, HANDLE) and self.name in (_NAME, _NAME_AND_QDISC)


def filters(ifindex: int, hook: str) -> list[Filter]:
    """Return the BPF filters of a device at a hook, in this thread's namespace."""
    with RouteSocket() as route:
        return _filters(route, ifindex, hook)


def put(ifindex: int, hook: str, program_fd: int) -> None:
    """Add emptcp's filter to a device, or replace its program between two packets.

    :raises EmptcpError: another tool's filter has the place, or the kernel refuses.
    """
    with RouteSocket() as route:
        made = _make_qdisc(route, ifindex)
        name = _NAME_AND_QDISC if made or _made_before(route, ifindex) else _NAME
        _check_place(route, ifindex, hook)
        try:
            _send(route, rtnetlink.RTM_NEWTFILTER, ifindex, hook, _options(program_fd, name))
        except NetlinkRefusal as refusal:
            _drop_qdisc(route, ifindex, made)
            raise EmptcpError(
                f"cannot attach the {hook} program to device {ifindex}: {refusal.reason}"
            ) from None


def take(ifindex: int, hook: str) -> bool:
    """Remove emptcp's filter, and the qdisc if emptcp made it and nothing else uses it.

    Return if it was there.
    """
    with RouteSocket() as route:
        mine = [found for found in _filters(route, ifindex, hook) if found.ours]
        if not mine:
            return False
        _send(route, rtnetlink.RTM_DELTFILTER, ifindex, hook, b"", create=False)
        _drop_qdisc(route, ifindex, mine[0].name == _NAME_AND_QDISC)
    return True


def _filters(route: RouteSocket, ifindex: int, hook: str) -> list[Filter]:
    body = _MESSAGE.pack(socket.AF_UNSPEC, ifindex, 0, _PARENTS[hook], 0)
    try:
        found = route.dump(rtnetlink.RTM_GETTFILTER, body)
    except NetlinkRefusal:
        # The device has no qdisc that could have filters.
        return []
    return [entry for message in found if (entry := _filter(hook, message))]


def _filter(hook: str, message: bytes) -> Filter | None:
    _family, _ifindex, handle, _parent, info = _MESSAGE.unpack_from(message)
    outer = rtnetlink.attributes(message[_MESSAGE.size :])
    options = rtnetlink.attributes(outer.get(_TCA_OPTIONS, b""))
    # A dump tells each chain's head too, without options.
    if rtnetlink.text(outer.get(_TCA_KIND, b"")) != "bpf" or not options:
        return None
    name = rtnetlink.text(options.get(_BPF_NAME, b""))
    return Filter(hook, info >> 16, handle, name, rtnetlink.number(options.get(_BPF_ID)))


def _check_place(route: RouteSocket, ifindex: int, hook: str) -> None:
    for found in _filters(route, ifindex, hook):
        if (found.priority, found.handle) == (PRIORITY, HANDLE) and not found.ours:
            raise EmptcpError(
                f"device {ifindex} has another tool's filter '{found.name}' (program {found.program_id}) "
                f"at {hook} where emptcp's belongs (priority {PRIORITY}, handle {HANDLE:#x})",
                fix="Move it to another priority.",
            )


def _made_before(route: RouteSocket, ifindex: int) -> bool:
    here = [found for hook in _PARENTS for found in _filters(route, ifindex, hook)]
    return any(found.ours and found.name == _NAME_AND_QDISC for found in here)


def _make_qdisc(route: RouteSocket, ifindex: int) -> bool:
    """Make the clsact qdisc; return False when there was one."""
    try:
        _qdisc(route, rtnetlink.RTM_NEWQDISC, ifindex, rtnetlink.NLM_F_CREATE | rtnetlink.NLM_F_EXCL)
    except NetlinkRefusal as refusal:
        if refusal.errno == errno.EEXIST:
            return False
        raise EmptcpError(f"cannot make a clsact qdisc on device {ifindex}: {refusal.reason}") from None
    return True


def _drop_qdisc(route: RouteSocket, ifindex: int, made: bool) -> None:
    """Remove the qdisc if emptcp made it and it has no filters of any kind."""
    if not made:
        return
    for parent in _PARENTS.values():
        body = _MESSAGE.pack(socket.AF_UNSPEC, ifindex, 0, parent, 0)
        if route.dump(rtnetlink.RTM_GETTFILTER, body):
            return
    _qdisc(route, rtnetlink.RTM_DELQDISC, ifindex, 0)


def _qdisc(route: RouteSocket, kind: int, ifindex: int, flags: int) -> None:
    body = _MESSAGE.pack(socket.AF_UNSPEC, ifindex, _CLSACT_HANDLE, _CLSACT, 0)
    route.change(kind, body + attribute(_TCA_KIND, b"clsact\0"), flags)


def _send(
    route: RouteSocket, kind: int, ifindex: int, hook: str, options: bytes, *, create: bool = True
) -> None:
    info = PRIORITY << 16 | socket.htons(_ETH_P_ALL)
    body = _MESSAGE.pack(socket.AF_UNSPEC, ifindex, HANDLE, _PARENTS[hook], info)
    route.change(
        kind, body + attribute(_TCA_KIND, b"bpf\0") + options, rtnetlink.NLM_F_CREATE if create else 0
    )


def _options(program_fd: int, name: str) -> bytes:
    return nested(
        _TCA_OPTIONS,
        attribute(_BPF_FD, struct.pack("=I", program_fd)),
        attribute(_BPF_NAME, name.encode() + b"\0"),
        attribute(_BPF_FLAGS, struct.pack("=I", _DIRECT_ACTION)),
    )
