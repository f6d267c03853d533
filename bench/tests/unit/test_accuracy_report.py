# SPDX-License-Identifier: Apache-2.0
"""Rows of `emptcp bench accuracy`, in JSON and on the documentation's page."""

from __future__ import annotations

import json
from pathlib import Path

from emptcp_bench.accuracy import report
from emptcp_bench.accuracy.row import Row

DOCS = Path(__file__).parents[3] / "docs"
ROWS = [
    Row("one", "near", (9.0, 10.1, 9.9), "Mbit/s", least=9.5, most=10.5),
    Row("other", "little", (6.0, 4.0, 7.0), "%", most=5),
]


def test_a_row_holds_by_its_median() -> None:
    assert [row.held for row in ROWS] == [True, False]
    assert ROWS[0].told == "9.90 Mbit/s (9.00 to 10.10)"
    assert ROWS[1].told == "6.00 % (4.00 to 7.00), missed: at most 5"


def test_json_brings_the_rows_back() -> None:
    answer = json.loads(json.dumps(report.as_json(ROWS, 3)))
    assert answer["schema"] == report.SCHEMA
    assert [one["held"] for one in answer["rows"]] == [True, False]
    assert report.from_json(answer) == ROWS


def test_the_page_of_the_documentation_is_made_from_its_json() -> None:
    answer = json.loads((DOCS / "reference" / "accuracy.json").read_text(encoding="utf-8"))
    page = (DOCS / "reference" / "accuracy.md").read_text(encoding="utf-8")
    assert report.as_page(answer) == page
    assert len(report.from_json(answer)) > 20
