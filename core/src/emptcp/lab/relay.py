# SPDX-License-Identifier: Apache-2.0
"""The lab's link process: carries frames between the TAP devices of two hosts with rate, delay and a queue.

One process holds both ends of all paths and sleeps in one select(2), whose timeout counts microseconds where
epoll's counts milliseconds. A direction of a path needs two numbers only:

* ``free``: when its transmitter will have sent everything it was given. A frame that comes in leaves the
  transmitter at ``max(now, free) + size / rate`` and arrives ``delay`` later.
* how long ``free`` is ahead of now: that is the queue, in time. A frame that would wait longer than the
  queue's bytes take is dropped, as at a router with one drop-tail queue.

Frames leave in the order they came, so what is on its way is a deque and needs no sorting.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from emptcp.errors import EmptcpError
from emptcp.hooks import namespaces
from emptcp.lab import process, tap

LARGEST_FRAME = 2048
# As many frames from one device before the others get their turn.
BATCH = 64
SECOND = 1_000_000_000
# A wake-up later than this (ns) says that the machine was busy, not how long waking takes.
MOST_LATE = 250_000
# Seconds in which more frames may gather after some came: under load that saves a third of the work.
PAUSE = 100e-6


class Transmitter:
    """``free`` is when it will have sent everything it was given, in ns. Paths of one link share it."""

    __slots__ = ("free",)

    def __init__(self) -> None:
        self.free = 0.0


class Direction:
    """One direction of a path: frames read from ``source`` are written to ``sink`` when they are due.

    ``rate`` in bit/s of whole frames, ``delay`` in seconds, ``queue`` in bytes.
    """

    __slots__ = (
        "delay",
        "dropped",
        "longest_wait",
        "on_the_way",
        "per_byte",
        "sink",
        "source",
        "transmitter",
    )

    def __init__(
        self,
        source: int,
        sink: int,
        *,
        rate: float,
        delay: float,
        queue: int,
        transmitter: Transmitter | None = None,
    ) -> None:
        self.source = source
        self.sink = sink
        self.per_byte = 8 * SECOND / rate
        self.delay = delay * SECOND
        self.longest_wait = queue * self.per_byte
        self.transmitter = transmitter or Transmitter()
        self.dropped = 0
        self.on_the_way: deque[tuple[float, bytes]] = deque()

    def take(self, frame: bytes, now: float) -> None:
        """Put a frame on its way, or drop it when the queue is full. ``now`` in ns."""
        transmitter = self.transmitter
        start = transmitter.free if transmitter.free > now else now
        if start - now > self.longest_wait:
            self.dropped += 1
            return
        transmitter.free = start + len(frame) * self.per_byte
        self.on_the_way.append((transmitter.free + self.delay, frame))

    def read(self, now: float) -> None:
        """Take what the source has, up to a batch."""
        source, read, take = self.source, os.read, self.take
        with contextlib.suppress(BlockingIOError):
            for _ in range(BATCH):
                take(read(source, LARGEST_FRAME), now)

    def write(self, now: float) -> float | None:
        """Write every frame that is due; return when the next one is, in ns."""
        on_the_way, sink = self.on_the_way, self.sink
        while on_the_way and on_the_way[0][0] <= now:
            # A device that is down refuses frames, as a cable that is out loses them.
            with contextlib.suppress(OSError):
                os.write(sink, on_the_way.popleft()[1])
        return on_the_way[0][0] if on_the_way else None


class Sleep:
    """Sleeps until a frame comes or the next one is due, and knows how late this machine wakes up.

    Waking takes 30 to 200 us, four times in a round trip. So frames are sent that much before they are due,
    and count as come that much before they were seen: the median is right, and nothing spins.
    """

    __slots__ = ("late", "sources", "woken")

    def __init__(self, sources: Sequence[int]) -> None:
        self.sources = sources
        self.late = 0.0
        self.woken = time.monotonic_ns()

    @property
    def soon(self) -> float:
        """Until when frames are due now, in ns."""
        return self.woken + self.late

    def until(self, due: float | None) -> tuple[list[int], float]:
        """Sleep until ``due`` (ns); the sources that have frames, and when those came."""
        begin = time.monotonic_ns()
        ahead = None if due is None else max(0.0, due - self.late - begin)
        ready = select.select(self.sources, [], [], None if ahead is None else ahead / SECOND)[0]
        self.woken = time.monotonic_ns()
        if ahead and not ready:
            self._learn(self.woken - begin - ahead)
        # Not before we began to sleep: when frames were waiting already, we are not late by waking.
        return ready, max(begin, self.woken - self.late)

    def _learn(self, late: float) -> None:
        self.late += (min(late, MOST_LATE) - self.late) / 16


def carry(directions: Sequence[Direction]) -> None:
    """Carry frames until the process ends."""
    by_source = {direction.source: direction for direction in directions}
    sleep = Sleep(list(by_source))
    while True:
        soon = sleep.soon
        due = [at for direction in directions if (at := direction.write(soon)) is not None]
        ready, came = sleep.until(min(due) if due else None)
        for source in ready:
            by_source[source].read(came)
        if ready:
            time.sleep(PAUSE)


def open_paths(a: str, b: str, paths: Sequence[dict[str, Any]]) -> list[Direction]:
    """Make both TAP devices of every path and the two directions between them.

    ``paths`` are dicts with device, rate (bit/s), rtt (s), queue (bytes) and link (paths that name the same
    one share its rate and queue; empty: a link of its own).
    """
    devices = [path["device"] for path in paths]
    ends_a, ends_b = (_open_all(devices, host) for host in (a, b))
    directions = []
    links: dict[str, tuple[Transmitter, Transmitter]] = {}
    for path, end_a, end_b in zip(paths, ends_a, ends_b, strict=True):
        link = links.setdefault(path["link"] or path["device"], (Transmitter(), Transmitter()))
        for source, sink, transmitter in ((end_a, end_b, link[0]), (end_b, end_a, link[1])):
            shape = {"rate": path["rate"], "delay": path["rtt"] / 2, "queue": path["queue"]}
            directions.append(Direction(source, sink, **shape, transmitter=transmitter))
    return directions


def _open_all(devices: Sequence[str], host: str) -> list[int]:
    return namespaces.call(namespaces.resolve(host), lambda: [tap.open_tap(device) for device in devices])


def be_punctual() -> None:
    """Run before other processes, and without pauses for collecting garbage, of which there is none."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError:
        process.go_first()
    gc.collect()
    gc.freeze()
    gc.disable()


def main(order: str) -> None:
    """``order`` is a JSON object with the namespaces ``a`` and ``b``, and ``paths`` as in ``open_paths``."""
    try:
        directions = open_paths(**json.loads(order))
    except EmptcpError as error:
        raise SystemExit(str(error)) from None
    print("ready", flush=True)
    # Until we are in the lab's record nobody could find us after a crash: end with who started us.
    if sys.stdin.readline() == "run\n":
        be_punctual()
        carry(directions)


if __name__ == "__main__":
    main(sys.argv[1])
