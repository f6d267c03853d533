# SPDX-License-Identifier: Apache-2.0
"""A one-way MPTCP stream that lasts until it is stopped: ``python -m emptcp.lab.traffic receive|send ...``.

``receive WILDCARD [PORT]`` says at which port it listens and takes one connection after the other.
``send ADDRESS PORT`` sends as fast as the connection takes it, until it is ended or the peer is gone.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys

from emptcp.errors import EmptcpError
from emptcp.lab import process
from emptcp.lab.host import Host
from emptcp.lab.sockets import listen, mptcp_socket, wildcard

MODULE = "emptcp.lab.traffic"
PIECE = 256 * 1024


def receive(at: str, port: int) -> None:
    """Take connections one by one and throw away what they bring."""
    buffer = bytearray(PIECE)
    with listen(at, port) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(ConnectionError):
                while connection.recv_into(buffer):
                    pass


def send(address: str, port: int) -> None:
    """Send as fast as the connection takes it."""
    piece = bytes(range(256)) * (PIECE // 256)
    with mptcp_socket(address) as connection, contextlib.suppress(ConnectionError):
        connection.connect((address, port))
        while True:
            connection.sendall(piece)


def start(a: Host, b: Host, address: str) -> subprocess.Popen[str]:
    """Let host a send to ``address`` of host b from now on; returns the sender. Both end with the lab."""
    receiver = b.start_module(MODULE, "receive", wildcard(address))
    assert receiver.stdout is not None
    port = receiver.stdout.readline().strip()
    if not port:
        said = receiver.communicate()[1].strip().splitlines() or ["no reason given"]
        raise EmptcpError(
            f"host b can't receive: {said[-1]}", fix="See whether MPTCP is on: sysctl net.mptcp.enabled"
        )
    return a.start_module(MODULE, "send", address, port)


def main(arguments: list[str]) -> None:
    """``receive WILDCARD [PORT]`` or ``send ADDRESS PORT``."""
    process.go_first()
    with contextlib.suppress(KeyboardInterrupt):
        match arguments:
            case ["receive", at, *port]:
                receive(at, int(port[0]) if port else 0)
            case ["send", address, port]:
                send(address, int(port))
            case _:
                raise SystemExit(f"usage: {main.__doc__}")


if __name__ == "__main__":
    main(sys.argv[1:])
