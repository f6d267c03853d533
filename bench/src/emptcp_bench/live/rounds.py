# SPDX-License-Identifier: Apache-2.0
"""Programs in turn while the same flows go on: time per packet, and share of the time the paths transmit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from emptcp.lab.topology import Lab
from emptcp.pybpf import Program, Statistics
from emptcp_bench.live.attached import Attached, spent
from emptcp_bench.live.traffic import Flows
from emptcp_bench.measure import Spread

SETTLE = 1.0
"""Seconds in which flows are as before again after a first program was attached."""


@dataclass(frozen=True)
class Turn:
    """One turn of a program: its runs, their nanoseconds, for how many seconds, and bytes sent meanwhile."""

    runs: int
    time: int
    seconds: float
    sent: int


@dataclass(frozen=True)
class Live:
    """A program on live.traffic.

    ``ns``: nanoseconds per packet. ``share``: of the time of a path, in percent. ``packets`` and ``mbit``:
    what all paths carried in a second.
    """

    ns: Spread
    share: Spread
    packets: Spread
    mbit: Spread

    @classmethod
    def of(cls, turns: Sequence[Turn], paths: int) -> Live:
        """Return what a program's turns say."""
        return cls(
            Spread.of([one.time / max(1, one.runs) for one in turns]),
            Spread.of([100 * one.time / (one.seconds * 1e9 * paths) for one in turns]),
            Spread.of([one.runs / one.seconds for one in turns]),
            Spread.of([8e-6 * one.sent / one.seconds for one in turns]),
        )


def in_turns(
    lab: Lab, flows: Flows, programs: Mapping[str, Program], backend: str, rounds: int, seconds: float
) -> dict[str, Live]:
    """Give each program its turn of ``seconds`` in each of the rounds; each round begins with another one."""
    turns: dict[str, list[Turn]] = {name: [] for name in programs}
    names = list(programs)
    with Statistics.switch_on(), Attached(lab, programs[names[0]], backend) as place:
        flows.run(SETTLE)
        for number in range(rounds):
            start = number % len(names)
            for name in names[start:] + names[:start]:
                place.switch(programs[name])
                turns[name].append(_turn(flows, programs[name], seconds))
    return {name: Live.of(found, len(lab.paths)) for name, found in turns.items()}


def _turn(flows: Flows, program: Program, seconds: float) -> Turn:
    before, sent = spent(program), flows.sent
    flows.run(seconds)
    now = spent(program) - before
    return Turn(now.runs, now.time, seconds, flows.sent - sent)
