# SPDX-License-Identifier: Apache-2.0
"""The page of performance is what the benchmarks' JSON gives."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from emptcp.errors import EmptcpError
from emptcp_bench import page
from emptcp_bench.answer import Answer
from emptcp_bench.measure import Spread

DOCS = Path(__file__).parents[3] / "docs"
FIGURES = {name: 1.0 for benchmark, name, *_ in page.TARGETS if benchmark == "control"}
ANSWER = Answer(
    "control",
    "How it was done.",
    3,
    [{"what": "one", "us": Spread(1.0, 2.25, 1234.5)}, {"what": "other", "us": None}],
    FIGURES | {"apply_20_stages_ms": 100.5},
)


def test_the_page_of_the_documentation_is_made_from_its_json() -> None:
    answers = page.read(DOCS / "reference" / "bench")
    assert {"chain", "bystander", "control"} <= answers.keys() <= set(page.ORDER)
    text = page.as_page(answers)
    assert text == (DOCS / "performance.md").read_text(encoding="utf-8")
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert pictures == [f"reference/bench/{page.picture(one)}" for one in answers if page.picture(one)]
    assert all((DOCS / one).read_text(encoding="utf-8").startswith("<?xml") for one in pictures)


def test_the_page_has_each_row_and_says_what_was_missed() -> None:
    text = page.as_page({"control": ANSWER.as_json()})
    assert "| one | 2.25 (1.00 to 1,234) |" in text
    assert "| other | - |" in text
    assert "| 20 stages on one hook applied, ms | 100 | at most 100 | missed |" in text
    assert "| 10,000 entries of a set in a batch, ms | 1.00 | at most 30 |  |" in text
    assert "| mptcpd's path, against an entry set | 1.00 | at least 20 | missed |" in text


def test_the_table_in_the_terminal_has_the_same_cells() -> None:
    lines = [line.split() for line in ANSWER.as_text().splitlines()]
    assert ["one", "2.25", "(1.00", "to", "1,234)"] in lines
    assert ["apply_20_stages_ms", "100"] in lines


def test_a_folder_without_answers_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EmptcpError, match="no answers"):
        page.read(tmp_path)
