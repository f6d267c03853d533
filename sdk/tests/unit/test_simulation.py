# SPDX-License-Identifier: Apache-2.0
"""A controller on a connection without a kernel."""

from __future__ import annotations

from emptcp.control.connection import Connection
from emptcp.control.controller import Controller
from emptcp_sdk.testing.simulation import Setting, SimulatedConnection, SimulatedSubflow


class Spare(Controller):
    """Spare the slow subflow while little waits."""

    def tick_connection(self, connection: Connection) -> None:
        fast, slow = connection.subflows.by_rtt()
        slow.backup = fast.completion(connection.queued) < slow.completion()


class Idle(Controller):
    """Look on."""

    def tick_connection(self, connection: Connection) -> None:
        pass


def two() -> SimulatedConnection:
    return SimulatedConnection(
        {"slow": SimulatedSubflow(rtt=0.2, rate=5e5), "fast": SimulatedSubflow(rtt=0.01, rate=2.5e6)}
    )


def test_what_is_set_is_noted_once_with_its_tick() -> None:
    connection = two()
    connection.run(Spare(), ticks=2, write=100_000)
    assert connection.settings == [Setting(1, "slow", "backup", True)]
    connection.run(Spare(), ticks=2, write=2_000_000)
    assert connection.settings[1:] == [Setting(3, "slow", "backup", False)]


def test_a_backup_carries_nothing_and_a_rate_is_kept() -> None:
    connection = two()
    connection.run(Spare(), ticks=1)
    connection.run(Spare(), ticks=1, write=150_000)
    assert [connection[name].sent for name in ("fast", "slow")] == [150_000, 0]

    class Half(Controller):
        def tick_connection(self, connection: Connection) -> None:
            connection.rates = {"fast": 1e6}

    connection.run(Half(), ticks=1)
    before = connection["fast"].sent
    connection.run(Half(), ticks=1, write=10_000_000)
    assert connection["fast"].sent - before == 100_000


def test_a_subflow_that_ends_leaves_what_it_sent_with_the_connection() -> None:
    connection = two()
    connection.run(Idle(), ticks=1, write=260_000)
    sent = connection.connection.sent
    connection.close("slow")
    connection.run(Idle(), ticks=1)
    assert len(connection.connection.subflows) == 1
    assert connection.connection.sent == sent == 260_000


def test_a_blocked_path_gets_its_subflow_once_it_is_allowed() -> None:
    subflows = {name: SimulatedSubflow(rtt=0.02, rate=1e6) for name in ("first", "second", "third")}
    connection = SimulatedConnection(subflows, blocked=True)

    class Open(Controller):
        def tick_connection(self, connection: Connection) -> None:
            if connection.sent:
                connection.allow("third")

    connection.run(Open({}, connection.paths), ticks=2)
    assert connection.settings == []
    assert connection.connection.blocked == {"first", "second", "third"}
    connection.run(Open({}, connection.paths), ticks=2, write=1_000_000)
    assert connection.settings == [Setting(3, "third", "block", False)]
    assert len(connection.connection.subflows) == 2
    assert connection["third"].sent > 0
