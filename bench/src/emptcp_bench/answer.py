# SPDX-License-Identifier: Apache-2.0
"""What a benchmark found, in the shape that most of them have: rows, and the figures that matter most.

Told as JSON, which the page of the documentation is made from, and as a table in the terminal.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from emptcp.lab.machine import machine
from emptcp_bench.measure import Spread
from emptcp_bench.report import spread, table

SCHEMA = 1

Value = str | int | float | Spread | None
Row = Mapping[str, Value]
"""By the head of its column; a head with a unit ends with it, as in ``alone, ns``."""


@dataclass(frozen=True)
class Answer:
    """The answer of one benchmark: ``how`` says what was counted, and how; ``rounds`` of it."""

    benchmark: str
    how: str
    rounds: int
    rows: Sequence[Row]
    figures: Mapping[str, float | None] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return what ``emptcp bench NAME --json`` prints."""
        return {
            "schema": SCHEMA,
            "benchmark": self.benchmark,
            "machine": machine(),
            "date": datetime.date.today().isoformat(),
            "load": round(os.getloadavg()[0], 1),
            "rounds": self.rounds,
            "how": self.how,
            "rows": [{head: _told(value) for head, value in row.items()} for row in self.rows],
            "figures": {
                name: None if value is None else round(value, 3) for name, value in self.figures.items()
            },
        }

    def as_text(self) -> str:
        """Return what ``emptcp bench NAME`` prints."""
        return as_text(self.as_json())


def as_text(answer: Mapping[str, Any]) -> str:
    """Return an answer's JSON as tables."""
    head, *rows = cells(answer["rows"])
    capitals = tuple(cell.upper() for cell in head)
    figures = [f"{name} {number(value)}" for name, value in answer["figures"].items()]
    how = [answer["how"], f"{answer['rounds']} rounds, on {answer['machine']}."]
    return "\n".join([*how, "", *table([capitals, *rows], words(answer["rows"])), "", *figures]).rstrip()


def words(rows: Sequence[Mapping[str, Any]]) -> int:
    """Return how many columns, from the first on, are words in every row."""
    heads = list(rows[0])
    numbers = [n for n, head in enumerate(heads) if not all(isinstance(row[head], str) for row in rows)]
    return min(numbers, default=len(heads))


def cells(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    """Yield the heads of an answer's columns, and the cells of each row."""
    yield tuple(rows[0])
    for row in rows:
        yield tuple(_cell(value) for value in row.values())


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        least, median, most = (number(value[name]) for name in ("min", "median", "max"))
        return f"{median} ({least} to {most})"
    return number(value)


def number(value: float | None) -> str:
    """Return a number with three digits that count, a dash for none."""
    if value is None:
        return "-"
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _told(value: Value) -> Any:
    return spread(value) if isinstance(value, Spread) else value
