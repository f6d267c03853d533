# SPDX-License-Identifier: Apache-2.0
"""What a use case is said to have shown, and that the documentation says what was measured."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path as File
from typing import Any

import pytest

from emptcp.cli import lab as command
from emptcp.lab import comparison_picture, comparison_report
from emptcp.lab.comparison import OURS, Measured, Plan
from emptcp.lab.grid import BACKUP, DISJOINT, HASH, KERNEL, TCP, USE_CASES
from emptcp.policy import file as policy_file

DOCS = File(__file__).resolve().parents[4] / "docs" / "reference"


def made_up(name: str = "overflow") -> dict[str, Any]:
    """A use case of which emptcp made everything twice as good."""
    use_case = USE_CASES[name]
    plan = Plan((use_case.quick,), 3, 6.0)
    ours = [20.0, 20.0, 30.0] if use_case.quick.metric.more else [5.0, 5.0, 5.0]
    values = {setting: [10.0, 10.0, 15.0] for setting in use_case.against} | {OURS: ours}
    return comparison_report.as_json(use_case, plan, "relay", [Measured(use_case.quick, values)], "Busy.")


def test_each_setting_is_a_case_with_its_ratio() -> None:
    answer = made_up()
    assert [case["against"] for case in answer["cases"]] == [KERNEL, BACKUP]
    for case in answer["cases"]:
        assert case["name"] == USE_CASES["overflow"].quick.name
        assert case["baseline"] == {"median": 10.0, "rounds": [10.0, 10.0, 15.0]}
        assert case["with"]["median"] == 20.0
        assert case["ratio"] == {"median": 2.0, "low": 2.0, "high": 2.0, "covers": 0.75}
    assert json.loads(json.dumps(answer)) == answer


def test_the_table_has_a_line_for_each_case() -> None:
    lines = comparison_report.table(made_up()).splitlines()
    assert len(lines) == 3
    assert lines[1].split("  ")[0] == "8 Mbit/s wanted of 20/10"
    assert lines[1].endswith("2.00 (2.00 to 2.00, 75 %)")


def test_the_page_says_what_was_measured_where_and_what_the_machine_did() -> None:
    text = comparison_report.page([made_up(), made_up("heterogeneous")])
    assert text.index("## overflow") < text.index("## heterogeneous")
    for words in ("3 rounds of 6 s each", "Busy.", "| 10.00 % | 20.00 % | 2.00 (2.00 to 2.00, 75 %) |"):
        assert words in text, words


def test_the_documentations_page_is_made_from_what_was_measured(capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted((DOCS / "use-cases").glob("*.json"))
    assert {json.loads(file.read_text())["use_case"] for file in files} <= set(USE_CASES)
    answers = [json.loads(file.read_text()) for file in files]
    assert comparison_report.page(answers) == (DOCS / "use-cases.md").read_text(encoding="utf-8")


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="the extra emptcp[lab] is missing")
def test_the_picture_has_every_case(tmp_path: File) -> None:
    import matplotlib as mpl

    file = tmp_path / "cases.svg"
    with mpl.rc_context({"svg.fonttype": "none"}):
        comparison_picture.draw(made_up(), file)
    text = file.read_text()
    for words in (KERNEL, BACKUP, USE_CASES["overflow"].quick.name, "overflow: 3 rounds"):
        assert words in text, words


def test_the_command_knows_the_grids() -> None:
    assert tuple(USE_CASES) == command.USE_CASES


@pytest.mark.parametrize("use_case", USE_CASES.values(), ids=str)
def test_a_grid_is_one_that_can_be_run(use_case: Any) -> None:
    assert use_case.quick in use_case.points
    names = [point.name for point in use_case.points]
    assert len(set(names)) == len(names)
    device = "link" if use_case.guest else "path"
    for point in use_case.points:
        table = policy_file.load(use_case.policy_of(point))
        assert len(table.controllers) == 1
        best = point.paths[0]
        assert all(best.rate >= path.rate and best.rtt <= path.rtt for path in point.paths)
        assert {device for path in table.paths for device in path.devices} == {
            f"{device}{number}" for number, _ in enumerate(point.paths, start=1)
        }
    assert set(use_case.against) <= ({HASH} if use_case.guest else {KERNEL, BACKUP, DISJOINT, TCP})
