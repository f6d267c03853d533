# SPDX-License-Identifier: Apache-2.0
"""How much more of the processors a transfer takes while a chain of 8 looks at every packet."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from emptcp.pybpf import Program
from emptcp_bench.answer import Answer, Row
from emptcp_bench.flows import BACKENDS
from emptcp_bench.live import chains
from emptcp_bench.live.attached import Attached, hosts
from emptcp_bench.live.traffic import Flows
from emptcp_bench.measure import Spread
from emptcp_bench.processors import TICK, ticks
from emptcp_bench.progress import Progress

SECONDS, QUICK_SECONDS = 2.0, 0.5
WARM_UP = 1.0
HELD = 300e6
"""bit/s of both paths together, where all is held to one core."""

CHAIN = {"chain of 8": (chains.EVERY, 7)}

_HOW = """\
Two endless MPTCP connections between two hosts over a veth pair each, with a chain of 8 on every packet that
host b receives, and with an empty program in its place, in turns of {seconds:g} s: without, with, with,
without.
`saturating`: as fast as the machine can; compared is the time that all processors were busy for each gigabit.
`one core`: both hosts and the measurement held to one core, at 300 Mbit/s; compared is that core's busy time.
proc_stat(5) counts in ticks of {tick:g} ms, for everything that runs on the machine."""


@dataclass(frozen=True)
class Setting:
    """A kind of transfer: bit/s of each path (``None``: all there is), and whether it has but one core."""

    name: str
    rate: float | None
    one_core: bool


SETTINGS = (Setting("saturating", None, False), Setting("one core", HELD / 2, True))


@dataclass(frozen=True)
class Turn:
    """Seconds of processor time in a turn, and gigabits that were sent."""

    busy: float
    gigabits: float


def measure(rounds: int, quick: bool) -> Answer:
    """Measure both settings at both hooks."""
    seconds = QUICK_SECONDS if quick else SECONDS
    progress = Progress(len(SETTINGS) * len(BACKENDS))
    rows: list[Row] = []
    figures: dict[str, float | None] = {}
    for setting in SETTINGS:
        for backend in BACKENDS:
            row, extra = _measured(setting, backend, rounds, seconds)
            rows.append(row)
            figures[f"extra_{setting.name.replace(' ', '_')}_{backend}"] = extra.median
            progress.step(f"{setting.name} at {backend}")
    return Answer("cpu", _HOW.format(seconds=seconds, tick=1000 / TICK), rounds, rows, figures)


def _measured(setting: Setting, backend: str, rounds: int, seconds: float) -> tuple[Row, Spread]:
    with (
        _cores(setting),
        hosts("cpu", rate=setting.rate) as lab,
        chains.measured(lab, CHAIN, backend) as there,
        Flows(lab, 2, endless=2) as flows,
    ):
        nothing, chain = there.values()
        with Attached(lab, nothing, backend) as place:
            flows.run(WARM_UP)
            turn = partial(_turn, flows, place, _core(setting), seconds)
            found = [_round(turn, nothing, chain) for _ in range(rounds)]
    return _compared(setting, backend, found, seconds)


def _round(turn: Callable[[Program], Turn], nothing: Program, chain: Program) -> tuple[Turn, Turn]:
    """Return what two turns without and two with the chain took."""
    before = turn(nothing)
    inside = _sum(turn(chain), turn(chain))
    return _sum(before, turn(nothing)), inside


def _sum(one: Turn, other: Turn) -> Turn:
    return Turn(one.busy + other.busy, one.gigabits + other.gigabits)


def _turn(flows: Flows, place: Attached, core: int | None, seconds: float, program: Program) -> Turn:
    place.switch(program)
    before, sent = ticks(core).busy, flows.sent
    flows.run(seconds)
    return Turn(ticks(core).busy - before, 8e-9 * (flows.sent - sent))


def _compared(
    setting: Setting, backend: str, found: list[tuple[Turn, Turn]], seconds: float
) -> tuple[Row, Spread]:
    """Return a row, and what the chain takes more: in percent of what there was, or of the one core."""
    if setting.one_core:
        unit = "busy, % of the core"
        shares = [[100 * one.busy / (2 * seconds) for one in pair] for pair in found]
        extra = Spread.of([with_it - without for without, with_it in shares])
    else:
        unit = "busy, s per Gbit"
        shares = [[one.busy / one.gigabits for one in pair] for pair in found]
        extra = Spread.of([100 * (with_it / without - 1) for without, with_it in shares])
    row: Row = {
        "transfer": setting.name,
        "hook": backend,
        "compared": unit,
        "without": Spread.of([one for one, _ in shares]),
        "with": Spread.of([one for _, one in shares]),
        "more, %": extra,
    }
    return row, extra


def _core(setting: Setting) -> int | None:
    return max(os.sched_getaffinity(0)) if setting.one_core else None


@contextmanager
def _cores(setting: Setting) -> Iterator[None]:
    """Hold this process, and all that it starts, to one core where that is wanted."""
    before = os.sched_getaffinity(0)
    core = _core(setting)
    os.sched_setaffinity(0, before if core is None else {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
