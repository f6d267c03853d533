# SPDX-License-Identifier: Apache-2.0
"""Traffic of this process's own from host a to host b, counted where the receiving program reads it."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from emptcp.errors import EmptcpError
from emptcp.lab.grid import Traffic
from emptcp.lab.host import Host
from emptcp.lab.meter import Meter
from emptcp.lab.sockets import listen, mptcp_socket, wildcard

PIECE = 256 * 1024
SMALL_PIECE = 16 * 1024
"""What is written at once where a rate is to be kept."""
JOINED = 3.0
"""Seconds in which all subflows must be there: a join that is lost is not tried again by the kernel."""
ATTEMPTS = 5
BACKLOG = 128


@dataclass(frozen=True, slots=True)
class Outcome:
    """Mbit/s that programs read at host b; bytes acknowledged by path (MPTCP only); seconds of each file."""

    mbit: float
    by_path: Mapping[str, int] = field(default_factory=dict)
    completions: tuple[float, ...] = ()


class Hosts(Protocol):
    """Two hosts of a lab: ``a`` connects to ``address`` of ``b``; ``path_names`` are the paths of a's own."""

    @property
    def a(self) -> Host:
        """Who sends."""

    @property
    def b(self) -> Host:
        """Who receives."""

    @property
    def address(self) -> str:
        """The address to connect to."""

    @property
    def path_names(self) -> Mapping[str, str]:
        """Address of a -> path."""


class Load(contextlib.ExitStack):
    """Sends over MPTCP, with so many ``subflows`` of each connection before the first byte that counts, or
    with none over plain TCP by the first path. A context manager."""

    def __init__(self, lab: Hosts, traffic: Traffic, *, subflows: int) -> None:
        super().__init__()
        self._lab, self._traffic, self._subflows = lab, traffic, subflows
        self._address = lab.address
        self._meter = self.enter_context(Meter(lab.a))
        self._listener = self.enter_context(lab.b.call(self._listen))
        self._buffer, self._piece = bytearray(PIECE), bytes(PIECE)

    def _listen(self) -> socket.socket:
        if self._subflows:
            return listen(wildcard(self._address), timeout=10, backlog=BACKLOG)
        made = self._plain()
        made.bind((wildcard(self._address), 0))
        made.listen(BACKLOG)
        return made

    def _plain(self) -> socket.socket:
        made = socket.socket(socket.AF_INET6 if ":" in self._address else socket.AF_INET)
        made.settimeout(10)
        return made

    def _connect(self) -> tuple[socket.socket, socket.socket]:
        client = self._lab.a.call(
            lambda: mptcp_socket(self._address, 10) if self._subflows else self._plain()
        )
        client.connect((self._address, self._listener.getsockname()[1]))
        return client, self._listener.accept()[0]

    def run(self, warm: float, seconds: float) -> Outcome:
        """Send for ``warm`` and ``seconds`` s, of which the latter count. Raises EmptcpError when a join is
        lost again and again, OSError when a connection breaks."""
        if self._traffic.size is not None:
            return self._files(self._traffic.size, warm + seconds)
        with _Streams(self._joined(), self._traffic.rate) as streams:
            streams.send(warm)
            before, acked = streams.received, self._acked()
            took = streams.send(seconds)
            by_path = {path: count - acked.get(path, 0) for path, count in self._acked().items()}
            return Outcome((streams.received - before) * 8e-6 / took, by_path)

    def _joined(self) -> list[tuple[socket.socket, socket.socket]]:
        """Open the connections, until all have all their subflows."""
        wanted = self._traffic.connections * self._subflows
        for _ in range(ATTEMPTS):
            pairs = [self._connect() for _ in range(self._traffic.connections)]
            for client, server in pairs:
                client.sendall(b"x")
                server.recv(1)
            deadline = time.monotonic() + JOINED
            while time.monotonic() < deadline:
                if len(self._meter.read()) >= wanted:
                    return pairs
                time.sleep(0.02)
            for end in (end for pair in pairs for end in pair):
                end.close()
        raise EmptcpError(
            f"{ATTEMPTS} times some of {wanted} subflows did not come about within {JOINED:g} s",
            fix="See whether the machine is busy, and MPTCP on: sysctl net.mptcp.enabled",
        )

    def _acked(self) -> dict[str, int]:
        names = self._lab.path_names
        found: dict[str, int] = {}
        for one in self._meter.read():
            if one.local in names:
                found[names[one.local]] = found.get(names[one.local], 0) + one.acked
        return found

    def _files(self, size: int, seconds: float) -> Outcome:
        """Send one file after the other, each over a connection of its own, two at least."""
        taken: list[float] = []
        began = time.monotonic()
        while len(taken) < 2 or time.monotonic() - began < seconds:
            started = time.monotonic()
            client, server = self._connect()
            with _Streams([(client, server)], None, size) as streams:
                streams.send(60.0)
                if streams.received < size:
                    raise EmptcpError(f"a file of {size} bytes took over 60 s")
            taken.append(time.monotonic() - started)
        return Outcome(size * len(taken) * 8e-6 / sum(taken), completions=tuple(taken))


class _Streams:
    """Connections between sockets of this process, which send and read in turns."""

    def __init__(
        self, pairs: list[tuple[socket.socket, socket.socket]], rate: float | None, size: int | None = None
    ) -> None:
        self.received = 0
        self._pairs, self._rate, self._size = pairs, rate, size
        self._left = {client: size for client, _ in pairs}
        self._due = dict.fromkeys(self._left, time.monotonic())
        self._piece, self._buffer = bytes(SMALL_PIECE if rate else PIECE), bytearray(PIECE)
        self._selector = selectors.DefaultSelector()
        for client, server in pairs:
            client.setblocking(False)
            server.setblocking(False)
            self._selector.register(server, selectors.EVENT_READ)
            if rate is None:
                self._selector.register(client, selectors.EVENT_WRITE)

    def send(self, seconds: float) -> float:
        """Send for so long, or until all is read; return how long it took."""
        began = time.monotonic()
        while (now := time.monotonic()) < began + seconds:
            if self._rate is not None:
                self._pace(now)
            for key, events in self._selector.select(0.005):
                self._turn(key.fileobj, events)  # type: ignore[arg-type]
            if self._size is not None and self.received >= self._size:
                break
        return time.monotonic() - began

    def _turn(self, end: socket.socket, events: int) -> None:
        with contextlib.suppress(BlockingIOError):
            if events & selectors.EVENT_READ:
                self.received += end.recv_into(self._buffer)
            else:
                self._write(end)

    def _write(self, client: socket.socket) -> None:
        left = self._left[client]
        if left is None:
            client.send(self._piece)
            return
        left = self._left[client] = left - client.send(self._piece[:left])
        if not left:
            self._selector.unregister(client)

    def _pace(self, now: float) -> None:
        """Write what the rate has made due, and be at most 200 ms behind: a program that waits loses time."""
        assert self._rate is not None
        for client in self._left:
            self._due[client] = max(self._due[client], now - 0.2)
            with contextlib.suppress(BlockingIOError):
                while self._due[client] <= now:
                    self._due[client] += client.send(self._piece) * 8 / self._rate

    def __enter__(self) -> _Streams:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        for end in (end for pair in self._pairs for end in pair):
            end.close()
