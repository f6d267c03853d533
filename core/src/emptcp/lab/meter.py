# SPDX-License-Identifier: Apache-2.0
"""Reads what each subflow of a host has delivered, by sock_diag(7), as ``ss -tiM`` does.

Counted where it is exact per subflow: ``tcpi_bytes_acked``, the payload that the peer has acknowledged on
this subflow (RFC 4898, tcpEStatsAppHCThruOctetsAcked), without retransmissions and headers. The backup bits
come from the MPTCP part of the same answer (MPTCP_SUBFLOW_ATTR_FLAGS, Linux 5.9).
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from emptcp.lab.host import Host
from emptcp.mptcp import diag

INET_DIAG_ULP_INFO = 19
INET_ULP_INFO_MPTCP = 3
MPTCP_SUBFLOW_ATTR_FLAGS = 8
BACKUP_BY_PEER, BACKUP_BY_US = 1 << 4, 1 << 5
# All states but LISTEN (10), TIME_WAIT (6) and NEW_SYN_RECV (12), which have no subflow to tell of.
STATES = 0xFFF & ~(1 << 10) & ~(1 << 6)

_ENDPOINTS = struct.Struct("!HH16s16s")
_ENDPOINTS_AT = 4
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
        self._socket = host.call(diag.connect)

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
        for message in diag.dump(self._socket, family, socket.IPPROTO_TCP, STATES):
            reading = decode(message)
            if reading is not None:
                yield reading


def decode(message: bytes) -> Reading | None:
    """A struct inet_diag_msg with its attributes; ``None`` when the socket is no MPTCP subflow."""
    attributes = diag.attributes(message[diag.MESSAGE_SIZE :])
    flags = _mptcp_flags(attributes.get(INET_DIAG_ULP_INFO, b""))
    info = attributes.get(diag.INET_DIAG_INFO, b"")
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


def _mptcp_flags(protocol: bytes) -> int | None:
    subflow = diag.attributes(protocol).get(INET_ULP_INFO_MPTCP)
    if subflow is None:
        return None
    flags = diag.attributes(subflow).get(MPTCP_SUBFLOW_ATTR_FLAGS, b"")
    return int.from_bytes(flags[:4], sys.byteorder)


def _address(family: int, raw: bytes) -> str:
    # An IPv6 socket that speaks IPv4 is listed as IPv6 with mapped addresses.
    if family == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, raw[:4])
    return socket.inet_ntop(socket.AF_INET6, raw).removeprefix("::ffff:")
