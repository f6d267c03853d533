# SPDX-License-Identifier: Apache-2.0
"""What a run is said to have shown."""

from __future__ import annotations

import json
from pathlib import Path as File

import pytest

from emptcp.lab import report
from emptcp.lab.path import Path

from .conftest import made_up_run


def test_a_policy_that_did_its_work_is_said_to_have_done_it() -> None:
    verdict = report.verdict(made_up_run())
    assert verdict.held is True
    assert verdict.statement == (
        "The policy did what it says: path2 carried 50 % of the traffic before, "
        "0 % while it was backup, and 50 % afterwards."
    )


@pytest.mark.parametrize(
    ("during", "after"),
    [((95, 95), (95, 95)), ((95, 10), (95, 95)), ((95, 0), (95, 0)), ((95, 0), (95, 20))],
    ids=["nothing happened", "still used", "not given back", "hardly given back"],
)
def test_a_policy_that_did_not_is_said_not_to(
    during: tuple[float, float], after: tuple[float, float]
) -> None:
    verdict = report.verdict(made_up_run(during=during, after=after))
    assert verdict.held is False
    assert verdict.statement.startswith("The policy did not do what it says: path2 carried 50 %")


def test_a_path_that_was_never_used_shows_nothing() -> None:
    verdict = report.verdict(made_up_run(before=(95, 0.1), during=(95, 0), after=(95, 0.1)))
    assert verdict.held is False
    assert "The run shows nothing" in verdict.statement


def test_a_slow_path_is_measured_by_its_own_part_of_the_rate() -> None:
    paths = (Path(rate=100e6), Path(rate=10e6))
    verdict = report.verdict(made_up_run(before=(95, 9), after=(95, 9), paths=paths))
    assert verdict.held is True


def test_another_policy_is_not_judged() -> None:
    verdict = report.verdict(made_up_run(policy=File("mine.toml")))
    assert verdict.held is None
    assert verdict.statement.startswith("Path2 carried 50 % of the traffic before, 0 % while the policy was")


def test_without_a_policy_nothing_is_judged() -> None:
    verdict = report.verdict(made_up_run(policy=None, during=(95, 95)))
    assert verdict.held is None
    assert verdict.statement == "No policy was applied: path2 carried 50 % all along."


def test_the_table_has_a_line_per_second_with_what_happened() -> None:
    lines = report.table(made_up_run()).splitlines()
    assert lines[:3] == [
        "path1: subflow 10.0.1.1:1 > 10.0.1.2:2",
        "path2: subflow 10.0.2.1:3 > 10.0.2.2:2",
        "second     path1     path2     total   Mbit/s delivered",
    ]
    assert len(lines) == 3 + 20
    assert lines[3] == "     1      95.0      95.0     190.0"
    assert lines[9] == "     7      95.0       0.0      95.0   policy applied, path2 is backup"
    assert lines[16].endswith("policy removed")


def test_the_json_says_the_same_with_a_schema_number() -> None:
    said = json.loads(json.dumps(report.as_json(made_up_run())))
    assert said["schema"] == 1
    assert said["held"] is True
    assert [phase["name"] for phase in said["phases"]] == ["before", "during", "after"]
    assert [phase["share"] for phase in said["phases"]] == [0.5, 0.0, 0.5]
    assert said["moments"] == [
        {"name": "applied", "begun": 6.0, "done": 6.2},
        {"name": "removed", "begun": 13.0, "done": 13.1},
    ]
    assert said["seconds"][7] == {
        "end": 8.0,
        "mbit": {"path1": 95.0, "path2": 0.0},
        "backup": {"path1": False, "path2": True},
    }
    assert said["paths"][1]["rtt_ms"] == 50.0
