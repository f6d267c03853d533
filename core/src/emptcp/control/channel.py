# SPDX-License-Identifier: Apache-2.0
"""Messages between the runtime and a controller's process: a short head, and a body of any size.

Heads go by a socket that keeps messages apart; bodies lie in memory that both ends have, one for each
direction. So nobody ever waits for the other to read: a head is sent whole or not at all, and each end writes
its body only while the other one waits for it.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from typing import Any

LARGEST_HEAD = 1 << 16


class Channel:
    """One end. ``send`` never waits; ``receive`` does when nothing has come, unless told otherwise."""

    def __init__(self, heads: socket.socket, inbound: int, outbound: int) -> None:
        self._heads = heads
        self._inbound = inbound
        self._outbound = outbound

    def fileno(self) -> int:
        """What is readable when a message has come, or the other end is gone."""
        return self._heads.fileno()

    def send(self, head: Mapping[str, Any], body: bytes = b"") -> None:
        """Send a message. Raises :class:`OSError` when the other end is gone."""
        os.ftruncate(self._outbound, 0)
        written = 0
        while written < len(body):
            written += os.pwrite(self._outbound, memoryview(body)[written:], written)
        self._heads.send(json.dumps(head).encode())

    def receive(self, *, wait: bool = True) -> tuple[dict[str, Any], bytes] | None:
        """Return the next message; ``None``: the other end is gone.

        Raises :class:`BlockingIOError` when nothing has come and it is not to ``wait``.
        """
        try:
            head = self._heads.recv(LARGEST_HEAD, 0 if wait else socket.MSG_DONTWAIT)
        except ConnectionResetError:
            return None
        if not head:
            return None
        size, body = os.fstat(self._inbound).st_size, b""
        while len(body) < size:
            body += os.pread(self._inbound, size - len(body), len(body))
        return json.loads(head), body

    def close(self) -> None:
        """Close this end; again does nothing, as its descriptors' numbers may be another file's by then."""
        if self._heads.fileno() < 0:
            return
        self._heads.close()
        os.close(self._inbound)
        os.close(self._outbound)

    @property
    def descriptors(self) -> tuple[int, int, int]:
        """What :meth:`of` takes, to be handed to the process at the other end."""
        return self._heads.fileno(), self._inbound, self._outbound

    @classmethod
    def of(cls, heads: int, inbound: int, outbound: int) -> Channel:
        """Return an end that this process was started with."""
        return cls(socket.socket(fileno=heads), inbound, outbound)


def pair() -> tuple[Channel, Channel]:
    """Return both ends of a new channel."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    there, back = os.memfd_create("emptcp-records"), os.memfd_create("emptcp-settings")
    return Channel(ours, back, there), Channel(theirs, os.dup(there), os.dup(back))
