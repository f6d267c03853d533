# SPDX-License-Identifier: Apache-2.0
"""Which MPTCP connections of a namespace went on as plain TCP, as their sockets tell (struct mptcp_info)."""

from __future__ import annotations

import socket
import struct

from emptcp.mptcp import diag

IPPROTO_MPTCP = 262
FALLEN_BACK, KEY_RECEIVED = 1, 2
"""MPTCP_INFO_FLAG_FALLBACK and MPTCP_INFO_FLAG_REMOTE_KEY_RECEIVED of linux/mptcp.h."""

_FLAGS_AND_TOKEN = struct.Struct("=8xII")
_LISTEN = 10
_STATES = 0xFFF & ~(1 << _LISTEN)


def tokens() -> set[int]:
    """Return this host's tokens of connections that were MPTCP and are not any more, closing ones too.

    Of the calling thread's namespace. One whose peer never spoke MPTCP is not among them. Raises EmptcpError
    where the kernel does not list MPTCP sockets (before 5.9, or without its module mptcp_diag).
    """
    with diag.connect() as asking:
        return {
            token
            for family in (socket.AF_INET, socket.AF_INET6)
            for message in diag.dump(asking, family, IPPROTO_MPTCP, _STATES)
            if (token := _fallen(message))
        }


def _fallen(message: bytes) -> int:
    """Return a connection's token if it fell back after its handshake, else 0."""
    info = diag.attributes(message[diag.MESSAGE_SIZE :]).get(diag.INET_DIAG_INFO, b"")
    if len(info) < _FLAGS_AND_TOKEN.size:
        return 0
    flags, token = _FLAGS_AND_TOKEN.unpack_from(info)
    return int(token) if flags & FALLEN_BACK and flags & KEY_RECEIVED else 0
