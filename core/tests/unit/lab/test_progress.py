# SPDX-License-Identifier: Apache-2.0
"""What a run says while it goes on."""

from __future__ import annotations

import io

from emptcp.lab.host import Host
from emptcp.lab.measure import Row
from emptcp.lab.path import Path, place_all
from emptcp.lab.progress import Progress
from emptcp.lab.scenario import APPLIED, POLICY, Moment, Timeline
from emptcp.lab.topology import Lab

LAB = Lab("x", Host("a", "emt-x-a"), Host("b", "emt-x-b"), place_all([Path(), Path()]), "relay", 4)


def told(encoding: str) -> str:
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    progress = Progress(out)
    progress.begin(LAB, Timeline.lasting(20), POLICY)
    progress.second(Row(6, 7, {"path1": 100.0, "path2": 50.0}, {"path1": False, "path2": True}))
    progress.changing(APPLIED, 6.0)
    progress.changed(Moment(APPLIED, 6.0, 6.25))
    out.flush()
    out.seek(0)
    return out.read()


def test_the_newcomer_sees_paths_plan_and_policy_before_anything_happens() -> None:
    text = told("utf-8")
    assert "path2  100 Mbit/s  RTT 20 ms  10.0.2.1 > 10.0.2.2" in text
    assert "At 6 s a policy is applied at host a, at 13 s it is removed:" in text
    assert 'dev  = ["path2"]' in text
    assert "SPDX" not in text


def test_a_second_is_a_bar_and_a_number_per_path() -> None:
    bar = "█" * 20 + "  100.0   path2 " + "█" * 10 + " " * 11 + "  50.0 Mbit/s   path2 is backup"
    assert f"   7 s  path1 {bar}" in told("utf-8")
    assert f"   7 s  path1 {bar.replace('█', '#')}" in told("ascii")


def test_the_policys_coming_is_told_with_what_it_means() -> None:
    assert "   6.0 s  applying the policy: path2 becomes backup\n   6.2 s  policy applied\n" in told("utf-8")
