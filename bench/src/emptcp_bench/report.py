# SPDX-License-Identifier: Apache-2.0
"""Results as a table and as JSON, with what was measured and how."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator, Sequence
from typing import Any

from emptcp.lab.machine import machine
from emptcp_bench.chain import Comparison, Cost, Results
from emptcp_bench.measure import COUNTED, TURNS, Spread

SCHEMA = 1

Row = tuple[str, ...]
_COSTS: Row = ("HOOK", "PROGRAM", "PACKET", "NS: MIN", "MEDIAN", "MAX")
_RATIOS: Row = ("HOOK", "CASE", "AGAINST", "RATIO: MIN", "MEDIAN", "MAX", "GROSS")

_HOW = """\
{rounds} rounds of {turns} turns of {repeat} packets per program by BPF_PROG_TEST_RUN, on
{machine}.
The programs take turns. A program's time in a round is the mean of its {counted} quickest turns, as the
kernel measured them. Ratios are made round by round and net of the empty program, which is what the trial
itself costs; GROSS is the median of the ratios with it.
bare_*: by hand, nothing but the task. whole_*: by hand, with what core promises: only MPTCP, lengths and
fragments checked, packets and bytes counted per stage. look_up: by hand, a look-up of the 4-tuple in a hash
table of 10,000 flows. calls_*: as whole_*, each actor a subprogram. paper_*: by tail calls with the entries
in metadata or skb->cb, each stage parsing anew, as the paper describes it. fused_*, tail_*: the chain as each
engine of emptcp makes it, as it would be attached."""


def as_json(results: Results) -> dict[str, Any]:
    """Return the results as ``emptcp bench chain --json`` prints them."""
    return {
        "schema": SCHEMA,
        "benchmark": "chain",
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
        "load": round(os.getloadavg()[0], 1),
        "how": _how(results),
        "rounds": results.rounds,
        "turns": TURNS,
        "repeat": results.repeat,
        "costs": [_cost(one) for one in results.costs],
        "comparisons": [_comparison(one) for one in results.comparisons],
        "figures": {
            name: None if value is None else round(value, 3) for name, value in results.figures.items()
        },
    }


def as_text(results: Results) -> str:
    """Return the results as tables."""
    costs = [_COSTS, *map(_cost_cells, results.costs)]
    ratios = [_RATIOS, *map(_ratio_cells, results.comparisons)]
    figures = [
        f"{name} {'-' if value is None else f'{value:.2f}'}" for name, value in results.figures.items()
    ]
    return "\n".join([_how(results), "", *table(costs, 3), "", *table(ratios, 3), "", *figures])


def _how(results: Results) -> str:
    return _HOW.format(
        rounds=results.rounds, turns=TURNS, counted=COUNTED, repeat=results.repeat, machine=machine()
    )


def _cost(cost: Cost) -> dict[str, Any]:
    return {
        "backend": cost.backend,
        "program": cost.program,
        "packet": cost.packet,
        "ns": spread(cost.ns),
    }


def _comparison(one: Comparison) -> dict[str, Any]:
    return {
        "backend": one.backend,
        "case": one.case.title,
        "packet": one.case.packet,
        "program": one.case.program,
        "against": one.against,
        "ratio": spread(one.ratio) if one.ratio else None,
        "gross": spread(one.gross),
    }


def spread(found: Spread) -> dict[str, float]:
    """Return a spread as JSON has it."""
    return {"min": round(found.least, 3), "median": round(found.median, 3), "max": round(found.most, 3)}


def _cost_cells(cost: Cost) -> Row:
    return (cost.backend, cost.program, cost.packet, *numbers(cost.ns, 1))


def _ratio_cells(one: Comparison) -> Row:
    ratio = numbers(one.ratio, 2) if one.ratio else ("-", "-", "-")
    return (one.backend, one.case.title, one.against, *ratio, f"{one.gross.median:.2f}")


def numbers(found: Spread, digits: int) -> Row:
    """Return a spread as cells."""
    return tuple(f"{value:.{digits}f}" for value in (found.least, found.median, found.most))


def table(rows: Sequence[Row], words: int) -> Iterator[str]:
    """Yield lines; the first ``words`` columns stand to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.ljust(width) if n < words else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
