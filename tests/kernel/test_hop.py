# SPDX-License-Identifier: Apache-2.0
"""A controller on a hypervisor: what it is told of a guest's connection, which has no socket there."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path as File

import pytest

from emptcp.chain import apply, tables
from emptcp.chain.session import recorded
from emptcp.control.assignment import Hop
from emptcp.control.connection import Connection, Connections
from emptcp.control.passing import Passing
from emptcp.control.path import Path
from emptcp.hooks import namespaces
from emptcp.lab import traffic
from emptcp.lab.hypervisor import Behind, behind_hypervisor
from emptcp.lab.resident import resident
from emptcp.mptcp.sockets import Subflow, SubflowReader
from emptcp.policy import file
from emptcp_sdk.testing import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(240)]

TABLE = """
table = "hop"
[path.left]
dev = "link1"
[path.right]
dev = "link2"
[[controller]]
name = "spread"
use = "spread"
paths = ["left", "right"]
interval = "1h"
{when}
"""


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, tmp_path: File) -> Iterator[Behind]:
    """A lab, and an ``emptcp run`` of its own."""
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path / f"emt{os.getpid()}-hop"))
    with behind_hypervisor(name=f"h{os.getpid()}") as lab, resident("--no-guard") as process:
        yield lab
        for name in tables.names():
            apply.remove(name)
        assert process.poll() is None


def looks_at(made: Behind, when: str = "") -> Passing:
    """Apply the table, and look as its controller's process does."""
    netns = made.hypervisor.netns
    apply.apply(file.loads(TABLE.format(when=when)), netns)
    (entry,) = tables.entries()
    table = recorded(entry)
    steer = next(one for one in table.policies if one.name == "spread: steer")
    selects = next(one for one in table.policies if one.name == "spread: watch")
    assert steer.when == selects.when
    paths = [Path.of(one) for one in table.paths]
    return Passing(Hop(namespaces.resolve(netns), table, steer), paths)


def of_guest(made: Behind) -> list[Subflow]:
    with SubflowReader() as reader:
        return [one for one in reader.read(namespaces.resolve(made.guest.netns)) if one.open]


def until(
    made: Behind, look: Callable[[], list[Connection]], holds: Callable[[list[Connection]], bool]
) -> Connection:
    """Look until something holds; fail with what the guest knows when it does not in time."""
    found: list[Connection] = []

    def looked() -> bool:
        found[:] = look()
        return holds(found)

    def told() -> object:
        seen = [(one, one.sent, one.subflows) for one in found]
        return seen, made.hypervisor.sent(), made.guest.run(["ss", "-tinH"]).stdout

    wait_until(looked, told=told)
    return found[0]


def test_a_guest_s_connection_is_told_as_the_guest_knows_it(made: Behind) -> None:
    passing, connections = looks_at(made), Connections()
    sender = traffic.start(made.guest, made.peer, made.addresses[0])

    def look() -> list[Connection]:
        return connections.see(passing.records(), time.monotonic())

    connection = until(made, look, lambda found: bool(found) and len(found[0].subflows) == 2)
    known = {(one.local, one.local_port, one.remote, one.remote_port): one for one in of_guest(made)}
    assert {one.local + one.remote for one in connection.subflows} == set(known)
    assert {connection.token} == {one.token for one in known.values()}
    before = connection.sent
    until(made, look, lambda found: found[0].sent - before > 10_000_000)
    until(made, look, lambda found: any(one.rtt > 0 and one.delivery_rate > 1e5 for one in found[0].subflows))
    assert 0 < connection.received < connection.sent / 10
    assert 0 < connection.acked <= connection.sent
    assert all(one.min_rtt <= one.rtt < 10 for one in connection.subflows)
    until(made, look, lambda found: passing.load()["left"] > 1e5)  # by default all goes there
    assert set(passing.load()) == {"left", "right"}
    sender.kill()


def test_only_what_is_selected_is_told(made: Behind) -> None:
    passing = looks_at(made, f"when = \"ip_pair(daddr='{made.addresses[1]}')\"")
    traffic.start(made.guest, made.peer, made.addresses[0])
    connections = Connections()
    connection = until(
        made,
        lambda: connections.see(passing.records(), time.monotonic()),
        lambda found: bool(found) and found[0].sent > 0,
    )
    assert [str(one.remote[0]) for one in connection.subflows] == [made.addresses[1]]


def test_a_connection_that_ended_is_told_no_more(made: Behind) -> None:
    passing, connections = looks_at(made), Connections()
    sender = traffic.start(made.guest, made.peer, made.addresses[0])

    def look() -> list[Connection]:
        return connections.see(passing.records(), time.monotonic())

    until(made, look, bool)
    sender.kill()
    wait_until(lambda: not look(), 40)
