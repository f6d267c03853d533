# SPDX-License-Identifier: Apache-2.0
"""Ratios of series that were measured in turns, and what their intervals cover."""

from __future__ import annotations

import random
from statistics import median

import pytest

from emptcp.lab.ratio import compared


def test_ratios_are_made_round_by_round() -> None:
    found = compared([10, 20, 40], [11, 22, 44], more=True)
    assert (found.median, found.low, found.high) == pytest.approx((1.1, 1.1, 1.1))


def test_less_is_better_where_time_is_measured() -> None:
    assert compared([100, 100, 100], [50, 80, 200], more=False).median == pytest.approx(1.25)


@pytest.mark.parametrize(
    ("count", "outside", "covers"),
    [(1, 0, 0.0), (3, 0, 0.75), (5, 0, 0.9375), (6, 0, 0.96875), (8, 0, 0.9921875), (9, 1, 0.9609375)],
)
def test_the_interval_is_that_of_the_sign_test(count: int, outside: int, covers: float) -> None:
    found = compared([1.0] * count, [float(number) for number in range(1, count + 1)], more=True)
    assert (found.low, found.high) == (1 + outside, count - outside)
    assert found.covers == pytest.approx(covers)


def test_it_holds_the_true_median_as_often_as_it_says() -> None:
    chance = random.Random(1)
    held = 0
    for _ in range(1000):
        ours = [chance.lognormvariate(0, 1) for _ in range(9)]
        found = compared([1.0] * 9, ours, more=True)
        assert found.low <= median(ours) <= found.high
        held += found.low <= 1.0 <= found.high
    assert held / 1000 == pytest.approx(0.961, abs=0.02)
