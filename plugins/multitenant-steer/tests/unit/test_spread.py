# SPDX-License-Identifier: Apache-2.0
"""Which link a subflow gets, on connections without a kernel."""

from __future__ import annotations

import pytest

from emptcp.api import Path
from emptcp_multitenant_steer import spread
from emptcp_multitenant_steer.spread import Spread
from emptcp_sdk.testing import SimulatedConnection, SimulatedSubflow

MBIT = 125_000


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(spread, "time", made)
    return made


class Hypervisor:
    """Links of 10 Mbit/s, and guests whose subflows carry 1 Mbit/s each."""

    def __init__(self, *links: str, rate: float | None = 10 * MBIT) -> None:
        self.links = [Path(name, (name,), rate=rate) for name in links]
        self.controller = Spread({"margin": 0.25, "hold": 5.0}, self.links)
        self.controller.load = dict.fromkeys(links, 0.0)

    def guest(self, subflows: int) -> SimulatedConnection:
        each = {f"s{number}": SimulatedSubflow(rtt=0.001, rate=MBIT) for number in range(subflows)}
        return SimulatedConnection(each, links=self.links)

    def tick(self, connection: SimulatedConnection, **load: float) -> list[str]:
        """Let it tick under a load in Mbit/s; return the link of each subflow."""
        self.controller.load = {**self.controller.load, **{name: one * MBIT for name, one in load.items()}}
        connection.run(self.controller)
        return [one.steer.name if one.steer else "" for one in connection.connection.subflows]


@pytest.mark.parametrize("number", [1, 2, 3, 8])
def test_subflows_of_a_connection_are_spread_evenly(number: int) -> None:
    hypervisor = Hypervisor("a", "b", "c")
    links = hypervisor.tick(hypervisor.guest(number))
    counts = [links.count(name) for name in "abc"]
    assert max(counts) - min(counts) <= 1
    assert len(links) == number


@pytest.mark.parametrize("rate", [10 * MBIT, None])
def test_the_links_that_carry_less_come_first(rate: float | None) -> None:
    hypervisor = Hypervisor("a", "b", "c", rate=rate)
    assert hypervisor.tick(hypervisor.guest(2), a=9, b=1) == ["c", "b"]


def test_a_link_of_a_higher_rate_takes_more() -> None:
    hypervisor = Hypervisor("a", "b")
    hypervisor.links[1] = Path("b", ("b",), rate=100 * MBIT)
    hypervisor.controller = Spread({"margin": 0.25, "hold": 5.0}, hypervisor.links)
    assert hypervisor.tick(hypervisor.guest(1), a=5, b=20) == ["b"]


def test_a_subflow_moves_to_a_link_with_much_less_traffic_once_it_was_held(clock: Clock) -> None:
    hypervisor = Hypervisor("a", "b", "c")
    connection = hypervisor.guest(2)
    assert hypervisor.tick(connection) == ["a", "b"]
    assert hypervisor.tick(connection, a=9, b=1) == ["a", "b"]
    clock.now = 5.1
    assert hypervisor.tick(connection) == ["c", "b"]
    assert hypervisor.tick(connection, a=0, c=9) == ["c", "b"]
    clock.now = 10.3
    assert hypervisor.tick(connection) == ["a", "b"]


def test_its_own_traffic_moves_no_subflow(clock: Clock) -> None:
    hypervisor = Hypervisor("a", "b")
    connection = hypervisor.guest(1)
    connection.subflows["s0"].rate = 9 * MBIT
    hypervisor.tick(connection)
    for now in (6.0, 12.0):
        clock.now = now
        assert hypervisor.tick(connection, a=9) == ["a"]
    clock.now = 18.0
    connection.subflows["s0"].rate = 2 * MBIT  # the other seven are somebody else's
    assert hypervisor.tick(connection) == ["b"]


def test_none_moves_to_where_another_of_its_connection_is(clock: Clock) -> None:
    hypervisor = Hypervisor("a", "b")
    connection = hypervisor.guest(2)
    hypervisor.tick(connection)
    clock.now = 6.0
    assert hypervisor.tick(connection, a=10) == ["a", "b"]
    three = hypervisor.guest(3)
    assert hypervisor.tick(three, a=0) == ["a", "b", "a"]
    clock.now = 12.0
    assert hypervisor.tick(three, a=9) == ["b", "b", "a"]
