# SPDX-License-Identifier: Apache-2.0
"""The ticks of a controller as a table and as JSON."""

from __future__ import annotations

from typing import Any

from emptcp.lab.machine import machine
from emptcp_bench.controllers import INTERVAL, Held
from emptcp_bench.measure import Spread
from emptcp_bench.report import Row, table

SCHEMA = 1

_HEAD: Row = ("CONNECTIONS", "SUBFLOWS", "DUE", "MISSED", "MS: APART", "MAX", "IN CLASS", "MAX", "CORE")
_HOW = """\
Idle connections, `emptcp run` and the controller on one core before all other work (SCHED_RR), a tick each
{interval:g} ms, on {machine}.
DUE: ticks that should have begun. APART: from one begin to the next. IN CLASS: what the Python class took.
CORE: the share of the core that all processes took."""


def as_json(found: Held) -> dict[str, Any]:
    """Return the result as ``emptcp bench controllers --json`` prints it; seconds."""
    return {
        "schema": SCHEMA,
        "machine": machine(),
        "interval": INTERVAL,
        "connections": found.connections,
        "subflows": found.subflows,
        "due": found.due,
        "missed": found.missed,
        "gap": _seconds(found.gap),
        "tick": _seconds(found.tick),
        "busy": round(found.busy, 3),
    }


def _seconds(one: Spread) -> dict[str, float]:
    return {"min": round(one.least, 4), "median": round(one.median, 4), "max": round(one.most, 4)}


def as_text(found: Held) -> str:
    """Return the result as a table."""
    row: Row = (
        *map(str, (found.connections, found.subflows, found.due, found.missed)),
        *(f"{1000 * value:.0f}" for of in (found.gap, found.tick) for value in (of.median, of.most)),
        f"{found.busy:.0%}",
    )
    how = _HOW.format(interval=1000 * INTERVAL, machine=machine())
    return "\n".join([how, "", *table([_HEAD, row], 0)])
