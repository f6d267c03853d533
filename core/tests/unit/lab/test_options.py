# SPDX-License-Identifier: Apache-2.0
"""Rates and times as the operator writes them, and the scenario's policy file."""

from __future__ import annotations

from pathlib import Path as File

import pytest

from emptcp.errors import EmptcpError
from emptcp.lab import options, scenario
from emptcp.lab.path import Path
from emptcp.lab.scenario import Timeline
from emptcp.lab.steering import LabTable


def test_each_path_has_its_own_value_or_all_share_one() -> None:
    assert options.paths("100mbit", "20ms,50ms") == [Path(100e6, 0.020), Path(100e6, 0.050)]
    assert options.paths("1gbit,20mbit,5mbit", "7ms") == [
        Path(1e9, 0.007),
        Path(20e6, 0.007),
        Path(5e6, 0.007),
    ]
    assert len(options.paths("1mbit", "1ms")) == 2


def test_too_few_values_are_refused_by_name() -> None:
    with pytest.raises(EmptcpError, match="--rate has 2 values, but there are 3 paths"):
        options.paths("1mbit,2mbit", "1ms,2ms,3ms")


@pytest.mark.parametrize("wrong", ["fast", "100", "10mbyte", ""])
def test_a_rate_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(EmptcpError):
        options.paths(wrong, "20ms")


def test_a_run_of_twenty_seconds_has_its_policy_from_six_to_thirteen() -> None:
    assert Timeline.lasting(20) == Timeline(apply=6.0, remove=13.0, end=20)


def test_a_run_too_short_to_see_anything_is_refused() -> None:
    with pytest.raises(EmptcpError, match="too short"):
        Timeline.lasting(5)


def test_the_scenarios_policy_is_one_on_the_senders_second_path() -> None:
    table = LabTable("lab-1a2b").table(scenario.POLICY)
    (policy,) = table.policies
    assert (table.name, policy.table) == ("lab-1a2b", "lab-1a2b")
    assert (policy.hooks, policy.devices) == (("ingress",), ("path2",))


def test_a_policy_that_would_leave_the_lab_is_refused(tmp_path: File) -> None:
    file = tmp_path / "out.toml"
    file.write_text(scenario.POLICY.read_text() + 'netns = "elsewhere"\n')
    with pytest.raises(EmptcpError, match="'path2 is backup' names a namespace"):
        LabTable("x").table(file)
