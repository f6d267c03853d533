# SPDX-License-Identifier: Apache-2.0
"""What `emptcp bench steer` prints."""

from __future__ import annotations

from emptcp_bench import steer_report
from emptcp_bench.measure import Spread
from emptcp_bench.steer import Steered

RESULTS = [Steered("port", Spread(1e9, 2e9, 3e9), Spread(1e9, 1.9e9, 3e9), Spread(0.9, 0.955, 1.1))]


def test_the_table_has_a_row_per_mode() -> None:
    rows = [line.split() for line in steer_report.as_text(RESULTS).splitlines()]
    assert ["port", "2.0", "1.9", "0.90", "0.95", "1.10"] in rows


def test_json_has_ratios_and_bits_per_second() -> None:
    (mode,) = steer_report.as_json(RESULTS)["modes"]
    assert mode["ratio"] == {"min": 0.9, "median": 0.955, "max": 1.1}
    assert mode["without"]["median"] == 2e9
