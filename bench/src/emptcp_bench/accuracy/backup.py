# SPDX-License-Identifier: Apache-2.0
"""set_backup: how soon a path is left, and how soon it is used again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from emptcp.lab.host import SENT, read_devices
from emptcp.mptcp.counters import read_counters
from emptcp_bench.accuracy.rounds import measured
from emptcp_bench.accuracy.row import Row
from emptcp_bench.accuracy.stream import MBIT, RTT, Stream, hosts, in_force, put

PRIO = "MPTcpExtMPPrioRx"
EVERY = 0.01


@dataclass(frozen=True)
class Sample:
    """What host a had sent by each path at a moment, and the MP_PRIO it had received."""

    at: float
    sent: tuple[int, int]
    told: int


class Samples(threading.Thread):
    """Looks at host a every 10 ms until it is told to stop."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(daemon=True)
        self._stream = stream
        self._stop_now = threading.Event()
        self.found: list[Sample] = []

    def run(self) -> None:
        """Look until stopped."""
        self._stream.lab.a.call(self._look)

    def _look(self) -> None:
        while not self._stop_now.wait(EVERY):
            sent = read_devices(SENT)
            self.found.append(
                Sample(time.monotonic(), (sent["path1"], sent["path2"]), read_counters().get(PRIO, 0))
            )

    def __enter__(self) -> Samples:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_now.set()
        self.join(10)


def rows(rounds: int, _quick: bool) -> Iterator[Row]:
    """What a path that became backup still carries, and what it carries when it was given back."""
    with hosts("b") as lab:
        found = measured(rounds, lambda: _round(Stream(lab)))
    left = "share of the path from 2 RTT after on=true, and what was queued there, for 1 s"
    yield Row("set_backup", left, tuple(100 * one[0] for one in found), "%", most=5)
    back = "share of the path in the second half of the first second after on=false, of its earlier one"
    yield Row("set_backup", back, tuple(100 * one[1] for one in found), "%", least=70)


def _round(stream: Stream) -> tuple[float, float]:
    with stream, Samples(stream) as samples:
        time.sleep(1)
        rate = stream.rates(1)
        before = rate[1] / sum(rate)
        queued = stream.waiting()[1] / (rate[1] * MBIT)
        with in_force(stream.lab, "ingress", "set_backup(on=true)"):
            time.sleep(2 * RTT + queued + 1.2)
            on = _changed(samples.found)
            put(stream.lab, "ingress", "set_backup(on=false)")
            time.sleep(1.5)
            off = _changed(samples.found)
    began = on + 2 * RTT + queued
    return _share(samples.found, began, began + 1), _share(samples.found, off + 0.5, off + 1) / before


def _changed(samples: Sequence[Sample]) -> float:
    """Return when the last MP_PRIO so far was received."""
    last = samples[-1].told
    return next(one.at for one in samples if one.told == last)


def _share(samples: Sequence[Sample], since: float, until: float) -> float:
    """Return the second path's share of the bytes between two moments."""
    within = [one for one in samples if since <= one.at <= until]
    first, second = (within[-1].sent[n] - within[0].sent[n] for n in (0, 1))
    return second / (first + second)
