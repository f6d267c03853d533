# SPDX-License-Identifier: Apache-2.0
"""What paths with a quota carried: counted once, over restarts too, until the month is over."""

from __future__ import annotations

import json

import pytest

from emptcp_scheduler_weighted import quota
from emptcp_sdk.testing import SimulatedConnection

from .test_overflow import SECOND, mbit, wans, weighted


def remembered(state: dict[str, object]) -> dict[str, object]:
    """Return a state as the next process reads it."""
    return dict(json.loads(json.dumps(state)))


def backups(connection: SimulatedConnection) -> list[bool]:
    return [one.backup for one in connection.connection.subflows]


def test_a_path_over_its_quota_is_the_last_resort() -> None:
    connection = wans(20, 10, quota=3_000_000)
    controller = weighted(connection)
    connection.run(controller, ticks=SECOND, write=mbit(8))
    assert backups(connection) == [False, True]
    connection.run(controller, ticks=3 * SECOND, write=mbit(8))
    assert backups(connection) == [True, False]
    connection.run(controller, ticks=4 * SECOND, write=mbit(8))
    assert backups(connection) == [True, True]


def test_bytes_are_counted_once_over_a_restart() -> None:
    connection = wans(20, quota=10**9)
    first = weighted(connection)
    connection.run(first, ticks=SECOND, write=mbit(8))
    # What passes while nobody is there is caught up with.
    connection.write(mbit(8))
    connection._move(0.1)
    second = weighted(connection)
    second.state = remembered(first.state)
    connection.run(second, ticks=SECOND, write=mbit(8))
    assert second.state["used"] == {"wan1": connection["wan1"].sent}


def test_without_what_was_remembered_a_quota_would_begin_anew() -> None:
    connection = wans(20, 10, quota=1_000_000)
    first = weighted(connection)
    connection.run(first, ticks=15, write=mbit(8))
    assert backups(connection) == [True, False]
    other = wans(20, 10, quota=1_000_000)
    fresh, told = weighted(other), weighted(other)
    other.run(fresh, ticks=1)
    assert backups(other) == [False, True]
    told.state = remembered(first.state)
    other.run(told, ticks=1)
    assert backups(other) == [True, False]


def test_another_subflow_with_the_same_ports_is_counted_from_its_beginning() -> None:
    connection = wans(20, quota=10**9)
    controller = weighted(connection)
    connection.run(controller, ticks=1, write=50_000)
    again = wans(20, quota=10**9)
    again.run(controller, ticks=1, write=20_000)
    assert controller.state["used"] == {"wan1": 70_000}
    assert len(controller.state["counted"]) == 1


def test_another_month_begins_at_nothing() -> None:
    connection = wans(20, quota=10**9)
    controller = weighted(connection)
    connection.run(controller, ticks=1, write=50_000)
    quota.count(controller.state, [connection.connection], "2031-01")
    connection.write(20_000)
    connection._move(0.1)
    quota.count(controller.state, [connection._see()], "2031-01")
    assert controller.state["used"] == {"wan1": 20_000}


@pytest.mark.parametrize(
    ("renews", "seconds", "month"),
    [(0, 0.0, ""), (1, 0.0, "1970-01"), (15, 0.0, "1969-12"), (15, 14.5 * 86400, "1970-01")],
)
def test_a_month_begins_on_its_day(
    monkeypatch: pytest.MonkeyPatch, renews: int, seconds: float, month: str
) -> None:
    monkeypatch.setattr(quota.time, "time", lambda: seconds)
    monkeypatch.setattr(quota.time, "localtime", quota.time.gmtime)
    assert quota.month(renews) == month


def test_without_quotas_nothing_is_remembered() -> None:
    connection = wans(20, 10)
    controller = weighted(connection)
    connection.run(controller, ticks=SECOND, write=mbit(8))
    assert controller.state == {}
