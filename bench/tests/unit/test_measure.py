# SPDX-License-Identifier: Apache-2.0
"""How times become ratios, and what is printed of them."""

from __future__ import annotations

import pytest

from emptcp_bench import measure
from emptcp_bench.measure import Spread, in_turns, ratios


class Scripted:
    """A trial that takes the times it was given, and notes when it was asked."""

    def __init__(self, times: list[int], name: str, order: list[str]) -> None:
        self.times, self.name, self.order = times, name, order

    def time(self, repeat: int) -> int:
        self.order.append(self.name)
        return self.times[len([name for name in self.order if name == self.name]) - 1]


def test_a_round_is_the_mean_of_its_quickest_turns() -> None:
    order: list[str] = []
    found = in_turns({("a", "p"): Scripted([900, 10, 12, 11, 500], "a", order)}, 1, 1)  # type: ignore[dict-item]
    assert found == {("a", "p"): [11]}


def test_trials_take_turns_and_each_round_begins_with_another() -> None:
    order: list[str] = []
    trials = {(name, "p"): Scripted([1] * 10, name, order) for name in "ab"}
    in_turns(trials, 2, 1)  # type: ignore[arg-type]
    assert "".join(order) == "ab" * measure.TURNS + "ba" * measure.TURNS


def test_ratios_are_net_of_the_empty_program_and_leave_out_what_is_all_noise() -> None:
    assert ratios([30, 30], [20, 10], [10, 10]) == [2]


@pytest.mark.parametrize("values", [[3.0], [5.0, 1.0, 3.0]])
def test_a_spread_holds_its_median(values: list[float]) -> None:
    spread = Spread.of(values)
    assert (spread.least, spread.median, spread.most) == (min(values), 3, max(values))
