# SPDX-License-Identifier: Apache-2.0
"""What a chain costs per packet: joined by the fused engine, against the same written by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from emptcp_bench import programs
from emptcp_bench.measure import Run, Spread, Trial, in_turns, ratios
from emptcp_bench.packets import packets
from emptcp_bench.progress import Progress

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
)
"""The selector, how many actors rewrite the window, and the packet where it is not one that is selected."""

FIGURES = {
    "fused2_over_monolith": ("fused_flows_1", "selected", "whole_flows_1"),
    "fused8_over_monolith": ("fused_flows_7", "selected", "whole_flows_7"),
    "fused8_over_paper": ("fused_flows_7", "selected", "paper_flows_7"),
    "tail8_over_fused8": ("tail_flows_7", "selected", "fused_flows_7"),
}
"""By stages, the selector counted: the program, the packet, and what it is compared with."""


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
        return figures(self.comparisons, FIGURES)


def figures(
    comparisons: Sequence[Comparison], wanted: Mapping[str, tuple[str, str, str]]
) -> dict[str, float | None]:
    """Return median ratios, net of the empty program: each is the worse one of the back-ends that have both.

    ``wanted`` has a program, a packet and what it is compared with, by the figure's name. ``None``: noise.
    """
    return {name: _worst(comparisons, one) for name, one in wanted.items()}


def _worst(comparisons: Sequence[Comparison], wanted: tuple[str, str, str]) -> float | None:
    found = [
        one.ratio.median
        for one in comparisons
        if one.ratio and (one.case.program, one.case.packet, one.against) == wanted
    ]
    return max(found, default=None)


def measure(rounds: int, repeat: int, asked: Sequence[Case] = CASES) -> Results:
    """Measure every case on every back-end, with ``repeat`` packets a turn."""
    progress = Progress(rounds * len(BACKENDS))
    costs: list[Cost] = []
    comparisons: list[Comparison] = []
    for backend in BACKENDS:
        times = _times(backend, asked, rounds, repeat, partial(progress.step, f"at {backend}"))
        costs += [Cost(backend, *run, Spread.of(values)) for run, values in times.items()]
        comparisons += _compared(backend, asked, times)
    return Results(rounds, repeat, tuple(costs), tuple(comparisons))


def pairs(backend: str, asked: Sequence[Case] = CASES) -> list[tuple[Case, str]]:
    """Return each case with each program that it is compared with on a back-end."""
    there = programs.names(backend)
    return [(case, against) for case in asked for against in case.against if against in there]


def runs(backend: str, asked: Sequence[Case] = CASES) -> list[Run]:
    """Return every program with each packet that some case gives it on a back-end."""
    wanted = [
        (program, case.packet)
        for case, against in pairs(backend, asked)
        for program in ("empty", case.program, against)
    ]
    return list(dict.fromkeys(wanted))


def _times(
    backend: str, asked: Sequence[Case], rounds: int, repeat: int, step: Callable[[], None]
) -> dict[Run, list[float]]:
    given, wanted = packets(), runs(backend, asked)
    with programs.loaded(backend, {name for name, _ in wanted}) as found:
        trials = {(name, packet): Trial(found[name], given[packet]) for name, packet in wanted}
        return in_turns(trials, rounds, repeat, step)


def _compared(backend: str, asked: Sequence[Case], times: dict[Run, list[float]]) -> Iterator[Comparison]:
    for case, against in pairs(backend, asked):
        own, other, empty = (times[name, case.packet] for name in (case.program, against, "empty"))
        net = ratios(own, other, empty)
        gross = Spread.of([one / two for one, two in zip(own, other, strict=True)])
        yield Comparison(backend, case, against, Spread.of(net) if net else None, gross)
