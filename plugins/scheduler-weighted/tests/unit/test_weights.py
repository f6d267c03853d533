# SPDX-License-Identifier: Apache-2.0
"""Weights on connections without a kernel."""

from __future__ import annotations

import pytest

from emptcp.api import Path
from emptcp_sdk.testing import SimulatedConnection, SimulatedSubflow

from .test_overflow import MBIT, SECOND, mbit, weighted


def alike(*rates: float) -> SimulatedConnection:
    """Return a connection over paths of one cost."""
    return SimulatedConnection(
        {
            f"wan{number}": SimulatedSubflow(rtt=0.02, rate=rate * MBIT, path=Path(f"wan{number}"))
            for number, rate in enumerate(rates, start=1)
        }
    )


@pytest.mark.parametrize(
    ("rates", "weights", "demand"),
    [((20, 20), (3, 1), 60), ((20, 10), (1, 1), 60), ((20, 20), (3, 1), 8), ((20, 20, 20), (4, 2, 1), 60)],
)
def test_what_paths_carry_is_as_their_weights(
    rates: tuple[float, ...], weights: tuple[int, ...], demand: float
) -> None:
    connection = alike(*rates)
    controller = weighted(connection, weights=weights)
    connection.run(controller, ticks=10 * SECOND, write=mbit(demand))
    before = [one.sent for one in connection.connection.subflows]
    connection.run(controller, ticks=20 * SECOND, write=mbit(demand))
    sent = [one.sent - old for one, old in zip(connection.connection.subflows, before, strict=True)]
    for one, weight in zip(sent, weights, strict=True):
        assert one / sum(sent) == pytest.approx(weight / sum(weights), rel=0.12)
    slowest = min(rate / weight for rate, weight in zip(rates, weights, strict=True))
    assert sum(sent) >= 0.9 * min(demand, slowest * sum(weights)) * MBIT * 20


def test_a_path_that_is_stuck_holds_up_no_other() -> None:
    connection = alike(20, 20)
    controller = weighted(connection, weights=(1, 1))
    connection.run(controller, ticks=5 * SECOND, write=mbit(60))
    connection.close("wan2")
    connection.run(controller, ticks=1, write=mbit(60))
    assert connection["wan1"].rate is None


def test_a_path_without_a_weight_counts_as_one() -> None:
    connection = alike(20, 20)
    controller = weighted(connection, weights=(2,))
    connection.run(controller, ticks=20 * SECOND, write=mbit(60))
    first, second = (one.sent for one in connection.connection.subflows)
    assert first / second == pytest.approx(2, rel=0.2)


def test_a_weight_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="a weight is 1 or more"):
        weighted(alike(20, 20), weights=(1, 0))
