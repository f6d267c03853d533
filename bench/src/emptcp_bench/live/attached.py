# SPDX-License-Identifier: Apache-2.0
"""Programs on the devices of host b, and what they took by the kernel's own statistics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from emptcp.hooks import attach, devices, namespaces
from emptcp.lab import namespace, offload
from emptcp.lab.host import Host
from emptcp.lab.path import Path
from emptcp.lab.topology import Lab, two_hosts
from emptcp.pybpf import Program

RATE = 1e9
"""bit/s of each path, as of the network cards that the paper had."""

PATHS = 2
BURST, QUEUE = 128 * 1024, 4 * 1024 * 1024
BUFFERS = {"net.ipv4.tcp_rmem": "4096 131072 6291456", "net.ipv4.tcp_wmem": "4096 16384 4194304"}
"""As kernels have them: with the lab's usual ones 10,000 connections would take the machine's memory."""


@contextmanager
def hosts(name: str, rate: float | None = RATE) -> Iterator[Lab]:
    """Two hosts with two paths, whose devices take merged packets as usual network cards do.

    ``rate`` is in bit/s; ``None``: as fast as the machine. A connection keeps to the path that it began on:
    one with two subflows stands still for good on Linux 6.18 once what came out of order has filled its
    buffer, which frames from XDP, a page each on a veth pair, soon do.
    """
    with two_hosts([Path()] * PATHS, link="veth", name=name) as lab:
        names = [path.name for path in lab.paths]
        namespace.ip(["mptcp", "limits", "set", "subflows", "0", "add_addr_accepted", "0"], netns=lab.a.netns)
        for host in (lab.a, lab.b):
            host.call(lambda: offload.turn_on(names))
            for setting, value in BUFFERS.items():
                host.set(setting, value)
            host.set("net.core.somaxconn", 4096)
            host.set("net.ipv4.tcp_max_syn_backlog", 16384)
            host.set("net.ipv4.ip_local_port_range", "1024 65535")
            if rate:
                _shape(host, names, rate)
        yield lab


def _shape(host: Host, names: Sequence[str], rate: float) -> None:
    shape = ["tbf", "rate", f"{rate:.0f}bit", "burst", f"{BURST}", "limit", f"{QUEUE}"]
    for device in names:
        namespace.tc(["qdisc", "add", "dev", device, "root", *shape], netns=host.netns)


@dataclass(frozen=True)
class Spent:
    """How often a program ran, and for how many nanoseconds altogether."""

    runs: int
    time: int

    def __sub__(self, earlier: Spent) -> Spent:
        """Return what was spent since."""
        return Spent(self.runs - earlier.runs, self.time - earlier.time)


def spent(program: Program) -> Spent:
    """Read the kernel's statistics, which have to be on (:class:`emptcp.pybpf.Statistics`)."""
    info = program.info
    return Spent(info.run_count, info.run_time)


class Attached(ExitStack):
    """A program at ``ingress`` of every path at host b; another one takes its place between two packets.

    A context manager. (To detach and attach at XDP would stop a device for a moment, and with it the flows.)
    """

    def __init__(self, lab: Lab, program: Program, backend: str) -> None:
        super().__init__()
        there = namespaces.resolve(lab.b.netns)
        self._places: list[attach.Attached] = []
        with ExitStack() as stack:
            for path in lab.paths:
                device = devices.find(there, path.b.device)
                self._places.append(attach.attach(there, device, "ingress", backend, program))
                stack.callback(self._detach, len(self._places) - 1)
            self.push(stack.pop_all())

    def switch(self, program: Program) -> None:
        """Let another program run from the next packet on."""
        self._places = [place.switch(program) for place in self._places]

    def _detach(self, number: int) -> None:
        self._places[number].detach()
