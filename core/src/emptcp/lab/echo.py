# SPDX-License-Identifier: Apache-2.0
"""A connection whose bytes come back, as a context manager::

with echoing(lab) as client:
    client.sendall(b"x")
    assert client.recv(1) == b"x"
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

from emptcp.lab.sockets import listen, mptcp_socket, wildcard
from emptcp.lab.topology import Lab

PIECE = 64 * 1024
PATIENCE = 20.0


@contextlib.contextmanager
def echoing(lab: Lab) -> Iterator[socket.socket]:
    """Connect host a, over the first path, to a server at host b that sends back what it gets."""
    address = lab.paths[0].b.address(4)
    listener = lab.b.call(lambda: listen(wildcard(address), timeout=PATIENCE))
    server = threading.Thread(target=_echo, args=(listener,))
    server.start()
    with listener, lab.a.call(lambda: mptcp_socket(address, timeout=PATIENCE)) as client:
        client.connect((address, listener.getsockname()[1]))
        yield client
        client.shutdown(socket.SHUT_WR)
        server.join(PATIENCE)


def _echo(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        while data := connection.recv(PIECE):
            connection.sendall(data)
