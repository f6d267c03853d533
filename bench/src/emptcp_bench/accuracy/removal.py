# SPDX-License-Identifier: Apache-2.0
"""Every actor's policy taken away in mid-transfer: what the second path carries then, against before."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial

from emptcp.lab import settings
from emptcp.lab.resident import resident
from emptcp.lab.topology import Lab
from emptcp_bench import nftables
from emptcp_bench.accuracy.rounds import OF_CONTROLS, measured
from emptcp_bench.accuracy.row import Row
from emptcp_bench.accuracy.stream import RATE, Stream, hosts, in_force

FORCE, WITHIN = 2.0, 3.0
"""Seconds that a policy is in force, and within which its end has to show."""

ACTORS = (
    ("set_backup", "ingress", "set_backup(on=true)", ""),
    ("rate_limit", "egress", "rate_limit(rate=10mbit, mode=pacing)", ""),
    ("add_option", "egress", "add_option(exid=0xe0e1, value=7, size=1)", "packet_type('ack')"),
    ("remove_option", "ingress", "remove_option(kind=253)", ""),
    ("blk_subflow", "ingress", "blk_subflow()", ""),
    ("add_subflow", "ingress", "add_subflow()", ""),
    ("get_connect", "ingress", "get_connect()", ""),
    ("get_subflow", "ingress", "get_subflow()", ""),
    ("record", "ingress egress", "record('packets', 'bytes', 'rtt')", ""),
)

_TOO_MUCH = "limit rate over 1250 kbytes/second burst 25 kbytes"

CONGESTING = (
    ("rate_limit", "rate_limit(rate=10mbit, mode=police)", "", f"{_TOO_MUCH} drop"),
    ("rate_limit", "rate_limit(rate=10mbit, mode=mark)", "", f"{_TOO_MUCH} ip ecn set ce"),
    ("drop", "drop()", "sample(every=200)", "numgen inc mod 200 == 0 drop"),
)
"""What tells the sender of congestion, and the same by nftables: how fast that is forgotten is up to its
congestion control, whoever told it."""

CONTROLS = (("cubic", RATE), ("cubic", 20e6), ("bbr", RATE))
"""Congestion controls that are told, and the rate of the paths in bit/s."""


def rows(rounds: int, quick: bool) -> Iterator[Row]:
    """A row for each actor, and for each mode of rate_limit; with every control for those that congest."""
    with resident("--no-guard"):
        with hosts("r") as lab:
            for actor, hook, do, when in ACTORS:
                found = measured(rounds, partial(_left, lab, partial(in_force, lab, hook, do, when=when)))
                yield _row(actor, do, when, found)
        for control, rate in CONTROLS:
            with hosts("r", rate) as lab:
                if settings.use_control(lab.a, control):
                    least = rounds if quick else max(rounds, OF_CONTROLS)
                    yield from _congesting(lab, least, f", {control} on {rate / 1e6:g} Mbit/s")


def _congesting(lab: Lab, rounds: int, where: str) -> Iterator[Row]:
    for host in (lab.a, lab.b):
        host.set("net.ipv4.tcp_ecn", 1)
    for actor, do, when, rule in CONGESTING:
        ours = partial(_left, lab, partial(in_force, lab, "egress", do, when=when))
        if nftables.missing():
            yield _row(actor, do, when, measured(rounds, ours), where)
            continue
        same = partial(nftables.in_force, lab.a, "egress", "path2", rule)
        found = measured(rounds, partial(_both, ours, partial(_left, lab, same)))
        yield _row(actor, do, when, tuple(one for one, _ in found), where)
        compared = tuple(one / other for one, other in found)
        yield _row(actor, do, when, compared, where, "what nftables leaves that does the same")


def _row(
    actor: str, do: str, when: str, found: tuple[float, ...], where: str = "", of: str = "its earlier one"
) -> Row:
    chosen = f" when `{when}`" if when else ""
    told = f"`{do}`{chosen}{where}, taken away: share of the path within {WITHIN:g} s, of {of}"
    return Row(actor, told, tuple(100 * one for one in found), "%", least=90, most=110)


def _left(lab: Lab, limited: Callable[[], AbstractContextManager[None]]) -> float:
    """Return the share of the second path after it was limited, of that before."""
    with Stream(lab) as stream:
        before = stream.share(2)
        with limited():
            time.sleep(FORCE)
        time.sleep(WITHIN - 1)
        return stream.share(1) / before


def _both(ours: Callable[[], float], theirs: Callable[[], float]) -> tuple[float, float]:
    return ours(), theirs()
