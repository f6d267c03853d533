# SPDX-License-Identifier: Apache-2.0
"""What chains of 2, 4 and 8 stages add to a packet of a transfer that goes as fast as the machine can."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from emptcp.pybpf import Program
from emptcp_bench import measure as trials
from emptcp_bench.answer import Answer, Row
from emptcp_bench.flows import BACKENDS, CHAINS, LONGEST
from emptcp_bench.live import chains
from emptcp_bench.live.attached import hosts
from emptcp_bench.live.chains import EMPTY
from emptcp_bench.live.rounds import Live, in_turns
from emptcp_bench.live.traffic import Flows
from emptcp_bench.measure import Spread, Trial
from emptcp_bench.packets import packets
from emptcp_bench.programs import empty
from emptcp_bench.progress import Progress

NUMBERS, QUICK_NUMBERS = (1, 100), (1,)
SECONDS = 0.5
REPEAT, QUICK_REPEAT = 20_000, 200
WARM_UP = 1.0

_HOW = """\
Endless MPTCP connections between two hosts, over two veth pairs in turn, as fast as the machine can. Every
packet that host b receives passes a program; programs take turns of {seconds:g} s while the connections go
on. `added` are nanoseconds per packet by the kernel's own statistics, less the empty program's (merged
packets count once at TC); `trial` are those of BPF_PROG_TEST_RUN with the same programs in the same run, less
the empty program's too. Gbit/s are told and not judged: both hosts and the measurement share the machine."""


@dataclass(frozen=True)
class _Found:
    live: dict[str, Live]
    trial: dict[str, float]

    def added(self, name: str) -> float:
        return self.live[name].ns.median - self.live[EMPTY].ns.median

    def tried(self, name: str) -> float:
        return self.trial[name] - self.trial[EMPTY]


def measure(rounds: int, quick: bool) -> Answer:
    """Measure every chain with one and with a hundred connections at both hooks."""
    numbers = QUICK_NUMBERS if quick else NUMBERS
    progress = Progress(len(numbers) * len(BACKENDS))
    found: dict[tuple[int, str], _Found] = {}
    for number in numbers:
        for backend in BACKENDS:
            repeat = QUICK_REPEAT if quick else REPEAT
            found[number, backend] = _measured(number, backend, rounds, repeat)
            progress.step(f"{number} connections at {backend}")
    return Answer("throughput", _HOW.format(seconds=SECONDS), rounds, list(_rows(found)), _figures(found))


def _measured(number: int, backend: str, rounds: int, repeat: int) -> _Found:
    with (
        hosts("speed", rate=None) as lab,
        empty(backend) as nothing,
        chains.loaded(lab, CHAINS, backend) as runners,
        Flows(lab, number, endless=number) as flows,
    ):
        flows.run(WARM_UP)
        there = {EMPTY: nothing} | chains.programs(runners)
        live = in_turns(lab, flows, there, backend, rounds, SECONDS)
        chains.check(runners)
        return _Found(live, _trials(there, rounds, repeat))


def _trials(there: dict[str, Program], rounds: int, repeat: int) -> dict[str, float]:
    """Return the median nanoseconds of each program on a packet that it takes."""
    packet = packets()["selected"]
    given = {(name, "selected"): Trial(program, packet) for name, program in there.items()}
    times = trials.in_turns(given, rounds, repeat)
    return {name: Spread.of(values).median for (name, _), values in times.items()}


def _rows(found: dict[tuple[int, str], _Found]) -> Iterator[Row]:
    for (number, backend), one in found.items():
        for name, live in one.live.items():
            yield {
                "connections": f"{number}",
                "hook": backend,
                "program": name,
                "ns": live.ns,
                "added, ns": one.added(name),
                "trial, ns": one.tried(name),
                "packets/s": live.packets.median,
                "Gbit/s": live.mbit.median / 1000,
            }


def _figures(found: dict[tuple[int, str], _Found]) -> dict[str, float | None]:
    """A chain of 8 on a live transfer over its trial, the worse of one and a hundred connections."""
    return {
        f"live8_over_trial_{backend}": max(
            one.added(LONGEST) / one.tried(LONGEST) for (_, hook), one in found.items() if hook == backend
        )
        for backend in BACKENDS
    }
