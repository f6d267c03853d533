# SPDX-License-Identifier: Apache-2.0
"""Path-manager events of MPTCP (``ip mptcp monitor``), by the generic netlink family ``mptcp_pm``.

Names are those of ``ip mptcp monitor``; numbers and attributes those of ``linux/mptcp_pm.h`` (5.11 and
later).
"""

from __future__ import annotations

import select
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from emptcp.errors import EmptcpError

if TYPE_CHECKING:
    from emptcp.hooks.namespaces import Namespace

FAMILY = "mptcp_pm"
GROUP = "mptcp_pm_events"

NAMES = {
    1: "CREATED",
    2: "ESTABLISHED",
    3: "CLOSED",
    6: "ANNOUNCED",
    7: "REMOVED",
    10: "SF_ESTABLISHED",
    11: "SF_CLOSED",
    13: "SF_PRIO",
    15: "LISTENER_CREATED",
    16: "LISTENER_CLOSED",
}

Address = IPv4Address | IPv6Address

_NETLINK_GENERIC = 16
_TYPE_MASK = 0x3FFF
# nlmsghdr (length, type, flags, sequence, port) and genlmsghdr (command, version, reserved)
_HEADER = struct.Struct("=I12xB3x")

# enum mptcp_event_attr
_TOKEN, _LOC_ID, _REM_ID, _SADDR4, _SADDR6, _DADDR4, _DADDR6 = 1, 3, 4, 5, 6, 7, 8
_SPORT, _DPORT, _BACKUP, _ERROR, _IF_IDX, _RESET_REASON, _SERVER_SIDE = 9, 10, 11, 12, 15, 16, 18


@dataclass(frozen=True, slots=True)
class Event:
    """One event; what it does not carry is None. ``backup`` is the bit after the change."""

    name: str
    token: int | None = None
    local: Address | None = None
    local_port: int | None = None
    remote: Address | None = None
    remote_port: int | None = None
    local_id: int | None = None
    remote_id: int | None = None
    backup: bool | None = None
    error: int | None = None
    device: int | None = None
    reset_reason: int | None = None
    server_side: bool | None = None


class EventReader:
    """A subscription to the events of one network namespace (None: the caller's); readable by ``select``.

    Raises EmptcpError where the kernel has no MPTCP path-manager events.
    """

    def __init__(self, namespace: Namespace | None = None) -> None:
        if namespace is None:
            self._socket = _subscribe()
        else:
            from emptcp.hooks import namespaces

            self._socket = namespaces.call(namespace, _subscribe)

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def read(self, timeout: float = 0.0) -> list[Event]:
        """Return the events that are there, waiting up to ``timeout`` seconds for the first one."""
        found: list[Event] = []
        waiting = select.poll()
        waiting.register(self._socket, select.POLLIN)
        while waiting.poll(0 if found else timeout * 1000):
            found += decode(self._socket.recv(1 << 16))
        return found

    def close(self) -> None:
        """End the subscription."""
        self._socket.close()

    def __enter__(self) -> EventReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _subscribe() -> socket.socket:
    """Return a socket of the calling thread's namespace that is in the group of the events.

    pyroute2 finds the group. It can't be read from: its sockets belong to the thread that made them.
    """
    from pyroute2.netlink import NETLINK_ADD_MEMBERSHIP, SOL_NETLINK, genlmsg
    from pyroute2.netlink.exceptions import NetlinkError
    from pyroute2.netlink.generic import GenericNetlinkSocket

    try:
        with GenericNetlinkSocket() as finder:
            finder.asyncore.module_err_level = "debug"
            finder.bind(FAMILY, genlmsg)
            group = finder.mcast_groups[GROUP]
    except (NetlinkError, KeyError) as error:
        raise EmptcpError(
            "this kernel tells no MPTCP events: generic netlink has no group 'mptcp_pm_events'",
            fix="A kernel of 5.12 or later with CONFIG_MPTCP is needed.",
        ) from error
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_GENERIC)
    made.bind((0, 0))
    made.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
    return made


def decode(datagram: bytes) -> Iterator[Event]:
    """Yield the events of one netlink datagram, skipping kinds that are not known."""
    offset = 0
    while offset + _HEADER.size <= len(datagram):
        length, command = _HEADER.unpack_from(datagram, offset)
        if length < _HEADER.size:
            return
        if command in NAMES:
            found = dict(_attributes(datagram[offset + _HEADER.size : offset + length]))
            yield _event(NAMES[command], found)
        offset += length + 3 & ~3


def _attributes(block: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + 4 <= len(block):
        length, kind = struct.unpack_from("=HH", block, offset)
        if length < 4:
            return
        yield kind & _TYPE_MASK, block[offset + 4 : offset + length]
        offset += length + 3 & ~3


def _event(name: str, found: dict[int, bytes]) -> Event:
    def number(kind: int, order: Literal["little", "big"] = sys.byteorder) -> int | None:
        return int.from_bytes(found[kind], order) if kind in found else None

    def address(*kinds: int) -> Address | None:
        return next((ip_address(found[kind]) for kind in kinds if len(found.get(kind, b"")) in (4, 16)), None)

    backup, server_side = number(_BACKUP), number(_SERVER_SIDE)
    return Event(
        name=name,
        token=number(_TOKEN),
        local=address(_SADDR4, _SADDR6),
        local_port=number(_SPORT, "big"),
        remote=address(_DADDR4, _DADDR6),
        remote_port=number(_DPORT, "big"),
        local_id=number(_LOC_ID),
        remote_id=number(_REM_ID),
        backup=None if backup is None else bool(backup),
        error=number(_ERROR),
        device=number(_IF_IDX),
        reset_reason=number(_RESET_REASON),
        server_side=None if server_side is None else bool(server_side),
    )
