# SPDX-License-Identifier: Apache-2.0
"""Every actor's policy taken away in mid-transfer: what the second path carries then, against before."""

from __future__ import annotations

import time
from collections.abc import Iterator

from emptcp.lab import settings
from emptcp.lab.resident import resident
from emptcp.lab.topology import Lab
from emptcp_bench.accuracy.rounds import measured
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

CONGESTING = (
    ("rate_limit", "egress", "rate_limit(rate=10mbit, mode=police)", ""),
    ("rate_limit", "egress", "rate_limit(rate=10mbit, mode=mark)", ""),
    ("drop", "egress", "drop()", "sample(every=200)"),
)
"""What tells the sender of congestion: how fast that is forgotten is up to its congestion control."""

CONTROLS = (("cubic", RATE), ("cubic", 20e6), ("bbr", RATE))
"""Congestion controls that are told, and the rate of the paths in bit/s."""


def rows(rounds: int, _quick: bool) -> Iterator[Row]:
    """A row for each actor, and for each mode of rate_limit; with every control for those that congest."""
    with resident("--no-guard"):
        with hosts("r") as lab:
            for one in ACTORS:
                yield _row(lab, rounds, *one)
        for control, rate in CONTROLS:
            with hosts("r", rate) as lab:
                if settings.use_control(lab.a, control):
                    for one in CONGESTING:
                        yield _row(lab, rounds, *one, asked=f", {control} on {rate / 1e6:g} Mbit/s")


def _row(lab: Lab, rounds: int, actor: str, hook: str, do: str, when: str, asked: str = "") -> Row:
    found = measured(rounds, lambda: _round(Stream(lab), hook, do, when))
    chosen = f" when `{when}`" if when else ""
    told = f"`{do}`{chosen}{asked}, taken away: share of the path within {WITHIN:g} s, of its earlier one"
    return Row(actor, told, tuple(100 * one for one in found), "%", least=90, most=110)


def _round(stream: Stream, hook: str, do: str, when: str) -> float:
    with stream:
        before = stream.share(2)
        with in_force(stream.lab, hook, do, when=when):
            time.sleep(FORCE)
        time.sleep(WITHIN - 1)
        return stream.share(1) / before
