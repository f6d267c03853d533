# SPDX-License-Identifier: Apache-2.0
"""What the use cases measure, fixed before it is measured: paths, buffers, traffic, and what is compared.

The first path of a point is its best one, by rate and by round-trip time: plain TCP is sent over that.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path as File

from emptcp.lab.path import Path

POLICIES = File(__file__).parent / "policies"

TUNED = 32 << 20
"""Bytes that a receive buffer may grow to where it shall not matter."""
DEFAULT = 6 << 20
"""The kernel's own limit on most machines (tcp_rmem)."""
SMALL = 256 << 10

KERNEL, BACKUP, TCP = "kernel", "kernel, last path backup", "TCP on path1"
DISJOINT = "kernel, path2 not announced"
HASH = "a hash per flow, mean of its outcomes"
"""What emptcp is compared with: MPTCP as the kernel does it, with a subflow on every path; with the last
path's address announced as backup (``ip mptcp endpoint .. backup``); without the second path's; plain TCP
over the best path; what a hypervisor does with a guest's subflows that knows nothing of them."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What host a sends to host b: ``connections`` at once, each at ``rate`` bit/s (``None``: as fast as it
    can), or, with a ``size``, one connection of so many bytes after the other."""

    connections: int = 1
    rate: float | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """What is compared, and whether more of it is better."""

    name: str
    unit: str
    more: bool = True


GOODPUT = Metric("goodput", "Mbit/s")
SPARED = Metric("bytes that path1 carries", "%")
COMPLETION = Metric("completion", "ms", more=False)


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a grid; ``receive_buffer`` is the most that one grows to, in bytes.

    ``background`` is what others send by path1 meanwhile, in bit/s, and take no notice of what is lost.
    """

    name: str
    paths: tuple[Path, ...]
    metric: Metric
    traffic: Traffic = Traffic()
    receive_buffer: int = TUNED
    background: float = 0


@dataclass(frozen=True, slots=True)
class UseCase:
    """A question and its grid. ``quick`` is the point that is enough to see whether it works at all;
    ``begins`` is how many subflows a connection with emptcp has at first (0: one on every path). Beside
    ``policy`` there is a file ``NAME-N.toml`` for points with another number of paths, N, than its own.

    ``guest``: a guest behind a hypervisor sends, over two subflows; the paths are the hypervisor's links."""

    name: str
    help: str
    policy: File
    against: tuple[str, ...]
    points: tuple[Point, ...]
    quick: Point
    begins: int = 0
    guest: bool = False

    def policy_of(self, point: Point) -> File:
        """Return the policy file for a point."""
        other = self.policy.with_name(f"{self.policy.stem}-{len(point.paths)}{self.policy.suffix}")
        return other if other.exists() else self.policy


def _unlike(rates: tuple[float, float], rtts: tuple[float, float]) -> tuple[Path, ...]:
    """Return paths of so many Mbit/s and milliseconds."""
    return tuple(Path(rate=rate * 1e6, rtt=rtt / 1e3) for rate, rtt in zip(rates, rtts, strict=True))


def _heterogeneous() -> UseCase:
    buffers = {"256k": SMALL, "6m": DEFAULT}
    streams = [
        Point(f"{rates[0]}/{rates[1]} Mbit/s, {rtts[0]}/{rtts[1]} ms, {buffer} buffer",
              _unlike(rates, rtts), GOODPUT, receive_buffer=buffers[buffer])
        for rates in ((20, 20), (20, 5))
        for rtts in ((20, 50), (20, 200))
        for buffer in buffers
    ]  # fmt: skip
    files = [
        Point(f"20/20 Mbit/s, 20/{slow} ms, files of 1 MB",
              _unlike((20, 20), (20, slow)), COMPLETION, Traffic(size=1_000_000), DEFAULT)
        for slow in (50, 200)
    ]  # fmt: skip
    many = Point("20/20 Mbit/s, 20/50 ms, 6m buffer, 100 connections",
                 _unlike((20, 20), (20, 50)), GOODPUT, Traffic(connections=100), DEFAULT)  # fmt: skip
    return UseCase(
        "heterogeneous",
        "a fast and a slow path; the scheduler ecf against the kernel's own, and TCP on the fast one",
        POLICIES / "heterogeneous.toml",
        (KERNEL, TCP),
        (*streams, *files, many),
        quick=streams[0],
    )


def _overflow() -> UseCase:
    paths = _unlike((20, 10), (20, 40))
    light = [
        Point(f"{rate} Mbit/s wanted of 20/10", paths, SPARED, Traffic(rate=rate * 1e6))
        for rate in (4, 8, 16)
    ]
    full = Point("all that 20/10 Mbit/s carry", paths, GOODPUT)
    return UseCase(
        "overflow",
        "a path that costs is used only when the other one is full: the scheduler weighted",
        POLICIES / "overflow.toml",
        (KERNEL, BACKUP),
        (*light, full),
        quick=light[1],
    )


def _small_flows() -> UseCase:
    paths = _unlike((20, 20), (20, 20))
    points = [
        Point(f"files of {size} KB", paths, COMPLETION, Traffic(size=size * 1000))
        for size in (5, 20, 70, 220)
    ]
    return UseCase(
        "small-flows",
        "short connections on two like paths: one subflow first, by the path manager gradual",
        POLICIES / "small-flows.toml",
        (KERNEL, TCP),
        tuple(points),
        quick=points[1],
        begins=1,
    )


def _shared_bottleneck() -> UseCase:
    def paths(queue: int | None) -> tuple[Path, ...]:
        shared = [Path(rate=20e6, rtt=rtt, queue=queue, link="shared") for rtt in (0.02, 0.04)]
        return (*shared, Path(rate=20e6, rtt=0.02, queue=queue))

    points = [
        Point(f"queues of {queue}, {buffer} buffer", paths(size), GOODPUT, receive_buffer=limit)
        for queue, size in (("64 KB", None), ("16 KB", 16 << 10))
        for buffer, limit in (("256k", SMALL), ("6m", DEFAULT))
    ]
    many = Point("queues of 64 KB, 6m buffer, 20 connections", paths(None), GOODPUT, Traffic(20), DEFAULT)
    return UseCase(
        "shared-bottleneck",
        "long connections on three paths, two of which go by one link: the path manager gradual",
        POLICIES / "shared-bottleneck.toml",
        (KERNEL, DISJOINT),
        (*points, many),
        quick=points[1],
        begins=1,
    )


def _multi_tenant() -> UseCase:
    def points(links: int, background: float) -> Point:
        paths = (Path(rate=20e6, rtt=0),) * links
        others = "heavy background on one" if background else "no background"
        return Point(f"{links} links, {others}", paths, GOODPUT, background=background)

    heavy = 16e6
    grid = (points(2, 0), points(2, heavy), points(3, 0), points(3, heavy))
    return UseCase(
        "multi-tenant",
        "a guest's two subflows over its hypervisor's links, the guest untouched: the controller spread",
        POLICIES / "multi-tenant.toml",
        (HASH,),
        grid,
        quick=grid[0],
        guest=True,
    )


USE_CASES = {
    one.name: one
    for one in (_heterogeneous(), _overflow(), _small_flows(), _shared_bottleneck(), _multi_tenant())
}
