# SPDX-License-Identifier: Apache-2.0
"""Tiers on connections without a kernel: opened when the cheap path is full, left when it suffices again."""

from __future__ import annotations

from typing import Any

import pytest

from emptcp.api import Path
from emptcp_scheduler_weighted.overflow import LONGEST, Overflow
from emptcp_scheduler_weighted.scheduler import Weighted
from emptcp_sdk.testing import Setting, SimulatedConnection, SimulatedSubflow

MBIT = 125_000
SECOND = 10
"""Ticks."""


def wans(*rates: float, quota: int | None = None) -> SimulatedConnection:
    """Return a connection over paths of so many Mbit/s, each dearer than the one before."""
    return SimulatedConnection(
        {
            f"wan{number}": SimulatedSubflow(
                rtt=0.02, rate=rate * MBIT, path=Path(f"wan{number}", cost=number, quota=quota)
            )
            for number, rate in enumerate(rates, start=1)
        }
    )


def weighted(connection: SimulatedConnection, **more: Any) -> Weighted:
    given = {"queue": 0.1, "patience": 0.5, "hold": 5.0, "weights": (), "renews": 0, **more}
    return Weighted(given, connection.paths)


def mbit(rate: float) -> int:
    """Return the bytes of a tick."""
    return round(rate * MBIT / SECOND)


def test_the_second_path_carries_nothing_while_the_first_suffices() -> None:
    connection = wans(20, 10)
    connection.run(weighted(connection), ticks=1)
    connection.run(weighted(connection), ticks=60 * SECOND, write=mbit(18))
    assert connection.settings == [Setting(1, "wan2", "backup", True)]
    assert connection["wan2"].sent == 0


def test_the_second_path_is_used_in_full_when_the_first_is_not_enough() -> None:
    connection = wans(20, 10)
    connection.run(weighted(connection), ticks=10 * SECOND, write=mbit(40))
    opened = connection.settings[-1]
    assert (opened.subflow, opened.value) == ("wan2", False)
    assert opened.tick <= 2 * SECOND
    before = connection["wan2"].sent
    connection.run(weighted(connection), ticks=0)
    assert before >= 0.9 * (10 - opened.tick / SECOND) * 10 * MBIT


def test_a_burst_does_not_open_the_second_path() -> None:
    connection = wans(20, 10)
    controller = weighted(connection)
    for _ in range(20):
        connection.run(controller, ticks=1, write=mbit(80))  # 0.4 s of the first path
        connection.run(controller, ticks=SECOND - 1)
    assert connection.settings == [Setting(1, "wan2", "backup", True)]


def test_the_second_path_is_left_when_the_first_suffices_again_and_not_before_hold_is_over() -> None:
    connection = wans(20, 10)
    controller = weighted(connection)
    connection.run(controller, ticks=5 * SECOND, write=mbit(28))
    connection.run(controller, ticks=4 * SECOND, write=mbit(10))
    assert connection.settings[-1].value is False
    connection.run(controller, ticks=6 * SECOND, write=mbit(10))
    assert connection.settings[-1].value is True
    assert len(connection.settings) == 3


def test_it_is_not_left_while_both_are_needed() -> None:
    connection = wans(20, 10)
    controller = weighted(connection)
    connection.run(controller, ticks=60 * SECOND, write=mbit(26))
    assert [one.value for one in connection.settings] == [True, False]


def test_tiers_open_one_after_the_other() -> None:
    connection = wans(20, 10, 5)
    connection.run(weighted(connection), ticks=10 * SECOND, write=mbit(60))
    given_back = [one for one in connection.settings if one.value is False]
    assert [one.subflow for one in given_back] == ["wan2", "wan3"]
    assert given_back[1].tick - given_back[0].tick >= SECOND / 2


def test_a_path_that_is_gone_leaves_the_next_one_to_work() -> None:
    connection = wans(20, 10)
    controller = weighted(connection)
    connection.run(controller, ticks=SECOND, write=mbit(5))
    connection.close("wan1")
    connection.run(controller, ticks=1, write=mbit(5))
    assert connection.settings[-1] == Setting(SECOND + 1, "wan2", "backup", False)


def test_subflows_of_no_path_are_left_alone() -> None:
    connection = wans(20, 10)
    connection._connections.path_of = lambda subflow: None
    controller = weighted(connection)
    connection.run(controller, ticks=3, write=mbit(5))
    assert connection.settings == []


def test_each_hold_that_was_too_short_is_followed_by_a_longer_one_and_the_last_is_bounded() -> None:
    """The path has less than when it was measured: whenever its tier is left, it is needed again at once."""
    overflow = Overflow(queue=0.1, patience=0.5, hold=5.0)
    needed: list[float] = []
    left: list[float] = []
    now = 0.0
    for _ in range(30_000):
        now += 0.1
        before = overflow.level
        alone = before == 1
        overflow.look(now, 1.0 if alone else 0.0, [10.0, 0.0 if alone else -2.0])
        if overflow.level > before:
            needed.append(now)
        elif overflow.level < before:
            left.append(now)
    holds = [off - on for on, off in zip(needed, left, strict=False)]
    assert holds[:5] == pytest.approx([5, 10, 20, 40, 80], abs=0.3)
    assert max(holds) == pytest.approx(5.0 * LONGEST, abs=0.3)


def test_a_rate_that_still_grows_is_not_full() -> None:
    overflow = Overflow(queue=0.1, patience=0.5, hold=5.0)
    for step in range(20):
        assert overflow.look(step / 10, 9.0, [100.0 * 1.1**step, 0.0]) == 1
    for step in range(20, 33):
        overflow.look(step / 10, 9.0, [100.0 * 1.1**20, 0.0])
    assert overflow.level == 2
