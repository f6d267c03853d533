# SPDX-License-Identifier: Apache-2.0
"""One end of a two-way transfer, run inside a host: ``python -m emptcp.lab.duplex serve|connect ...``.

The client says hello, waits until the connection has the subflows it should have, and
says go; then both ends send at once what the other can compute itself, and compare every byte. Each prints
one JSON object as its last line.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from dataclasses import asdict, dataclass

from emptcp.lab.sockets import listen, mptcp_info, mptcp_socket, receive_exactly

CHUNK = 65536
JOIN_PATIENCE = 5.0
CLIENT_START, SERVER_START = 0, 85


@dataclass(frozen=True, slots=True)
class Received:
    """What one end got: bytes, how many of them wrong, where the first wrong one was, how long it took.

    ``mptcp`` is whether the connection still was MPTCP at its end, ``subflows`` how many there were before
    the first byte.
    """

    received: int
    wrong: int
    first_wrong: int | None
    seconds: float
    mptcp: bool
    subflows: int


def content(size: int, start: int) -> bytes:
    """``size`` bytes that hold every value in every place of a word.

    Blocks of 256 values are each rotated by another amount, so that a block lost, doubled or moved by less
    than 16 MiB shows. ``start`` tells the two directions apart.
    """
    blocks = [bytes((value + turn) & 255 for value in range(256)) for turn in range(256)]
    count = -(-size // 256)
    turns = ((number + (number >> 8) * 17 + start) & 255 for number in range(count))
    return b"".join(blocks[turn] for turn in turns)[:size]


def compare(got: bytes, wanted: bytes) -> tuple[int, int | None]:
    """How many bytes differ, missing ones included, and the offset of the first."""
    if got == wanted:
        return 0, None
    differ = [at for at, (one, other) in enumerate(zip(got, wanted, strict=False)) if one != other]
    missing = abs(len(got) - len(wanted))
    return len(differ) + missing, differ[0] if differ else min(len(got), len(wanted))


def serve(wildcard: str, size: int, timeout: float) -> Received:
    """Take one connection; say on stdout at which port."""
    with listen(wildcard, timeout=timeout) as listener:
        print(listener.getsockname()[1], flush=True)
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(timeout)
            connection.sendall(receive_exactly(connection, 1))
            receive_exactly(connection, 1)
            return _exchange(connection, size, SERVER_START, CLIENT_START, mptcp_info(connection)[1])


def connect(address: str, port: int, size: int, timeout: float, subflows: int) -> Received:
    """Connect, wait for the subflows, exchange."""
    with mptcp_socket(address, timeout) as connection:
        connection.connect((address, port))
        connection.sendall(b"h")
        receive_exactly(connection, 1)
        found = _wait_for(connection, subflows)
        connection.sendall(b"g")
        return _exchange(connection, size, CLIENT_START, SERVER_START, found)


def _wait_for(connection: socket.socket, subflows: int) -> int:
    deadline = time.monotonic() + JOIN_PATIENCE
    while (found := mptcp_info(connection)[1]) < subflows and time.monotonic() < deadline:
        time.sleep(0.005)
    return found


def _exchange(connection: socket.socket, size: int, ours: int, theirs: int, subflows: int) -> Received:
    begin = time.monotonic()
    sender = threading.Thread(target=_send, args=(connection, content(size, ours)))
    sender.start()
    got = _receive(connection)
    sender.join()
    mptcp, _ = mptcp_info(connection)
    wrong, first = compare(got, content(size, theirs))
    return Received(len(got), wrong, first, time.monotonic() - begin, mptcp, subflows)


def _send(connection: socket.socket, data: bytes) -> None:
    connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


def _receive(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(CHUNK):
        parts.append(part)
    return b"".join(parts)


def main(arguments: list[str]) -> None:
    """``serve WILDCARD SIZE TIMEOUT`` or ``connect ADDRESS PORT SIZE TIMEOUT SUBFLOWS``."""
    match arguments:
        case ["serve", wildcard, size, timeout]:
            result = serve(wildcard, int(size), float(timeout))
        case ["connect", address, port, size, timeout, subflows]:
            result = connect(address, int(port), int(size), float(timeout), int(subflows))
        case _:
            raise SystemExit(f"usage: {main.__doc__}")
    print(json.dumps(asdict(result)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
