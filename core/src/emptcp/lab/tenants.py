# SPDX-License-Identifier: Apache-2.0
"""A guest that shares its hypervisor's links with others, and what a hash per flow can make of that.

A bond that hashes layers 3 and 4, and ECMP, choose one link for a flow's whole life, each as likely as any
other. So instead of drawing ports and waiting for chance, each outcome for a connection's two subflows is
laid by routes to the peer's two addresses, and measured; their mean is what a guest may expect. Which of the
two subflows uses which link makes no difference to a stream, so of outcomes that are alike one is measured,
and counts twice.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from itertools import combinations_with_replacement

from emptcp.lab import namespace
from emptcp.lab.grid import Point
from emptcp.lab.hypervisor import Behind, behind_hypervisor
from emptcp.lab.load import Load

SETTLED = 0.5
"""Seconds after which the others' traffic has filled its link's queue, or not."""

Outcome = tuple[int, int]
"""The places of the links that the two subflows use."""


class Guest:
    """The guest of a lab, whose subflows' links are as a hash may have chosen them: see :meth:`lay`."""

    def __init__(self, lab: Behind, point: Point) -> None:
        self.lab = lab
        self._point = point
        self.worst: Outcome = (0, 0)
        """Both by the first link, which is the one that others use most."""

    def lay(self, outcome: Outcome) -> None:
        """Let the hypervisor send the first subflow by one link, and the second by another or the same."""
        namespace.ip_batch(
            [
                f"route replace {address}/32 via 10.2.{link + 1}.2 dev {self.lab.links[link]}"
                for address, link in zip(self.lab.addresses, outcome, strict=True)
            ],
            netns=self.lab.hypervisor.netns,
        )

    def goodput(self, warm: float, seconds: float) -> float:
        """Return the Mbit/s of a connection of the guest's to the peer."""
        with Load(self.lab, self._point.traffic, subflows=len(self.lab.addresses)) as load:
            return load.run(warm, seconds).mbit

    def mean_of_outcomes(self, warm: float, seconds: float, say: Callable[[str], None]) -> float:
        """Measure every outcome, and return the mean of what a hash gives."""
        total = 0.0
        for outcome, weight in outcomes(len(self.lab.links)):
            self.lay(outcome)
            found = self.goodput(warm, seconds)
            say(f"    by {' and '.join(self.lab.links[link] for link in outcome)}: {found:.2f} Mbit/s")
            total += weight * found
        return total


def outcomes(links: int) -> Iterator[tuple[Outcome, float]]:
    """Yield what a hash can choose for two subflows, as far as it is not alike, and how likely that is."""
    for one, other in combinations_with_replacement(range(links), 2):
        yield (one, other), (1 if one == other else 2) / links**2


@contextlib.contextmanager
def guest(point: Point, name: str) -> Iterator[Guest]:
    """A guest behind a hypervisor whose links are the paths of a point, with its background traffic."""
    with behind_hypervisor(links=point.paths, name=name) as lab:
        lab.b.set("net.ipv4.tcp_rmem", f"4096 131072 {point.receive_buffer}")
        with _background(lab, point.background):
            yield Guest(lab, point)


@contextlib.contextmanager
def _background(lab: Behind, rate: float) -> Iterator[None]:
    """Let others send at a rate by the first link, to a port where nobody reads."""
    if not rate:
        yield
        return
    with lab.peer.call(_sink) as sink:
        port = sink.getsockname()[1]
        lab.hypervisor.start_module("emptcp.lab.flood", "10.2.1.2", str(port), str(rate))
        time.sleep(SETTLED)
        yield


def _sink() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("10.2.1.2", 0))
    return made
