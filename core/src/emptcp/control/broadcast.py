# SPDX-License-Identifier: Apache-2.0
"""What `emptcp run` hears, for any number of other processes: a socket in the run folder.

Each message is a record of the ring buffer (``struct emptcp_event``). A message of 8 bytes tells how many
records a subscriber was too slow for. The folder is readable by root alone, and so is the socket.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SOCKET = "events.sock"
_LOST = struct.Struct("=Q")


class Broadcast:
    """Sends records to all who subscribed; readable when another one wants to."""

    def __init__(self, folder: Path) -> None:
        self._subscribers: dict[socket.socket, int] = {}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        with _short(folder) as path:
            with suppress(FileNotFoundError):
                os.unlink(path)  # of a process that was killed
            self._socket.bind(path)
        self._socket.listen()
        self._path = folder / SOCKET

    def fileno(self) -> int:
        """The listening socket."""
        return self._socket.fileno()

    def accept(self) -> None:
        """Let those in who wait."""
        with suppress(BlockingIOError):
            while True:
                self._subscribers[self._socket.accept()[0]] = 0

    def send(self, record: bytes) -> None:
        """Hand a record to every subscriber; who is gone is forgotten, who is slow is told what it lost."""
        for subscriber, lost in list(self._subscribers.items()):
            try:
                if lost:
                    subscriber.send(_LOST.pack(lost), socket.MSG_DONTWAIT)
                    self._subscribers[subscriber] = 0
                subscriber.send(record, socket.MSG_DONTWAIT)
            except BlockingIOError:
                self._subscribers[subscriber] += 1
            except OSError:
                del self._subscribers[subscriber]
                subscriber.close()

    def close(self) -> None:
        """End all subscriptions."""
        for subscriber in self._subscribers:
            subscriber.close()
        self._subscribers.clear()
        self._socket.close()
        self._path.unlink(missing_ok=True)


def subscribe(folder: Path) -> socket.socket | None:
    """Return a socket that gets every record from now on, ``None`` where nobody sends any."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with _short(folder) as path:
            made.connect(path)
    except OSError:
        made.close()
        return None
    return made


def lost(message: bytes) -> int:
    """Return how many records a message says were lost, 0 for a record."""
    return int(_LOST.unpack(message)[0]) if len(message) == _LOST.size else 0


@contextmanager
def _short(folder: Path) -> Iterator[str]:
    """Give a name of the socket that is short enough for any folder (``sun_path`` has 108 bytes)."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET}"
    finally:
        os.close(descriptor)
