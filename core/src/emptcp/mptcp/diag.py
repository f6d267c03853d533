# SPDX-License-Identifier: Apache-2.0
"""Ask the kernel for its sockets by sock_diag(7): netlink messages, taken apart."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

from emptcp.errors import EmptcpError

INET_DIAG_INFO = 2
MESSAGE_SIZE = 72
"""Bytes of a struct inet_diag_msg, which its attributes follow."""

NETLINK_SOCK_DIAG = 4
"""The netlink family (linux/netlink.h)."""
SOCK_DIAG_BY_FAMILY = 20
"""The kind of the messages that tell of sockets, and of those that ask."""

_NLM_F_REQUEST, _NLM_F_DUMP = 0x1, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQ_PROTOCOL = 3

_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBxI48x")
_PROTOCOL = struct.Struct("=HHI")


def connect() -> socket.socket:
    """Return a socket that asks of the calling thread's namespace; it keeps that one alive."""
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG)
    made.settimeout(5)
    return made


def dump(asking: socket.socket, family: int, protocol: int, states: int) -> Iterator[bytes]:
    """Yield a struct inet_diag_msg with its attributes for each socket, INET_DIAG_INFO among them.

    Raises EmptcpError when the kernel refuses. A protocol above 255 (MPTCP) takes Linux 5.9.
    """
    body = _REQUEST.pack(family, protocol & 0xFF, 1 << (INET_DIAG_INFO - 1), states)
    if protocol > 0xFF:
        body += _PROTOCOL.pack(_PROTOCOL.size, _REQ_PROTOCOL, protocol)
    size = _HEADER.size + len(body)
    asking.send(_HEADER.pack(size, SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST | _NLM_F_DUMP, family, 0) + body)
    while True:
        for kind, message in split(asking.recv(1 << 18)):
            if kind == _NLMSG_DONE:
                return
            if kind == _NLMSG_ERROR:
                raise _refused(-struct.unpack_from("=i", message)[0], protocol)
            yield message


def _refused(code: int, protocol: int) -> EmptcpError:
    name, module = ("TCP", "tcp_diag") if protocol == socket.IPPROTO_TCP else ("MPTCP", "mptcp_diag")
    return EmptcpError(
        f"the kernel does not list its {name} sockets (sock_diag): {os.strerror(code)}",
        fix=f"Load the kernel module that does: modprobe {module}",
    )


def split(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and body of each netlink message in a datagram."""
    at = 0
    while at + _HEADER.size <= len(data):
        size, kind, *_ = _HEADER.unpack_from(data, at)
        if size < _HEADER.size:
            return
        yield kind, data[at + _HEADER.size : at + size]
        at += -(-size // 4) * 4


def attributes(data: bytes) -> dict[int, bytes]:
    """Return netlink attributes by their kind."""
    found: dict[int, bytes] = {}
    at = 0
    while at + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, at)
        if size < 4:
            break
        # The two highest bits say nested and byte order.
        found[kind & 0x3FFF] = data[at + 4 : at + size]
        at += -(-size // 4) * 4
    return found
