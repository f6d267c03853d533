# SPDX-License-Identifier: Apache-2.0
"""Says what a run showed: shares and a verdict, a table, JSON. Pure: a run in, text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emptcp.lab import measure
from emptcp.lab.measure import Row
from emptcp.lab.path import LabPath
from emptcp.lab.scenario import APPLIED, REMOVED, Run

SCHEMA = 1
# Seconds that a stretch leaves out at its start: TCP gets going, what is queued drains.
WARM_UP, DRAIN, RECOVERY = 2.0, 1.0, 2.0
# A spared path still carries what was queued on it, and probes.
SPARED = 0.05
COLUMN = 10


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of a run that is compared with others: its name, its limits (s), Mbit/s in all, and the share
    (0 to 1) of the watched path."""

    name: str
    begin: float
    end: float
    mbit: float
    share: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the policy did what it says (``None``: nothing to judge), and that in words."""

    held: bool | None
    statement: str


def phases(run: Run) -> list[Phase]:
    """Before, during and after the policy; the whole run when there was none."""
    applied, removed = run.moment(APPLIED), run.moment(REMOVED)
    if applied is None or removed is None:
        return [_phase(run, "all along", 0, WARM_UP, run.end)]
    return [
        _phase(run, "before", 0, WARM_UP, applied.begun),
        _phase(run, "during", applied.done, DRAIN, removed.begun),
        _phase(run, "after", removed.done, RECOVERY, run.end),
    ]


def _phase(run: Run, name: str, begin: float, left_out: float, end: float) -> Phase:
    # Of a short stretch at most half is left out.
    begin = min(begin + left_out, (begin + end) / 2)
    total = measure.row(run.samples, begin, end).total
    return Phase(name, begin, end, total, measure.share(run.samples, run.watched, begin, end))


def verdict(run: Run) -> Verdict:
    """Judge the shipped policy; of another one only say what the path carried."""
    found = phases(run)
    if len(found) == 1:
        return Verdict(None, f"No policy was applied: {run.watched} carried {_percent(found[0])} all along.")
    before, during, after = found
    carried = (
        f"{run.watched} carried {_percent(before)} of the traffic before, "
        f"{_percent(during)} while {'it was backup' if run.shipped else 'the policy was in force'}, "
        f"and {_percent(after)} afterwards."
    )
    if not run.shipped:
        return Verdict(None, carried[0].upper() + carried[1:])
    if before.share < fair_share(run.paths) / 2:
        return Verdict(False, f"The run shows nothing, {run.watched} was hardly used before: {carried}")
    held = during.share < SPARED and after.share > before.share / 2
    said = "The policy did what it says" if held else "The policy did not do what it says"
    return Verdict(held, f"{said}: {carried}")


def fair_share(paths: Sequence[LabPath]) -> float:
    """The last path's part of all paths' rate: what it carries when every path is full."""
    return paths[-1].rate / sum(path.rate for path in paths)


def _percent(phase: Phase) -> str:
    return f"{phase.share * 100:.0f} %"


def table(run: Run) -> str:
    """Which path is which subflow, then a line per second: Mbit/s by subflow, in all, and what happened."""
    subflows = [f"{path.name}: subflow {run.subflows.get(path.name, '')}" for path in run.paths]
    names = "".join(f"{path.name:>{COLUMN}}" for path in run.paths)
    head = f"second{names}{'total':>{COLUMN}}   Mbit/s delivered"
    return "\n".join([*subflows, head, *(_line(run, row) for row in measure.rows(run.samples, 1.0))])


def _line(run: Run, row: Row) -> str:
    cells = "".join(f"{row.mbit[path.name]:{COLUMN}.1f}" for path in run.paths)
    notes = [f"policy {moment.name}" for moment in run.moments if row.begin <= moment.begun < row.end]
    notes += [f"{name} is backup" for name, backup in row.backup.items() if backup]
    return f"{row.end:6.0f}{cells}{row.total:{COLUMN}.1f}   {', '.join(notes)}".rstrip()


def as_json(run: Run) -> dict[str, Any]:
    """The run as one JSON object. Times are in seconds, rates in Mbit/s of payload, RTT in milliseconds."""
    judged = verdict(run)
    return {
        "schema": SCHEMA,
        "scenario": "two-path",
        "link": run.link,
        "family": run.family,
        "paths": [_path_json(run, path) for path in run.paths],
        "policy": str(run.policy) if run.policy else None,
        "moments": [
            {"name": one.name, "begun": _ms(one.begun), "done": _ms(one.done)} for one in run.moments
        ],
        "seconds": [_row_json(row) for row in measure.rows(run.samples, 1.0)],
        "phases": [_phase_json(phase) for phase in phases(run)],
        "held": judged.held,
        "statement": judged.statement,
    }


def _path_json(run: Run, path: LabPath) -> dict[str, Any]:
    shape = {"name": path.name, "mbit": path.rate / 1e6, "rtt_ms": path.rtt * 1e3}
    return {**shape, "subflow": run.subflows.get(path.name, "")}


def _row_json(row: Row) -> dict[str, Any]:
    return {"end": row.end, "mbit": _rounded(row.mbit), "backup": dict(row.backup)}


def _phase_json(phase: Phase) -> dict[str, Any]:
    limits = {"name": phase.name, "begin": _ms(phase.begin), "end": _ms(phase.end)}
    return {**limits, "mbit": round(phase.mbit, 3), "share": round(phase.share, 4)}


def _rounded(numbers: Mapping[str, float]) -> dict[str, float]:
    return {name: round(number, 3) for name, number in numbers.items()}


def _ms(seconds: float) -> float:
    return round(seconds, 3)
