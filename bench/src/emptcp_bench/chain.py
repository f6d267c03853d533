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
    """A question: on this packet, how does this program compare with each of those?"""

    title: str
    packet: str
    program: str
    against: tuple[str, ...]


CASES = (
    Case("10,000 flows + 1 actor", "selected", "fused_flows_1", ("bare_flows_1", "whole_flows_1")),
    Case("10,000 flows + 7 actors", "selected", "fused_flows_7", ("bare_flows_7", "whole_flows_7")),
    Case("one 4-tuple + 1 actor", "selected", "fused_flow_1", ("bare_flow_1", "whole_flow_1")),
    Case("10,000 flows, missed by MPTCP", "missed", "fused_flows_1", ("look_up", "whole_flows_1")),
    Case("plain TCP", "plain", "fused_flows_1", ("look_up",)),
    Case("UDP", "udp", "fused_flows_1", ("look_up",)),
    Case("plain TCP past a state per flow", "plain", "fused_state_1", ("look_up",)),
    Case("UDP past a state per flow", "udp", "fused_state_1", ("look_up",)),
)
"""The selector, how many actors rewrite the window, and the packet where it is not one that is selected."""


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


def measure(rounds: int, repeat: int) -> Results:
    """Measure every case on every back-end, with ``repeat`` packets a turn."""
    costs: list[Cost] = []
    comparisons: list[Comparison] = []
    for backend in BACKENDS:
        times = _times(backend, rounds, repeat)
        costs += [Cost(backend, *run, Spread.of(values)) for run, values in times.items()]
        comparisons += _compared(backend, times)
    return Results(rounds, repeat, tuple(costs), tuple(comparisons))


def runs() -> list[Run]:
    """Return every program with each packet that some case gives it."""
    wanted = [(program, case.packet) for case in CASES for program in ("empty", case.program, *case.against)]
    return list(dict.fromkeys(wanted))


def _times(backend: str, rounds: int, repeat: int) -> dict[Run, list[float]]:
    given = packets()
    with programs.loaded(backend) as found:
        trials = {(name, packet): Trial(found[name], given[packet]) for name, packet in runs()}
        return in_turns(trials, rounds, repeat)


def _compared(backend: str, times: dict[Run, list[float]]) -> Iterator[Comparison]:
    for case in CASES:
        own, empty = times[case.program, case.packet], times["empty", case.packet]
        for against in case.against:
            other = times[against, case.packet]
            net = ratios(own, other, empty)
            gross = Spread.of([one / two for one, two in zip(own, other, strict=True)])
            yield Comparison(backend, case, against, Spread.of(net) if net else None, gross)
