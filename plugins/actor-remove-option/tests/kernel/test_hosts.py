# SPDX-License-Identifier: Apache-2.0
"""Options taken out of a live connection: what may not go stays, and the connection does."""

from __future__ import annotations

import os
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from emptcp.chain import apply
from emptcp.lab import namespace
from emptcp.lab.sockets import listen, mptcp_info, mptcp_socket, wildcard
from emptcp.lab.topology import Lab, two_hosts
from emptcp.policy import file
from emptcp_sdk.testing import wait_until

pytestmark = pytest.mark.kernel

SENT = random.Random(7).randbytes(1_000_000)
HARM = (
    *("MPTcpExtDssFallback", "MPTcpExtMPCapableDataFallback", "MPTcpExtMPFailTx", "MPTcpExtMPRstTx"),
    *("MPTcpExtDataCsumErr", "TcpInCsumErrors"),
)
REMOVE = """
table = "remove"
[[policy]]
name = "p"
hook = "ingress"
dev = "path*"
do = ["remove_option(option=add_addr)", "remove_option(option=mp_prio)"]
"""


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Lab]:
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path / f"emt{os.getpid()}-remove"))
    with two_hosts(link="veth", name=f"t{os.getpid()}r") as built:
        for host in (built.a, built.b):
            for path in built.paths:
                end = path.a if host is built.a else path.b
                host.run(["ethtool", "-K", end.device, "tx", "off"])
        yield built
        for name in apply.tables.names():
            apply.remove(name)


def counters(lab: Lab, *names: str) -> list[tuple[int, ...]]:
    return [tuple(host.counters()[name] for name in names) for host in (lab.a, lab.b)]


def passes(sender: socket.socket, receiver: socket.socket) -> bool:
    """Send a megabyte; tell whether just that came."""
    thread = threading.Thread(target=sender.sendall, args=(SENT,))
    thread.start()
    received = bytearray()
    while len(received) < len(SENT):
        part = receiver.recv(1 << 16)
        assert part
        received += part
    thread.join(10)
    return bytes(received) == SENT


def test_a_connection_keeps_what_it_needs_and_not_a_byte_changes(lab: Lab) -> None:
    apply.apply(file.loads(REMOVE), lab.a.netns)
    before = counters(lab, *HARM)
    told = counters(lab, "MPTcpExtMPPrioTx", "MPTcpExtMPPrioRx", "MPTcpExtAddAddr")
    address = lab.paths[0].b.address(4)
    with ExitStack() as stack:
        listener = stack.enter_context(lab.b.call(lambda: listen(wildcard(address), timeout=30)))
        client = stack.enter_context(lab.a.call(lambda: mptcp_socket(address, timeout=30)))
        client.connect((address, listener.getsockname()[1]))
        server = stack.enter_context(listener.accept()[0])
        server.settimeout(10)
        assert passes(client, server)
        # Linux announces in an ACK without a DSS, from which nothing may go: the second subflow comes up.
        wait_until(lambda: mptcp_info(client)[1] == 2)
        second = lab.paths[1].b
        change = f"mptcp endpoint change {second.address(4)} dev {second.device} backup"
        namespace.ip(change.split(), netns=lab.b.netns)
        wait_until(lambda: counters(lab, "MPTcpExtMPPrioTx")[1][0] > told[1][0])
        assert passes(server, client)
        assert passes(client, server)
        assert [mptcp_info(end)[0] for end in (client, server)] == [True, True]
    after = counters(lab, "MPTcpExtMPPrioTx", "MPTcpExtMPPrioRx", "MPTcpExtAddAddr")
    assert after[0][2] > told[0][2]
    assert after[0][1] == told[0][1]
    assert counters(lab, *HARM) == before
