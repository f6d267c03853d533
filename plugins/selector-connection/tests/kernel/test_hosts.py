# SPDX-License-Identifier: Apache-2.0
"""connection on two hosts: those there before, those that begin, and subflows that join late."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from emptcp.chain import apply, owned, pins, running
from emptcp.hooks import namespaces
from emptcp.lab.path import Path as LabPath
from emptcp.lab.resident import resident
from emptcp.lab.sockets import listen, mptcp_socket, wildcard
from emptcp.lab.topology import Lab, two_hosts
from emptcp.mptcp.sockets import Subflow, subflows
from emptcp.policy import file
from emptcp_sdk.testing import wait_until

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """Three paths, of which the third is not used until the test says so."""
    with two_hosts([LabPath()] * 3, link="veth", name=f"t{os.getpid()}c") as built:
        built.a.run(["ip", "mptcp", "endpoint", "flush"])
        built.a.run(["ip", "mptcp", "limits", "set", "subflow", "2", "add_addr_accepted", "0"])
        yield built


@pytest.fixture(autouse=True)
def own_emptcp(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An `emptcp run` with tables and pins of its own."""
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path / f"emt{os.getpid()}-connection"))
    with resident():
        yield
        if apply.tables.names():
            apply.remove("one")


@dataclass
class Ends:
    """A connection with a single subflow, on the first path: its two sockets."""

    lab: Lab
    client: socket.socket
    server: socket.socket

    def exchange(self) -> None:
        """Let packets pass both ways."""
        self.client.sendall(b"x")
        assert self.server.recv(1) == b"x"
        self.server.sendall(b"y")
        assert self.client.recv(1) == b"y"

    @property
    def subflows(self) -> list[Subflow]:
        """What the client's host knows of it."""
        port = self.client.getpeername()[1]
        found = subflows(namespaces.resolve(self.lab.a.netns))
        return [one for one in found if one.open and one.remote_port == port]

    @property
    def token(self) -> int:
        """The client's."""
        return self.subflows[0].token


def connected(lab: Lab, stack: ExitStack) -> Ends:
    address = lab.paths[0].b.address(4)
    listener = stack.enter_context(lab.b.call(lambda: listen(wildcard(address), timeout=30)))
    client = stack.enter_context(lab.a.call(lambda: mptcp_socket(address, timeout=30)))
    client.connect((address, listener.getsockname()[1]))
    ends = Ends(lab, client, stack.enter_context(listener.accept()[0]))
    ends.exchange()
    return ends


def selected(device: str) -> int:
    """How many packets of the device passed the selector, both hooks together."""
    tree = pins.find()
    assert tree is not None
    found = 0
    for one in running.everything(tree).values():
        if one.description.device == device:
            counts = owned.read_counters(one.counters, one.description)
            found += counts["one/p/record"].packets
    return found


def table(tokens: list[int]) -> str:
    listed = ", ".join(f'"0x{token:08x}"' for token in tokens)
    return f"""
        table = "one"
        [[policy]]
        name = "p"
        hook = ["ingress", "egress"]
        dev = "path*"
        when = "connection in @chosen"
        do = ["record('packets')"]
        [set.chosen]
        key = "connection"
        entries = [{listed}]
    """


@pytest.mark.parametrize("older", [True, False], ids=["there before", "seen from its SYN on"])
def test_a_subflow_that_joins_later_is_caught_by_its_first_packet(lab: Lab, older: bool) -> None:
    """Of two connections alike the one is chosen. It gets a subflow long after the policy."""
    with ExitStack() as stack:
        if older:
            chosen, other = connected(lab, stack), connected(lab, stack)
        else:
            apply.apply(file.loads(table([])), lab.a.netns)
            chosen, other = connected(lab, stack), connected(lab, stack)
        apply.apply(file.loads(table([chosen.token])), lab.a.netns)
        wait_until(lambda: passes(chosen, "path1"))
        before = quiet("path1")
        other.exchange()
        assert selected("path1") == before
        with third_path(lab):
            for one in (chosen, other):
                wait_until(lambda one=one: len(one.subflows) == 2)  # type: ignore[misc]
            # SYN, SYN/ACK, ACK and the answer to that: of both connections they would be eight.
            wait_until(lambda: selected("path3") >= 4)
            assert selected("path3") < 8


def passes(one: Ends, device: str) -> bool:
    """Whether a packet of the connection is selected."""
    before = selected(device)
    one.exchange()
    return selected(device) > before


def quiet(device: str) -> int:
    """Wait until nothing more is selected, such as a late ACK, and return how many packets were."""
    for _ in range(20):
        before = selected(device)
        time.sleep(0.3)
        if selected(device) == before:
            return before
    raise AssertionError("packets go on being selected")


@contextmanager
def third_path(lab: Lab) -> Iterator[None]:
    """Let each connection open a subflow on the third path."""
    third = lab.paths[2].a
    lab.a.run(["ip", "mptcp", "endpoint", "add", third.address(4), "dev", third.device, "subflow"])
    try:
        yield
    finally:
        lab.a.run(["ip", "mptcp", "endpoint", "flush"])
