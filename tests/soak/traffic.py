# SPDX-License-Identifier: Apache-2.0
"""One end of many MPTCP connections at once, on which both ends send and check every byte.

Run inside a host: ``python tests/soak/traffic.py serve|connect ADDRESS PORT COUNT RATE``. It says when all
connections are there, sends until its standard input ends, lets every connection end in order, and prints one
JSON object.

What an end sends is told by the connection's number and the end alone, so that the other can compute it: a
byte lost, doubled, moved or from another connection shows.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from dataclasses import asdict, dataclass, field

from emptcp.lab.duplex import content
from emptcp.lab.sockets import listen, mptcp_info, mptcp_socket, receive_exactly

CYCLE = 16 << 20
"""Bytes after which the content repeats."""

PIECE = 16 * 1024
TICK = 0.05
PATIENCE = 60.0
CLIENT, SERVER = 0, 1


@dataclass
class Ended:
    """How the connections of one end went; ``broken`` says of each that failed what happened."""

    sent: dict[int, int] = field(default_factory=dict)
    received: dict[int, int] = field(default_factory=dict)
    wrong: int = 0
    plain: int = 0
    broken: dict[int, str] = field(default_factory=dict)


@dataclass
class Connection:
    """A socket with its number, and how far each direction came; ``told`` and ``heard`` are their ends."""

    socket: socket.socket
    number: int
    role: int
    sent: int = 0
    received: int = 0
    told: bool = False
    heard: bool = False


class End:
    """All connections of one end; ``rate`` is what each sends, in bytes per second."""

    def __init__(self, connections: list[Connection], rate: float) -> None:
        self._whole = content(CYCLE, 0) * 2
        self._open = connections
        self._rate = rate
        self._ready = selectors.DefaultSelector()
        self._stop = False
        self._result = Ended()
        for one in connections:
            one.socket.setblocking(False)
            self._ready.register(one.socket, selectors.EVENT_READ, one)
        self._ready.register(sys.stdin, selectors.EVENT_READ, None)

    def run(self) -> Ended:
        """Send and check until told to stop and all connections have ended."""
        began, deadline = time.monotonic(), float("inf")
        while self._open and time.monotonic() < deadline:
            now = time.monotonic()
            if self._stop and deadline == float("inf"):
                deadline = now + PATIENCE
            for one in list(self._open):
                self._feed(one, int((now - began) * self._rate))
            self._take(now + TICK)
        for one in list(self._open):
            self._end(one, f"it had not ended {PATIENCE:.0f} s after the last byte")
        return self._result

    def _take(self, until: float) -> None:
        """Take what comes until a moment."""
        while (left := until - time.monotonic()) > 0:
            for key, _ in self._ready.select(left):
                if key.data is None:
                    self._stop = True
                    self._ready.unregister(sys.stdin)
                else:
                    self._check(key.data)

    def _feed(self, one: Connection, due: int) -> None:
        """Send what is due by now, as far as the socket takes it."""
        try:
            while due - one.sent >= PIECE and not self._stop:
                at = self._place(one.number, one.role, one.sent)
                one.sent += one.socket.send(self._whole[at : at + PIECE])
            if self._stop and not one.told:
                one.socket.shutdown(socket.SHUT_WR)
                one.told = True
                self._end_if_over(one)
        except BlockingIOError:
            pass
        except OSError as error:
            self._end(one, str(error))

    def _check(self, one: Connection) -> None:
        try:
            got = one.socket.recv(4 * PIECE)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(one, str(error))
            return
        at = self._place(one.number, 1 - one.role, one.received)
        wanted = self._whole[at : at + len(got)]
        if got != wanted:
            self._result.wrong += sum(mine != theirs for mine, theirs in zip(got, wanted, strict=True))
        one.received += len(got)
        if not got:
            one.heard = True
            self._ready.unregister(one.socket)
            self._end_if_over(one)

    def _end_if_over(self, one: Connection) -> None:
        if one.told and one.heard:
            self._end(one, "")

    def _end(self, one: Connection, why: str) -> None:
        self._open.remove(one)
        if not one.heard:
            self._ready.unregister(one.socket)
        self._result.sent[one.number], self._result.received[one.number] = one.sent, one.received
        self._result.plain += not mptcp_info(one.socket)[0]
        if why:
            self._result.broken[one.number] = why
        one.socket.close()

    @staticmethod
    def _place(number: int, role: int, offset: int) -> int:
        """Return where in the content a connection's byte is found."""
        return (number * 65_521 + role * 8_388_593 + offset) % CYCLE


def connect(address: str, port: int, count: int) -> list[Connection]:
    """Open connections; the first four bytes on each are its number."""
    made = []
    for number in range(count):
        one = mptcp_socket(address, PATIENCE)
        one.connect((address, port))
        one.sendall(number.to_bytes(4, "big"))
        made.append(Connection(one, number, CLIENT))
    return made


def accept(listener: socket.socket, count: int) -> list[Connection]:
    """Take so many connections."""
    made = []
    for _ in range(count):
        one, _ = listener.accept()
        one.settimeout(PATIENCE)
        made.append(Connection(one, int.from_bytes(receive_exactly(one, 4), "big"), SERVER))
    return made


def main(role: str, address: str, port: int, count: int, rate: float) -> None:
    """Be one end, and print how it went."""
    if role == "serve":
        with listen(address, port, PATIENCE) as listener:
            listener.listen(count)
            print(listener.getsockname()[1], flush=True)
            made = accept(listener, count)
            print("ready", flush=True)
            ended = End(made, rate).run()
    else:
        made = connect(address, port, count)
        print("ready", flush=True)
        ended = End(made, rate).run()
    print(json.dumps(asdict(ended)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:5]), float(sys.argv[5]))
