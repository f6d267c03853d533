# SPDX-License-Identifier: Apache-2.0
"""When a packet with MP_PRIO left a device, by the kernel's own time stamp."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager

from emptcp.errors import EmptcpError
from emptcp.lab.host import Host
from emptcp.packet.decode import decode
from emptcp.packet.mptcp import MpPrio

PATIENCE = 5.0
_ALL, _TIMESTAMPS = 0x0003, 35  # ETH_P_ALL, SO_TIMESTAMPNS
_STAMP = struct.Struct("=qq")


class Sniffer:
    """Hears what leaves a device of a host."""

    def __init__(self, opened: socket.socket) -> None:
        self._socket = opened

    def forget(self) -> None:
        """Drop what came so far."""
        self._socket.setblocking(False)
        try:
            while self._socket.recv(2048):
                pass
        except BlockingIOError:
            pass

    def prio(self) -> tuple[int, bool]:
        """Return when the next MP_PRIO left, in nanoseconds since 1970, and whether it said backup."""
        deadline = time.monotonic() + PATIENCE
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                data, extra, _, address = self._socket.recvmsg(2048, 64)
            except TimeoutError:
                break
            tcp = decode(data).tcp if address[2] == socket.PACKET_OUTGOING else None
            said = [one.option for one in tcp.options if isinstance(one.option, MpPrio)] if tcp else []
            if said:
                seconds, nanoseconds = _STAMP.unpack_from(extra[0][2])
                return seconds * 10**9 + nanoseconds, said[0].backup
        raise EmptcpError("no MP_PRIO left the path", fix="See: emptcp doctor")


@contextmanager
def listening(host: Host, device: str) -> Iterator[Sniffer]:
    """Listen to what a host sends by one device."""

    def opened() -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
        made.setsockopt(socket.SOL_SOCKET, _TIMESTAMPS, 1)
        made.bind((device, _ALL))
        return made

    with host.call(opened) as made:
        yield Sniffer(made)
