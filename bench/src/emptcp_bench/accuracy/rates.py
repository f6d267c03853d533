# SPDX-License-Identifier: Apache-2.0
"""rate_limit: the rate that was asked for against the one that the path, or the connection, gets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial

from emptcp.lab.topology import Lab
from emptcp_bench.accuracy.rounds import measured
from emptcp_bench.accuracy.row import Row
from emptcp_bench.accuracy.stream import MBIT, Stream, hosts, in_force

PACED = (1, 2, 5, 10, 20, 40, 80)
SLOW = PACED[:3]
"""Those at which the kernel's default buffers matter: also for connections that begin under the policy."""
BEGUN, LARGER = ", begun under it", ", tcp_wmem of 4 MB"
WINDOWED = (5, 10, 20, 40)
SECONDS = 3
START = 5
"""Seconds after which a control has got over what it sent too much at first."""

SEND_BUFFER = 4 << 20
"""Bytes of each subflow from its start on, where the host's default (tcp_wmem) is found too small."""

OFFERED_LASTS = 30
"""Seconds in which a sender has used up what the connection's window was before, at most."""


def paced(rounds: int, quick: bool) -> Iterator[Row]:
    """One of two paths, by the pacing of its sockets; and what the other path keeps."""
    with hosts("p") as lab:
        for rate in PACED[3:4] if quick else PACED:
            yield from _both(rounds, _paced, lab, rate)
        if quick:
            return
        for rate in SLOW:
            yield from _both(rounds, _paced_from_the_start, lab, rate, BEGUN)
        lab.a.set("net.ipv4.tcp_wmem", f"4096 {SEND_BUFFER} {SEND_BUFFER}")
        yield from _both(rounds, _paced, lab, SLOW[0], LARGER)
        for rate in SLOW:
            yield from _both(rounds, _paced_from_the_start, lab, rate, BEGUN + LARGER)


def _both(
    rounds: int, measure: Callable[[Lab, float], tuple[float, float]], lab: Lab, rate: float, how: str = ""
) -> Iterator[Row]:
    found, asked = measured(rounds, partial(measure, lab, rate)), f"mode=pacing, {rate} Mbit/s{how}"
    near = {"least": 0.95 * rate, "most": 1.05 * rate}
    yield Row("rate_limit", asked, tuple(one[0] for one in found), "Mbit/s", **near)
    others = tuple(one[1] for one in found)
    yield Row("rate_limit", f"{asked}: the other path keeps", others, "of its own", least=0.95)


def _paced(lab: Lab, rate: float) -> tuple[float, float]:
    """Measure a connection that was there before."""
    with Stream(lab) as stream:
        free, _ = stream.rates(SECONDS)
        with _pacing(lab, rate):
            time.sleep(1 + stream.waiting()[1] / (rate * MBIT))
            other, limited = stream.rates(SECONDS)
    return limited, other / free


def _paced_from_the_start(lab: Lab, rate: float) -> tuple[float, float]:
    """Measure a connection that begins under the policy, against one without, both past their start."""
    with Stream(lab) as stream:
        time.sleep(START)
        free, _ = stream.rates(SECONDS)
    with _pacing(lab, rate), Stream(lab) as stream:
        time.sleep(START)
        other, limited = stream.rates(SECONDS)
    return limited, other / free


def _pacing(lab: Lab, rate: float) -> AbstractContextManager[None]:
    return in_force(lab, "egress", f"rate_limit(rate={rate}mbit, mode=pacing)")


def windowed(rounds: int, quick: bool) -> Iterator[Row]:
    """A connection of one subflow, by its receive window, at the host that sends."""
    with hosts("w") as lab:
        lab.a.run(["ip", "mptcp", "limits", "set", "subflow", "0", "add_addr_accepted", "0"])
        for rate in WINDOWED:
            near = {"least": 0.85 * rate, "most": 1.15 * rate}
            for measure, which in ((_windowed, "one subflow"), (_windowed_later, "one subflow, older")):
                found = measured(rounds, partial(measure, lab, rate))
                yield Row("rate_limit", f"mode=window, {rate} Mbit/s, {which}", found, "Mbit/s", **near)


def _windowed(lab: Lab, rate: float) -> float:
    """Measure a connection that begins under the policy."""
    with _window(lab, rate), Stream(lab) as stream:
        return sum(stream.rates(SECONDS))


def _windowed_later(lab: Lab, rate: float) -> float:
    """Measure a connection that was there before, when what it had been offered then is used up."""
    with Stream(lab) as stream, _window(lab, rate):
        deadline = time.monotonic() + OFFERED_LASTS
        before, now = -1, _taken_of_older(lab)
        while now != before and time.monotonic() < deadline:
            time.sleep(2)
            before, now = now, _taken_of_older(lab)
        return sum(stream.rates(SECONDS))


def _window(lab: Lab, rate: float) -> AbstractContextManager[None]:
    return in_force(lab, "ingress", f"rate_limit(rate={rate}mbit, mode=window, per=connection)", dev="path*")


def _taken_of_older(lab: Lab) -> int:
    """Return how often a subflow was given the connection's window because its own was less."""
    return lab.a.counters().get("MPTcpExtSndWndShared", 0)
