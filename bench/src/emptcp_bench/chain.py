# SPDX-License-Identifier: Apache-2.0
"""What a chain costs per packet: joined by the fused engine, against the same written by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from emptcp_bench import programs
from emptcp_bench.measure import Run, Spread, Trial, in_turns, ratios
from emptcp_bench.packets import packets

BACKENDS = ("xdp", "tc")


@dataclass(frozen=True)
class Case:
    """A question: on this packet, how does this program compare with each of those that the back-end has?"""

    title: str
    packet: str
    program: str
    against: tuple[str, ...]


def _against(actors: int) -> tuple[str, ...]:
    bare = (f"bare_flows_{actors}",) if f"bare_flows_{actors}" in programs.HAND_WRITTEN else ()
    return (*bare, *(f"{kind}_flows_{actors}" for kind in ("whole", "calls", "paper")))


CASES = (
    *(
        Case(
            f"10,000 flows + {actors} actor{'s' * (actors > 1)}",
            "selected",
            f"fused_flows_{actors}",
            _against(actors),
        )
        for actors in programs.CHAIN_ACTORS
    ),
    *(
        Case(
            f"the same by tail calls, {actors}",
            "selected",
            f"tail_flows_{actors}",
            (f"fused_flows_{actors}",),
        )
        for actors in programs.CHAIN_ACTORS
    ),
    Case("one 4-tuple + 1 actor", "selected", "fused_flow_1", ("bare_flow_1", "whole_flow_1")),
    Case("10,000 flows, missed by MPTCP", "missed", "fused_flows_1", ("look_up", "whole_flows_1")),
    Case("plain TCP", "plain", "fused_flows_1", ("look_up",)),
    Case("UDP", "udp", "fused_flows_1", ("look_up",)),
    Case("plain TCP past a state per flow", "plain", "fused_state_1", ("look_up",)),
    Case("UDP past a state per flow", "udp", "fused_state_1", ("look_up",)),
)
"""The selector, how many actors rewrite the window, and the packet where it is not one that is selected."""

FIGURES = {
    "fused2_over_monolith": ("fused_flows_1", "whole_flows_1"),
    "fused8_over_monolith": ("fused_flows_7", "whole_flows_7"),
    "fused8_over_paper": ("fused_flows_7", "paper_flows_7"),
    "tail8_over_fused8": ("tail_flows_7", "fused_flows_7"),
}
"""By stages, the selector counted; each figure is the worse one of the back-ends that have both chains."""


@dataclass(frozen=True)
class Cost:
    """Nanoseconds per packet of a program on a packet, the call of the empty program included."""

    backend: str
    program: str
    packet: str
    ns: Spread


@dataclass(frozen=True)
class Comparison:
    """A case's answer. ``ratio`` is net of the empty program (``None``: all noise), ``gross`` is not."""

    backend: str
    case: Case
    against: str
    ratio: Spread | None
    gross: Spread


@dataclass(frozen=True)
class Results:
    """All that one run measured."""

    rounds: int
    repeat: int
    costs: tuple[Cost, ...]
    comparisons: tuple[Comparison, ...]

    @property
    def figures(self) -> dict[str, float | None]:
        """Median ratios of :data:`FIGURES`, net of the empty program; ``None``: all noise."""
        return {name: self._worst(*pair) for name, pair in FIGURES.items()}

    def _worst(self, program: str, against: str) -> float | None:
        found = [
            one.ratio.median
            for one in self.comparisons
            if one.ratio
            and (one.case.program, one.case.packet, one.against) == (program, "selected", against)
        ]
        return max(found, default=None)


def measure(rounds: int, repeat: int) -> Results:
    """Measure every case on every back-end, with ``repeat`` packets a turn."""
    costs: list[Cost] = []
    comparisons: list[Comparison] = []
    for backend in BACKENDS:
        times = _times(backend, rounds, repeat)
        costs += [Cost(backend, *run, Spread.of(values)) for run, values in times.items()]
        comparisons += _compared(backend, times)
    return Results(rounds, repeat, tuple(costs), tuple(comparisons))


def pairs(backend: str) -> list[tuple[Case, str]]:
    """Return each case with each program that it is compared with on a back-end."""
    there = programs.names(backend)
    return [(case, against) for case in CASES for against in case.against if against in there]


def runs(backend: str) -> list[Run]:
    """Return every program with each packet that some case gives it on a back-end."""
    wanted = [
        (program, case.packet)
        for case, against in pairs(backend)
        for program in ("empty", case.program, against)
    ]
    return list(dict.fromkeys(wanted))


def _times(backend: str, rounds: int, repeat: int) -> dict[Run, list[float]]:
    given = packets()
    with programs.loaded(backend) as found:
        trials = {(name, packet): Trial(found[name], given[packet]) for name, packet in runs(backend)}
        return in_turns(trials, rounds, repeat)


def _compared(backend: str, times: dict[Run, list[float]]) -> Iterator[Comparison]:
    for case, against in pairs(backend):
        own, other, empty = (times[name, case.packet] for name in (case.program, against, "empty"))
        net = ratios(own, other, empty)
        gross = Spread.of([one / two for one, two in zip(own, other, strict=True)])
        yield Comparison(backend, case, against, Spread.of(net) if net else None, gross)
