# SPDX-License-Identifier: Apache-2.0
"""Reads what each subflow of a host has delivered, by sock_diag(7), as ``ss -tiM`` does.

Counted where it is exact per subflow: ``tcpi_bytes_acked``, the payload that the peer has acknowledged on
this subflow (RFC 4898, tcpEStatsAppHCThruOctetsAcked), without retransmissions and headers. The backup bits
come from the MPTCP part of the same answer (MPTCP_SUBFLOW_ATTR_FLAGS, Linux 5.9).
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from emptcp.errors import EmptcpError
from emptcp.lab.host import Host

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST, NLM_F_DUMP = 0x1, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3

INET_DIAG_INFO, INET_DIAG_ULP_INFO = 2, 19
INET_ULP_INFO_MPTCP = 3
MPTCP_SUBFLOW_ATTR_FLAGS = 8
BACKUP_BY_PEER, BACKUP_BY_US = 1 << 4, 1 << 5
# All states but LISTEN (10), TIME_WAIT (6) and NEW_SYN_RECV (12), which have no subflow to tell of.
STATES = 0xFFF & ~(1 << 10) & ~(1 << 6)

_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBxI48x")
_ENDPOINTS = struct.Struct("!HH16s16s")
_ENDPOINTS_AT = 4
_MESSAGE_SIZE = 72
# struct tcp_info
_RTT_AT, _RETRANSMITTED_AT, _ACKED_AT = 68, 100, 120


@dataclass(frozen=True, slots=True)
class Reading:
    """One subflow at one moment, as its sender sees it.

    ``acked`` counts bytes since it was opened, ``retransmitted`` segments; ``rtt`` is in seconds (smoothed).
    ``backup`` is whether the peer asked not to use it (MP_PRIO or MP_JOIN with B, RFC 8684 section 3.3.8),
    ``own_backup`` whether this host did.
    """

    local: str
    local_port: int
    remote: str
    remote_port: int
    acked: int
    retransmitted: int
    rtt: float
    backup: bool
    own_backup: bool


class Meter:
    """Reads a host's subflows any number of times over one netlink socket."""

    def __init__(self, host: Host) -> None:
        self._socket = host.call(
            lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG)
        )
        self._socket.settimeout(5)

    def read(self) -> list[Reading]:
        """The host's MPTCP subflows, of both address families. Raises EmptcpError when the kernel refuses."""
        return [reading for family in (socket.AF_INET, socket.AF_INET6) for reading in self._dump(family)]

    def close(self) -> None:
        """Close the socket, which else keeps the host's namespace alive."""
        self._socket.close()

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _dump(self, family: int) -> Iterator[Reading]:
        body = _REQUEST.pack(family, socket.IPPROTO_TCP, 1 << (INET_DIAG_INFO - 1), STATES)
        size = _HEADER.size + len(body)
        header = _HEADER.pack(size, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, family, 0)
        self._socket.send(header + body)
        for message in self._messages():
            reading = decode(message)
            if reading is not None:
                yield reading

    def _messages(self) -> Iterator[bytes]:
        while True:
            for kind, message in split(self._socket.recv(1 << 18)):
                if kind == NLMSG_DONE:
                    return
                if kind == NLMSG_ERROR:
                    raise _refused(-struct.unpack_from("=i", message)[0])
                yield message


def _refused(code: int) -> EmptcpError:
    return EmptcpError(
        f"the kernel does not list its TCP sockets (sock_diag): {os.strerror(code)}",
        fix="Load the kernel module that does: modprobe tcp_diag",
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


def decode(message: bytes) -> Reading | None:
    """A struct inet_diag_msg with its attributes; ``None`` when the socket is no MPTCP subflow."""
    attributes = _attributes(message[_MESSAGE_SIZE:])
    flags = _mptcp_flags(attributes.get(INET_DIAG_ULP_INFO, b""))
    info = attributes.get(INET_DIAG_INFO, b"")
    if flags is None or len(info) < _ACKED_AT + 8:
        return None
    local_port, remote_port, local, remote = _ENDPOINTS.unpack_from(message, _ENDPOINTS_AT)
    return Reading(
        local=_address(message[0], local),
        local_port=local_port,
        remote=_address(message[0], remote),
        remote_port=remote_port,
        acked=struct.unpack_from("=Q", info, _ACKED_AT)[0],
        retransmitted=struct.unpack_from("=I", info, _RETRANSMITTED_AT)[0],
        rtt=struct.unpack_from("=I", info, _RTT_AT)[0] / 1e6,
        backup=bool(flags & BACKUP_BY_PEER),
        own_backup=bool(flags & BACKUP_BY_US),
    )


def _attributes(data: bytes) -> dict[int, bytes]:
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


def _mptcp_flags(protocol: bytes) -> int | None:
    subflow = _attributes(protocol).get(INET_ULP_INFO_MPTCP)
    if subflow is None:
        return None
    flags = _attributes(subflow).get(MPTCP_SUBFLOW_ATTR_FLAGS, b"")
    return int.from_bytes(flags[:4], sys.byteorder)


def _address(family: int, raw: bytes) -> str:
    # An IPv6 socket that speaks IPv4 is listed as IPv6 with mapped addresses.
    if family == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, raw[:4])
    return socket.inet_ntop(socket.AF_INET6, raw).removeprefix("::ffff:")
