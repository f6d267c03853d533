# SPDX-License-Identifier: Apache-2.0
"""What `emptcp bench chain` prints."""

from __future__ import annotations

from dataclasses import replace

from emptcp_bench import report
from emptcp_bench.chain import CASES, Comparison, Cost, Results
from emptcp_bench.measure import Spread

SPREAD = Spread(1.0, 2.0, 3.0)
RESULTS = Results(
    rounds=4,
    repeat=700,
    costs=(Cost("tc", "empty", "udp", SPREAD),),
    comparisons=(
        Comparison("tc", CASES[0], "look_up", SPREAD, Spread(0.5, 0.6, 0.7)),
        Comparison("xdp", CASES[1], "look_up", None, SPREAD),
    ),
)


def test_the_table_says_how_it_was_measured() -> None:
    text = report.as_text(RESULTS)
    assert "4 rounds of 5 turns of 700 packets per program by BPF_PROG_TEST_RUN" in text
    assert "mean of its 3 quickest turns" in text


def test_the_table_has_a_row_per_cost_and_per_comparison() -> None:
    rows = [line.split() for line in report.as_text(RESULTS).splitlines()]
    assert ["tc", "empty", "udp", "1.0", "2.0", "3.0"] in rows
    assert ["tc", *CASES[0].title.split(), "look_up", "1.00", "2.00", "3.00", "0.60"] in rows
    assert ["xdp", *CASES[1].title.split(), "look_up", "-", "-", "-", "2.00"] in rows


def test_what_drowned_in_noise_is_null() -> None:
    first, second = report.as_json(RESULTS)["comparisons"]
    assert first["ratio"] == {"min": 1.0, "median": 2.0, "max": 3.0}
    assert second["ratio"] is None


def test_a_figure_is_the_worse_one_of_the_back_ends() -> None:
    (case,) = (one for one in CASES if one.program == "fused_flows_7")
    both = [
        Comparison(backend, case, "whole_flows_7", Spread(1.0, median, 9.0), SPREAD)
        for backend, median in (("xdp", 1.25), ("tc", 1.5))
    ]
    figures = report.as_json(replace(RESULTS, comparisons=tuple(both)))["figures"]
    assert figures["fused8_over_monolith"] == 1.5
    assert figures["fused8_over_paper"] is None
