# SPDX-License-Identifier: Apache-2.0
"""MPTCP sockets as a program uses them: make one, and ask it what became of the connection."""

from __future__ import annotations

import socket
import struct

IPPROTO_MPTCP = 262
SOL_MPTCP = 284
MPTCP_INFO = 1
_FALLEN_BACK = 1


def mptcp_socket(address: str, timeout: float | None = None) -> socket.socket:
    """An MPTCP socket of the address's family. Raises OSError where the host has MPTCP switched off."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM, IPPROTO_MPTCP)
    made.settimeout(timeout)
    return made


def listen(wildcard: str, port: int = 0, timeout: float | None = None, *, backlog: int = 1) -> socket.socket:
    """A listening MPTCP socket.

    At the wildcard, because a join to an announced address is a SYN that must meet a listener there; for the
    same reason it has to stay open as long as subflows may join.
    """
    listener = mptcp_socket(wildcard, timeout)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((wildcard, port))
    listener.listen(backlog)
    return listener


def receive_exactly(connection: socket.socket, count: int) -> bytes:
    """Return the next ``count`` bytes. Raises ConnectionError when the connection ends before.

    MSG_WAITALL does not wait on a socket with a timeout, which the kernel takes for one that must not block.
    """
    data = bytearray()
    while len(data) < count:
        piece = connection.recv(count - len(data))
        if not piece:
            raise ConnectionError("the other end closed the connection early")
        data += piece
    return bytes(data)


def wildcard(address: str) -> str:
    """The wildcard address of an address's family."""
    return "::" if ":" in address else "0.0.0.0"


def mptcp_info(connection: socket.socket) -> tuple[bool, int]:
    """Whether a connection is MPTCP (one that fell back refuses the option), and how many subflows it has.

    struct mptcp_info of Linux 5.16 and later.
    """
    try:
        info = connection.getsockopt(SOL_MPTCP, MPTCP_INFO, 16)
    except OSError:
        return False, 1
    additional, flags = struct.unpack_from("=B7xI", info)
    return not flags & _FALLEN_BACK, additional + 1
