# SPDX-License-Identifier: Apache-2.0
"""ECF's rule on connections without a kernel."""

from __future__ import annotations

import pytest

from emptcp_scheduler_ecf.scheduler import Ecf
from emptcp_sdk.testing import Setting, SimulatedConnection, SimulatedSubflow

MBIT = 125_000


def two(fast_rtt: float, slow_rtt: float, **slow: float) -> SimulatedConnection:
    """Return a connection over 20 Mbit/s and 5 Mbit/s."""
    return SimulatedConnection(
        {
            "fast": SimulatedSubflow(rtt=fast_rtt, rate=20 * MBIT),
            "slow": SimulatedSubflow(rtt=slow_rtt, rate=5 * MBIT, **slow),
        }
    )


def ecf(beta: float = 0.25) -> Ecf:
    return Ecf({"beta": beta})


def test_the_slow_subflow_is_spared_while_the_fast_one_is_done_sooner() -> None:
    connection = two(0.02, 0.2)
    connection.run(ecf(), ticks=5, write=100_000)  # 8 Mbit/s
    assert connection.settings == [Setting(1, "slow", "backup", True)]
    assert connection["slow"].sent == 0


def test_it_is_given_back_when_too_much_waits_and_spared_again_behind_it() -> None:
    connection = two(0.02, 0.2)
    connection.run(ecf(), ticks=3, write=100_000)
    connection.run(ecf(), ticks=1, write=5_000_000)
    assert connection.settings[-1] == Setting(4, "slow", "backup", False)
    connection.run(ecf(), ticks=40)
    assert connection.queued == 0
    assert connection.settings[-1].value is True
    assert len(connection.settings) == 3


def test_who_waits_for_the_send_buffer_has_more_than_is_queued() -> None:
    connection = two(0.02, 0.2)
    connection.run(ecf(), ticks=1)
    assert connection.settings == [Setting(1, "slow", "backup", True)]
    connection.sndbuf_limited = True
    connection.run(ecf(), ticks=1)
    assert connection.settings[1:] == [Setting(2, "slow", "backup", False)]


def test_a_small_receive_window_is_left_to_the_fast_subflow_however_much_waits() -> None:
    """64 KiB take the fast one three round trips, against 200 ms of all that is under way."""
    connection = two(0.02, 0.2)
    connection.window = 1 << 16
    connection.run(ecf(), ticks=5, write=20_000_000)
    assert connection.settings == []  # it may grow yet
    scheduler = ecf()
    connection.run(scheduler, ticks=20, write=20_000_000)
    assert [(one.subflow, one.value) for one in connection.settings] == [("slow", True)]
    connection.window = 1 << 20
    connection.run(scheduler, ticks=1, write=20_000_000)
    assert connection.settings[-1].value is False


def test_a_large_receive_window_and_one_that_grows_are_used_in_full() -> None:
    for growth, windows in ((1.0, 1 << 20), (1.2, 1 << 16)):
        connection = two(0.02, 0.2)
        scheduler = ecf()
        for step in range(30):
            connection.window = round(windows * growth**step)
            connection.run(scheduler, ticks=1, write=20_000_000)
        assert connection.settings == []


def test_a_window_that_is_not_needed_says_nothing() -> None:
    """While little waits nobody knows how large it would become."""
    connection = two(0.02, 0.2)
    connection.subflows["slow"].rtt = 0.03
    connection.window = 1 << 16
    scheduler = ecf()
    connection.run(scheduler, ticks=50, write=100_000)
    connection.subflows["slow"].rtt = 0.2
    connection.run(scheduler, ticks=5, write=20_000_000)
    assert connection.settings == []


def test_paths_that_are_alike_are_both_used() -> None:
    connection = two(0.02, 0.025)
    connection.run(ecf(), ticks=5, write=100_000)
    assert connection.settings == []


def test_a_slow_subflow_with_a_large_window_is_used_where_it_ends_before_the_fast_one_is_free() -> None:
    # A round trip of the slow one is less than two of the fast one: no wait can pay.
    connection = two(0.02, 0.035)
    connection.run(ecf(), ticks=3)
    assert connection.settings == []


def test_deviations_delay_the_verdict() -> None:
    connection = two(0.02, 0.06, deviation=0.03)
    connection.run(ecf(), ticks=1)
    assert connection.settings == []


def test_beta_keeps_it_from_flapping() -> None:
    """Between one and 1 + beta times what would begin a wait, a wait goes on and none begins."""
    for before, expected in ((0, [Setting(1, "slow", "backup", True)]), (1, [])):
        connection = two(0.02, 0.2)
        connection.subflows["fast"].rate = 0  # what waits stays
        connection.subflows["fast"].cwnd = connection.subflows["slow"].cwnd = 14_600
        if before == 0:
            connection.run(ecf(), ticks=1)
        connection.subflows["slow"].rate = 0
        connection.queued = 160_000  # 12 round trips of 20 ms: more than 200, less than 250
        connection.run(ecf(), ticks=2)
        assert connection.settings == expected


@pytest.mark.parametrize("number", [1, 3, 8])
def test_any_number_of_subflows_is_compared_with_the_fastest(number: int) -> None:
    subflows = {
        f"p{index}": SimulatedSubflow(rtt=0.02 * 10**index, rate=MBIT) for index in range(min(number, 3))
    }
    subflows |= {f"p{index}": SimulatedSubflow(rtt=0.0, rate=MBIT, cwnd=14_600) for index in range(3, number)}
    connection = SimulatedConnection(subflows)
    connection.run(ecf(), ticks=2)
    # Those without a sample are left alone.
    assert {one.subflow for one in connection.settings} == {f"p{index}" for index in range(1, min(number, 3))}
