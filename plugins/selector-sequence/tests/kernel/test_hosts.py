# SPDX-License-Identifier: Apache-2.0
"""sequence between two hosts with real MPTCP sockets: the numbers that Linux writes."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from emptcp.chain import apply, owned, pins, running
from emptcp.chain.counters import Counters
from emptcp.lab.path import Path as LabPath
from emptcp.lab.sockets import listen, mptcp_socket, wildcard
from emptcp.lab.topology import Lab, two_hosts
from emptcp.policy import file

pytestmark = pytest.mark.kernel

SELECTORS = {
    "early": "sequence(first=1, last=1000)",
    "late": "sequence(first=1001)",
    "same": "sequence(space=ssn, first=1, last=1000)",
}


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with two_hosts([LabPath()], link="veth", name=f"t{os.getpid()}q") as built:
        yield built


@pytest.fixture(autouse=True)
def own_emptcp(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Tables and pins that no other emptcp of this machine sees, and none of them afterwards."""
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path / f"emt{os.getpid()}-sequence"))
    yield
    for name in apply.tables.names():
        apply.remove(name)


def applied(lab: Lab, hook: str) -> None:
    policies = (
        f'[[policy]]\nname = "{name}"\nhook = "{hook}"\ndev = "path1"\nwhen = "{when}"\n'
        "do = [\"record('packets')\"]\n"
        for name, when in SELECTORS.items()
    )
    apply.apply(file.loads('table = "one"\n' + "".join(policies)), lab.a.netns)


def selected() -> tuple[int, int, int]:
    """How many packets each policy was given."""
    early, late, same = (counters(f"{name}/record").packets for name in SELECTORS)
    return early, late, same


def counters(stage: str) -> Counters:
    tree = pins.find()
    assert tree is not None
    (one,) = running.everything(tree).values()
    return owned.read_counters(one.counters, one.description)[f"one/{stage}"]


def connected(lab: Lab, stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    address = lab.paths[0].b.address(4)
    listener = stack.enter_context(lab.b.call(lambda: listen(wildcard(address), timeout=30)))
    client = stack.enter_context(lab.a.call(lambda: mptcp_socket(address, timeout=30)))
    client.connect((address, listener.getsockname()[1]))
    return client, stack.enter_context(listener.accept()[0])


def send(sender: socket.socket, receiver: socket.socket, size: int) -> None:
    """Let `size` bytes arrive."""
    sender.sendall(bytes(size))
    while size:
        size -= len(receiver.recv(size))


@pytest.mark.parametrize("hook", ["egress", "ingress"])
def test_the_first_thousand_bytes_of_a_connection_are_told_from_the_rest(lab: Lab, hook: str) -> None:
    with ExitStack() as stack:
        applied(lab, hook)
        client, server = connected(lab, stack)
        # What one end sends first comes with an MP_CAPABLE, what the other does with a mapping.
        ends = (client, server) if hook == "egress" else (server, client)
        for _ in range(10):
            send(*ends, 100)
        early, late, same = selected()
        assert early >= 10
        assert (late, same) == (0, early)
        for _ in range(5):
            send(*ends, 100)
        assert selected()[1] >= 5
        send(*ends, 200_000)
        again, _, same = selected()
        assert again == same < early + 5  # at most what TCP sent once more
        assert not counters("early/sequence").reasons


def test_nothing_is_known_of_a_connection_that_was_there_before(lab: Lab) -> None:
    with ExitStack() as stack:
        client, server = connected(lab, stack)
        send(client, server, 100)
        applied(lab, "egress")
        send(client, server, 100)
        assert selected()[:2] == (0, 0)
        assert counters("early/sequence").reasons["unknown_state"] >= 1
