# SPDX-License-Identifier: Apache-2.0
"""Sends every byte value both ways over one MPTCP connection between two hosts and compares every byte."""

from __future__ import annotations

import contextlib
import json
import subprocess
from dataclasses import dataclass

from emptcp.errors import EmptcpError
from emptcp.lab import process
from emptcp.lab.duplex import Received
from emptcp.lab.host import Host
from emptcp.lab.sockets import wildcard

MODULE = "emptcp.lab.duplex"


@dataclass(frozen=True, slots=True)
class Transfer:
    """How a two-way transfer went.

    ``at_a`` and ``at_b`` are what each host received. ``counters_a`` and ``counters_b`` hold how far the
    hosts' TCP and MPTCP counters (named as nstat does) moved meanwhile; those that stood still are left out.
    ``sent_a`` and ``sent_b`` are bytes of frames that left each device, by device.
    """

    size: int
    at_a: Received
    at_b: Received
    counters_a: dict[str, int]
    counters_b: dict[str, int]
    sent_a: dict[str, int]
    sent_b: dict[str, int]

    @property
    def intact(self) -> bool:
        """Whether both hosts received exactly what the other sent."""
        return all(end.received == self.size and not end.wrong for end in (self.at_a, self.at_b))

    @property
    def mptcp(self) -> bool:
        """Whether the connection was MPTCP to its end, on both hosts."""
        return self.at_a.mptcp and self.at_b.mptcp

    @property
    def subflows(self) -> int:
        """How many subflows the connection had before the first byte."""
        return self.at_a.subflows

    @property
    def bad_checksums(self) -> int:
        """TCP segments the two hosts threw away for their checksum."""
        return sum(moved.get("TcpInCsumErrors", 0) for moved in (self.counters_a, self.counters_b))


@dataclass(frozen=True, slots=True)
class Order:
    """What to transfer: bytes each way, host b's address, subflows to wait for, and seconds it may take."""

    size: int
    address: str
    subflows: int
    timeout: float


def run(a: Host, b: Host, order: Order) -> Transfer:
    """Host b listens, host a connects; both send ``order.size`` bytes at once.

    Waits up to five seconds for the subflows before the first byte, and goes on with fewer then. Raises
    EmptcpError when either end fails or the time is over. Wrong content is no error but said in the result.
    """
    before = [_standings(host) for host in (a, b)]
    with contextlib.ExitStack() as children:
        at_a, at_b = _both_ends(a, b, order, children)
    after = [_standings(host) for host in (a, b)]
    (counters_a, sent_a), (counters_b, sent_b) = map(_moved, before, after)
    return Transfer(order.size, at_a, at_b, counters_a, counters_b, sent_a, sent_b)


def _both_ends(a: Host, b: Host, order: Order, children: contextlib.ExitStack) -> tuple[Received, Received]:
    size, timeout = str(order.size), str(order.timeout)
    server = b.start_module(MODULE, "serve", wildcard(order.address), size, timeout)
    children.callback(process.end, server)
    port = _line(server, "b")
    client = a.start_module(MODULE, "connect", order.address, port, size, timeout, str(order.subflows))
    children.callback(process.end, client)
    return _result(client, "a", order.timeout), _result(server, "b", order.timeout)


def _line(child: subprocess.Popen[str], host: str) -> str:
    assert child.stdout is not None
    line = child.stdout.readline().strip()
    if not line:
        raise _failed(child, host, child.communicate()[1])
    return line


def _result(child: subprocess.Popen[str], host: str, timeout: float) -> Received:
    try:
        said, complaint = child.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        raise EmptcpError(f"the transfer took over {timeout:g} s at host {host}") from None
    if child.returncode != 0:
        raise _failed(child, host, complaint)
    return Received(**json.loads(said))


def _failed(child: subprocess.Popen[str], host: str, complaint: str) -> EmptcpError:
    last = (complaint.strip().splitlines() or [f"exit status {child.returncode}"])[-1]
    return EmptcpError(f"the transfer failed at host {host}: {last}")


def _standings(host: Host) -> tuple[dict[str, int], dict[str, int]]:
    return host.counters(), host.sent()


def _moved(
    before: tuple[dict[str, int], dict[str, int]], after: tuple[dict[str, int], dict[str, int]]
) -> tuple[dict[str, int], dict[str, int]]:
    counters, sent = (
        {name: value - old.get(name, 0) for name, value in new.items() if value != old.get(name, 0)}
        for old, new in zip(before, after, strict=True)
    )
    return counters, sent
