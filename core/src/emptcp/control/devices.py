# SPDX-License-Identifier: Apache-2.0
"""Tell when a device appears in a network namespace, by route netlink."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from emptcp.errors import EmptcpError

if TYPE_CHECKING:
    from emptcp.hooks.namespaces import Namespace

_RTMGRP_LINK = 1
_RTM_NEWLINK, _RTM_DELLINK = 16, 17
_IFLA_IFNAME = 3
# nlmsghdr (length, type, flags, sequence, port) and ifinfomsg (family, type, index, flags, change)
_MESSAGE = struct.Struct("=IH10xBxHiII")


class DeviceWatch:
    """The devices of one namespace; readable by ``select`` when something changed.

    ``read`` gives the names of devices that were not there before, a device of an old name with a new ifindex
    included: the kernel detached everything from the old one.
    """

    def __init__(self, namespace: Namespace) -> None:
        from emptcp.hooks import namespaces

        self.namespace = namespace
        self._socket, here = namespaces.call(namespace, lambda: (_subscribe(), socket.if_nameindex()))
        self._known = dict(here)

    def fileno(self) -> int:
        """The netlink socket's descriptor."""
        return self._socket.fileno()

    def read(self) -> list[str]:
        """Return the names of devices that appeared, without waiting."""
        found: list[str] = []
        while True:
            try:
                datagram = self._socket.recv(1 << 16)
            except BlockingIOError:
                return found
            except OSError:  # ENOBUFS: messages were lost, so look at what is there
                found += self._compare()
                continue
            for kind, index, name in _links(datagram):
                found += self._note(kind, index, name)

    def _note(self, kind: int, index: int, name: str) -> list[str]:
        if kind == _RTM_DELLINK:
            self._known.pop(index, None)
            return []
        fresh = self._known.get(index) != name
        self._known[index] = name
        return [name] if fresh else []

    def _compare(self) -> list[str]:
        from emptcp.hooks import namespaces

        try:
            here = dict(namespaces.call(self.namespace, socket.if_nameindex))
        except EmptcpError:  # it has no name any more: this watch is about to end
            return []
        fresh = [name for index, name in here.items() if self._known.get(index) != name]
        self._known = here
        return fresh

    def close(self) -> None:
        """End the watch."""
        self._socket.close()


def _subscribe() -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    made.bind((0, _RTMGRP_LINK))
    made.setblocking(False)
    return made


def _links(datagram: bytes) -> Iterator[tuple[int, int, str]]:
    """Yield message type, ifindex and name of the link messages in a datagram."""
    offset = 0
    while offset + _MESSAGE.size <= len(datagram):
        length, kind, family, _type, index, _flags, _change = _MESSAGE.unpack_from(datagram, offset)
        if length < _MESSAGE.size:
            return
        # A port that leaves a bridge is told as a deleted link too, of family AF_BRIDGE.
        if kind in (_RTM_NEWLINK, _RTM_DELLINK) and family == socket.AF_UNSPEC:
            yield kind, index, _name(datagram[offset + _MESSAGE.size : offset + length])
        offset += length + 3 & ~3


def _name(attributes: bytes) -> str:
    offset = 0
    while offset + 4 <= len(attributes):
        length, kind = struct.unpack_from("=HH", attributes, offset)
        if kind == _IFLA_IFNAME:
            return attributes[offset + 4 : offset + length].rstrip(b"\0").decode(errors="replace")
        offset += max(4, length + 3 & ~3)
    return ""
