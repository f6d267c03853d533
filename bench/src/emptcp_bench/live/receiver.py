# SPDX-License-Identifier: Apache-2.0
"""The receiving end of flows, a process of its own: ``python -m emptcp_bench.live.receiver WILDCARD NUMBER``.

Says at which port it listens, throws away what connections bring, and closes those that ended.
"""

from __future__ import annotations

import contextlib
import select
import socket
import sys

from emptcp.lab.sockets import listen
from emptcp_bench.live.traffic import need_files

PIECE = 256 * 1024
BACKLOG = 4096


class Receiver:
    """Takes connections at the wildcard address until the process is ended."""

    def __init__(self, wildcard: str) -> None:
        self._listener = listen(wildcard, backlog=BACKLOG)
        self._listener.setblocking(False)
        self._connections: dict[int, socket.socket] = {}
        self._buffer = bytearray(PIECE)
        self._poll = select.epoll()
        self._poll.register(self._listener, select.EPOLLIN)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listener.getsockname()[1])

    def run(self) -> None:
        """Receive for ever."""
        while True:
            for number, _ in self._poll.poll(maxevents=1024):
                if number == self._listener.fileno():
                    self._accept()
                else:
                    self._receive(number)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                connection, _ = self._listener.accept()
                connection.setblocking(False)
                self._connections[connection.fileno()] = connection
                self._poll.register(connection, select.EPOLLIN)

    def _receive(self, number: int) -> None:
        try:
            count = self._connections[number].recv_into(self._buffer)
        except BlockingIOError:
            return
        except ConnectionError:
            count = 0
        if not count:
            self._connections.pop(number).close()


def main(wildcard: str, number: str) -> None:
    """Listen for so many connections at a time, say where, and receive."""
    need_files(int(number))
    receiver = Receiver(wildcard)
    print(receiver.port, flush=True)
    receiver.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
