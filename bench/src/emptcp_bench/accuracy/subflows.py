# SPDX-License-Identifier: Apache-2.0
"""blk_subflow and add_subflow: whether a subflow comes up, and how soon after it was given back."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

from emptcp.chain import apply
from emptcp.hooks import namespaces
from emptcp.lab.host import Host
from emptcp.lab.sockets import listen, mptcp_socket, receive_exactly, wildcard
from emptcp.lab.topology import Lab
from emptcp.mptcp.sockets import SubflowReader
from emptcp.packet.decode import decode
from emptcp.packet.mptcp import AddAddress, MpJoinSynAck
from emptcp_bench.accuracy.rounds import measured
from emptcp_bench.accuracy.row import Row
from emptcp_bench.accuracy.stream import RTT, TABLE, hosts, put

CONNECTIONS, LIFE = 20, 10.0
AFTER = (4, 25)
"""Seconds between blocking and giving back. Linux repeats an announcement for 2 s."""

ETH_P_ALL = 3


class Connections(ExitStack):
    """Connections from host a to host b over the first path, on which something is said."""

    def __init__(self, lab: Lab, number: int) -> None:
        super().__init__()
        self._lab = lab
        self._reader = self.enter_context(SubflowReader())
        address = lab.paths[0].b.address(4)
        listener = self.enter_context(lab.b.call(lambda: listen(wildcard(address), timeout=10)))
        self._port = listener.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        for _ in range(number):
            client = self.enter_context(lab.a.call(lambda: mptcp_socket(address, timeout=10)))
            client.connect((address, self._port))
            self._pairs.append((client, self.enter_context(listener.accept()[0])))

    def talk(self) -> None:
        """Say something both ways on each."""
        for pair in self._pairs:
            for one, other in (pair, pair[::-1]):
                one.sendall(b"x" * 1000)
                other.settimeout(10)
                receive_exactly(other, 1000)

    def subflows(self) -> int:
        """Return how many open subflows they have at the client."""
        found = self._reader.read(namespaces.resolve(self._lab.a.netns))
        return sum(one.open and one.remote_port == self._port for one in found)


def blocked(rounds: int, _quick: bool) -> Iterator[Row]:
    """Connections that talk for a while, to a host that announces a second address."""
    with hosts("k") as lab:
        found = measured(rounds, lambda: _blocked(lab))
    asked = f"no subflow on {CONNECTIONS} connections in {LIFE:g} s"
    yield Row("blk_subflow", asked, found, "subflows", most=0)


def _blocked(lab: Lab) -> float:
    put(lab, "ingress", "blk_subflow()", dev="path*")
    with Connections(lab, CONNECTIONS) as connections:
        ends, most = time.monotonic() + LIFE, 0
        while time.monotonic() < ends:
            connections.talk()
            most = max(most, connections.subflows() - CONNECTIONS)
            time.sleep(0.5)
    apply.remove(TABLE, keep_effects=True)
    return most


def given_back(rounds: int, _quick: bool) -> Iterator[Row]:
    """From the announcement that leaves host b until host a has the answer to its join."""
    with hosts("g") as lab:
        for after in AFTER:
            found = measured(rounds, partial(_given_back, lab, after))
            asked = f"established after an address was kept back for {after} s"
            yield Row("add_subflow", asked, found, "RTT", most=2)


def _given_back(lab: Lab, after: float) -> float:
    put(lab, "egress", "blk_subflow()", dev="path*", at="b")
    try:
        with Connections(lab, 1) as connections:
            connections.talk()
            time.sleep(after)
            with (
                Tap(lab.b, "path1", lambda option: isinstance(option, AddAddress)) as announced,
                Tap(lab.a, "path2", lambda option: isinstance(option, MpJoinSynAck)) as joined,
            ):
                put(lab, "egress", "add_subflow()", dev="path*", at="b")
                joined.wait()
            return (joined.at - announced.at) / RTT
    finally:
        apply.remove(TABLE)


class Tap(threading.Thread):
    """Waits for the first frame of a device that has an option, and notes when it was seen."""

    def __init__(self, host: Host, device: str, wanted: Callable[[object], bool]) -> None:
        super().__init__(daemon=True)
        self._socket = host.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
        self._socket.bind((device, ETH_P_ALL))
        self._socket.settimeout(10)
        self._wanted = wanted
        self._seen = threading.Event()
        self.at = 0.0

    def run(self) -> None:
        """Look at every frame until the wanted one came, or nothing does any more."""
        try:
            while True:
                packet, now = decode(self._socket.recv(65536)), time.monotonic()
                if packet.tcp is not None and any(self._wanted(one.option) for one in packet.tcp.options):
                    self.at = now
                    self._seen.set()
                    return
        except OSError:
            return

    def wait(self) -> None:
        """Wait until it was seen. Raises TimeoutError."""
        if not self._seen.wait(10):
            raise TimeoutError("no subflow was joined within 10 s")

    def __enter__(self) -> Tap:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._seen.wait(1)
        self._socket.close()
