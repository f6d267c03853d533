# SPDX-License-Identifier: Apache-2.0
"""TCP sockets that end, with what they carried in all: what ``ss -E`` prints (``SKNLGRP_INET_TCP_DESTROY``).

The kernel tells it when it frees the socket, so the counts are final; a look at live sockets always comes too
early.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from types import TracebackType
from typing import TYPE_CHECKING

from emptcp.mptcp import diag

if TYPE_CHECKING:
    from emptcp.hooks.namespaces import Namespace

Address = IPv4Address | IPv6Address
Endpoint = tuple[Address, int]

_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_TCP4_DESTROY, _TCP6_DESTROY = 1, 3
# Of struct inet_diag_msg: family, ports, addresses.
_ENDS = struct.Struct("!B3xHH16s16s")
# tcpi_bytes_acked, tcpi_bytes_received; tcpi_bytes_sent (Linux 4.19)
_ACKED_AT, _SENT_AT = 120, 200


@dataclass(frozen=True, slots=True)
class Destroyed:
    """One socket that is gone, and the bytes that it sent, that were acknowledged, and that came in.

    The kernel counts SYN and FIN as a byte each, in what is acknowledged and in what came in.
    """

    local: Endpoint
    remote: Endpoint
    sent: int
    acked: int
    received: int


class DestroyedReader:
    """A subscription in one network namespace; tells of all TCP sockets, as the kernel does."""

    def __init__(self, namespace: Namespace) -> None:
        from emptcp.hooks import namespaces

        self._socket = namespaces.call(namespace, _subscribe)

    def read(self) -> list[Destroyed]:
        """Return those since the last call, without waiting. Some are missing when they were too many."""
        found: list[Destroyed] = []
        while True:
            try:
                found += decode(self._socket.recv(1 << 16))
            except BlockingIOError:
                return found
            except OSError:  # ENOBUFS: messages were lost
                continue

    def close(self) -> None:
        """End the subscription."""
        self._socket.close()

    def __enter__(self) -> DestroyedReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _subscribe() -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, diag.NETLINK_SOCK_DIAG)
    made.bind((0, 0))
    for group in (_TCP4_DESTROY, _TCP6_DESTROY):
        with suppress(OSError):  # a kernel without IPv6, or without tcp_diag: then nothing is told
            made.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
    made.setblocking(False)
    return made


def decode(datagram: bytes) -> Iterator[Destroyed]:
    """Yield the sockets of one netlink datagram that were connected."""
    for kind, message in diag.split(datagram):
        if kind != diag.SOCK_DIAG_BY_FAMILY or len(message) < diag.MESSAGE_SIZE:
            continue
        info = diag.attributes(message[diag.MESSAGE_SIZE :]).get(diag.INET_DIAG_INFO, b"")
        family, local_port, remote_port, local, remote = _ENDS.unpack_from(message)
        if remote_port and len(info) >= _SENT_AT + 8:
            acked, received = struct.unpack_from("=QQ", info, _ACKED_AT)
            (sent,) = struct.unpack_from("=Q", info, _SENT_AT)
            ends = (_address(local, family), local_port), (_address(remote, family), remote_port)
            yield Destroyed(*ends, sent, acked, received)


def _address(raw: bytes, family: int) -> Address:
    if family == socket.AF_INET:
        return IPv4Address(raw[:4])
    address = IPv6Address(raw)
    return address.ipv4_mapped or address
