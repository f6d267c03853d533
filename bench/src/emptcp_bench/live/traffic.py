# SPDX-License-Identifier: Apache-2.0
"""Many flows at a time from host a to host b: one that ends is followed by another.

Sizes are those of a web search's background and query traffic (M. Alizadeh et al., Data Center TCP (DCTCP),
SIGCOMM 2010, figure 4), as tables of it are used since.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import socket
import time
from dataclasses import dataclass
from itertools import cycle, pairwise
from random import Random
from typing import Self

from emptcp.errors import EmptcpError
from emptcp.lab.sockets import mptcp_socket, wildcard
from emptcp.lab.topology import Lab

SIZES = (
    (0, 0.0),
    (10_000, 0.15),
    (20_000, 0.20),
    (30_000, 0.30),
    (50_000, 0.40),
    (80_000, 0.53),
    (200_000, 0.60),
    (1_000_000, 0.70),
    (2_000_000, 0.80),
    (5_000_000, 0.90),
    (10_000_000, 0.97),
    (30_000_000, 1.00),
)
"""Bytes, and the share of flows that have no more."""

ENDLESS = 1 << 40
MOST_BROKEN = 0.01
"""Of the flows at a time, how many may break until a measurement ends."""
PIECE = 256 * 1024
SOCKETS = 512
"""How many are made at once: each time takes a thread that enters the namespace."""

_OTHER_FILES = 1024
RECEIVER = "emptcp_bench.live.receiver"


def draw(random: Random) -> int:
    """Draw the bytes of a flow, at least one; between two points every size is as likely."""
    wanted = random.random()
    for (least, below), (most, share) in pairwise(SIZES):
        if wanted <= share:
            return max(1, round(least + (most - least) * (wanted - below) / (share - below)))
    return SIZES[-1][0]


@dataclass
class Flow:
    """A flow that was begun at ``began``, and has ``left`` bytes to send."""

    client: socket.socket
    left: int
    began: float


class Flows(contextlib.ExitStack):
    """``number`` flows at a time, by each path in turn, the first ``endless`` of which never end.

    A context manager.
    """

    def __init__(self, lab: Lab, number: int, *, endless: int = 0, seed: int = 1) -> None:
        super().__init__()
        self._lab, self._number, self._endless, self._random = lab, number, endless, Random(seed)
        self._addresses = cycle(path.b.address(lab.family) for path in lab.paths)
        self._spare: list[socket.socket] = []
        self._flows: dict[int, Flow] = {}
        self._piece = bytes(PIECE)
        self.sent = 0
        """Bytes that connections took to send."""
        self.broken = 0
        """Flows that broke."""
        self.seconds: list[float] = []
        """How long each flow took that has ended, from its SYN until host b had closed it."""

    def __enter__(self) -> Self:
        self.callback(self._close)
        need_files(self._number + SOCKETS)
        self._poll = self.enter_context(contextlib.closing(select.epoll()))
        self._port = self._start_receiver()
        for number in range(self._number):
            self._begin(ENDLESS if number < self._endless else draw(self._random))
        return self

    @property
    def endless(self) -> tuple[str, int]:
        """Address and port of the first flow, which never ends, at host a."""
        first = next(iter(self._flows.values()))
        address, port, *_ = first.client.getsockname()
        return str(address), int(port)

    def __len__(self) -> int:
        """Return how many there are now."""
        return len(self._flows)

    def run(self, seconds: float) -> None:
        """Let them go on for so long."""
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            for number, event in self._poll.poll(left, 1024):
                self._step(self._flows[number], event)

    def _start_receiver(self) -> int:
        at = wildcard(next(self._addresses))
        receiver = self._lab.b.start_module(RECEIVER, at, f"{self._number + SOCKETS}")
        assert receiver.stdout is not None
        port = receiver.stdout.readline().strip()
        if not port:
            raise EmptcpError(f"host b can't receive: {receiver.communicate()[1].strip()}")
        return int(port)

    def _begin(self, size: int) -> None:
        address = next(self._addresses)
        if not self._spare:
            self._spare = self._lab.a.call(lambda: [mptcp_socket(address) for _ in range(SOCKETS)])
        client = self._spare.pop()
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            client.connect((address, self._port))
        self._flows[client.fileno()] = Flow(client, size, time.monotonic())
        self._poll.register(client, select.EPOLLOUT)

    def _step(self, flow: Flow, event: int) -> None:
        if event & select.EPOLLERR:
            self._break(flow)
        elif flow.left:
            self._send(flow)
        elif event & (select.EPOLLIN | select.EPOLLHUP):
            self._end(flow)

    def _send(self, flow: Flow) -> None:
        try:
            count = flow.client.send(memoryview(self._piece)[: min(flow.left, PIECE)])
        except BlockingIOError:
            return
        self.sent += count
        flow.left -= count
        if not flow.left:
            self._poll.modify(flow.client, select.EPOLLIN)
            flow.client.shutdown(socket.SHUT_WR)

    def _end(self, flow: Flow) -> None:
        """A flow has ended: the next one."""
        self.seconds.append(time.monotonic() - flow.began)
        self._replace(flow)

    def _break(self, flow: Flow) -> None:
        """A flow broke, as a few do of thousands that share two paths: the next one."""
        self.broken += 1
        if flow.left > ENDLESS // 2 or self.broken > self._number * MOST_BROKEN:
            raise EmptcpError(f"{self.broken} flows to host b broke, the last one: {_error(flow.client)}")
        self._replace(flow)

    def _replace(self, flow: Flow) -> None:
        del self._flows[flow.client.fileno()]
        flow.client.close()
        self._begin(draw(self._random))

    def _close(self) -> None:
        for one in (*(flow.client for flow in self._flows.values()), *self._spare):
            one.close()


def need_files(sockets: int) -> None:
    """Let this process open so many sockets. Raises EmptcpError when that is not allowed."""
    wanted = sockets + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
    except (OSError, ValueError):
        raise EmptcpError(
            f"{wanted} open files are needed, and {hard} are allowed", fix=f"Run: ulimit -Hn {wanted}"
        ) from None


def _error(one: socket.socket) -> str:
    number = one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return os.strerror(number) if number else "no reason given"
