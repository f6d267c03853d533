# SPDX-License-Identifier: Apache-2.0
"""The throughput of steered streams as a table and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from emptcp.lab.machine import machine
from emptcp_bench.report import Row, numbers, spread, table
from emptcp_bench.steer import Steered

SCHEMA = 1

_HEAD: Row = ("MODE", "GBIT/S: WITHOUT", "STEERED", "RATIO: MIN", "MEDIAN", "MAX")
_HOW = """\
One stream of a guest with two subflows over veth pairs with all offloads on, on
{machine}.
A round is four turns: without, with, with, without the policy, which steers to the link that is taken anyway.
Ratios are made round by round; what a machine's other work does to a round is in their spread."""


def as_json(results: Sequence[Steered]) -> dict[str, Any]:
    """Return the results as ``emptcp bench steer --json`` prints them; bit/s."""
    modes = [
        {
            "mode": one.mode,
            "without": spread(one.without),
            "steered": spread(one.steered),
            "ratio": spread(one.ratio),
        }
        for one in results
    ]
    return {"schema": SCHEMA, "machine": machine(), "modes": modes}


def as_text(results: Sequence[Steered]) -> str:
    """Return the results as a table."""
    rows = [
        (
            one.mode,
            f"{one.without.median / 1e9:.1f}",
            f"{one.steered.median / 1e9:.1f}",
            *numbers(one.ratio, 2),
        )
        for one in results
    ]
    return "\n".join([_HOW.format(machine=machine()), "", *table([_HEAD, *rows], 1)])
