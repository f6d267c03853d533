# SPDX-License-Identifier: Apache-2.0
"""set_backup with a value per subflow: one stage, two subflows of one connection, two answers from a map."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from emptcp.chain import apply, running
from emptcp.chain.entries import open_map
from emptcp.hooks import namespaces
from emptcp.lab.sockets import listen, mptcp_socket, wildcard
from emptcp.lab.topology import Lab, two_hosts
from emptcp.mptcp.sockets import Subflow, SubflowReader
from emptcp.policy import file
from emptcp_sdk.testing import wait_until

pytestmark = pytest.mark.kernel

POLICY = """
table = "maps"
engine = "{engine}"
[[policy]]
name = "each"
hook = ["ingress", "egress"]
dev = "path*"
netns = "{netns}"
do = ["set_backup(on={key} @who)"]
[map.who]
key = "{key}"
type = "bool"
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with two_hosts(link="veth", name=f"m{os.getpid()}") as built:
        yield built


@pytest.fixture(autouse=True)
def own_emptcp(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Tables and pins that no other emptcp of this machine sees, and none of them afterwards."""
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path / f"emt{os.getpid()}-maps"))
    yield
    if apply.tables.names():
        apply.remove("maps", keep_effects=True)


class Connection(ExitStack):
    """A connection over both paths; what is sent keeps both of its ends talking."""

    def __init__(self, lab: Lab) -> None:
        super().__init__()
        self.lab = lab
        self.reader = self.enter_context(SubflowReader())
        address = lab.paths[0].b.address(4)
        listener = self.enter_context(lab.b.call(lambda: listen(wildcard(address), timeout=30)))
        self.client = self.enter_context(lab.a.call(lambda: mptcp_socket(address, timeout=30)))
        self.client.connect((address, listener.getsockname()[1]))
        self.server: socket.socket = self.enter_context(listener.accept()[0])

    def talk(self) -> None:
        """Send enough in both directions that every subflow that may be used is."""
        for sender, receiver in ((self.client, self.server), (self.server, self.client)):
            sender.sendall(bytes(20000))
            left = 20000
            while left:
                left -= len(receiver.recv(left))

    def subflows(self, netns: str) -> list[Subflow]:
        """Return the open subflows of a host, by path."""
        port = self.client.getpeername()[1]
        found = self.reader.read(namespaces.resolve(netns))
        ours = [one for one in found if one.open and port in (one.local_port, one.remote_port)]
        return sorted(ours, key=lambda one: str(one.local))

    def bits(self) -> tuple[list[bool], list[bool]]:
        """Return the backup bits that steer host a, and those that steer host b, by path."""
        ends = (self.lab.a.netns, self.lab.b.netns)
        here, there = ([one.backup for one in self.subflows(netns)] for netns in ends)
        return here, there

    def becomes(self, bits: list[bool]) -> None:
        """Talk until both ends have these bits."""
        wait_until(lambda: self.bits() == (bits, bits), told=self.bits, meanwhile=self.talk)


def applied(lab: Lab, engine: str, key: str) -> list[int]:
    apply.apply(file.loads(POLICY.format(engine=engine, netns=lab.a.netns, key=key)))
    return programs()


def programs() -> list[int]:
    return sorted(one.program.id for one in running.everything().values())


@pytest.mark.parametrize("engine", ["fused", "tail"])
def test_two_subflows_of_one_connection_get_what_the_map_says_of_each(lab: Lab, engine: str) -> None:
    before = applied(lab, engine, "subflow")
    with Connection(lab) as connection, open_map("who") as who:
        connection.becomes([False, False])
        keys = [
            f"{one.local}:{one.local_port}-{one.remote}:{one.remote_port}"
            for one in connection.subflows(lab.a.netns)
        ]
        # What passes tells: the first subflow is the one that the scheduler uses, until it is the backup.
        who.add({keys[0]: True, keys[1]: False})
        connection.becomes([True, False])
        who.add({keys[0]: False, keys[1]: True})
        connection.becomes([False, True])
    assert programs() == before


def test_a_map_by_addresses_tells_subflows_that_are_yet_to_come(lab: Lab) -> None:
    applied(lab, "fused", "ip_pair")
    pairs = [f"{path.b.address(4)}-{path.a.address(4)}" for path in lab.paths]
    with open_map("maps/who") as who:
        who.add({pairs[0]: False, pairs[1]: True})
    with Connection(lab) as connection:
        connection.becomes([False, True])
