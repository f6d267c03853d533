# SPDX-License-Identifier: Apache-2.0
"""A router keeps a subflow back between two hosts and gives it back seconds later, without their sockets."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from emptcp.chain import apply
from emptcp.hooks import namespaces
from emptcp.lab import namespace
from emptcp.lab.host import Host
from emptcp.lab.sockets import listen, mptcp_socket, receive_exactly, wildcard
from emptcp.mptcp.sockets import SubflowReader
from emptcp.policy import file
from emptcp_sdk.testing import wait_until

pytestmark = pytest.mark.kernel

TABLE = """
table = "{table}"
[[policy]]
name = "{actor}"
hook = "ingress"
dev = ["left*", "right*"]
do = ["{actor}()"]
"""
FALLBACKS = ("MPTcpExtDssFallback", "MPTcpExtMPCapableFallbackACK", "MPTcpExtMPFailTx", "TcpInCsumErrors")
DATA = bytes(range(256)) * 40


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[Host, Host, Host]]:
    """Client, router, server: two networks on either side, of which the server announces its second one."""
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path / "run"))
    names = [f"emt{os.getpid()}-ah-{role}" for role in ("client", "router", "server")]
    client, router, server = made = [Host(name, name) for name in names]
    with ExitStack() as undo:
        for host in made:
            namespace.add(host.netns)
            undo.callback(namespace.remove, host.netns)
        for number in (1, 2):
            cable(client, router, f"left{number}", f"10.8.{number}")
            cable(server, router, f"right{number}", f"10.9.{number}")
            client.run(f"ip route add 10.9.{number}.0/24 via 10.8.{number}.254".split())
            server.run(f"ip route add 10.8.{number}.0/24 via 10.9.{number}.254".split())
        router.set("net.ipv4.ip_forward", 1)
        for host in (client, server):
            host.run(["ip", "mptcp", "limits", "set", "subflows", "2", "add_addr_accepted", "2"])
        server.run(["ip", "mptcp", "endpoint", "add", "10.9.2.1", "dev", "right2", "signal"])
        yield client, router, server
        for name in apply.tables.names():
            apply.remove(name, keep_effects=True)


def cable(host: Host, router: Host, device: str, network: str) -> None:
    link = f"link add {device} netns {host.netns} type veth peer name {device} netns {router.netns}"
    namespace.ip(link.split())
    for end, last in ((host, 1), (router, 254)):
        lines = [f"address add {network}.{last}/24 dev {device}", f"link set {device} up"]
        namespace.ip_batch(lines, netns=end.netns)


def put_in_force(router: Host, table: str, actor: str) -> None:
    """Tables run in the order of their names: "add" before "block", which drops what is to be released."""
    apply.apply(file.loads(TABLE.format(table=table, actor=actor)), router.netns)


def exchange(client: socket.socket, server: socket.socket) -> None:
    for one, other in ((client, server), (server, client)):
        one.sendall(DATA)
        assert receive_exactly(other, len(DATA)) == DATA


def counts(hosts: tuple[Host, ...], names: tuple[str, ...]) -> list[int]:
    return [host.counters()[name] for host in hosts for name in names]


@pytest.mark.parametrize("later", [4, pytest.param(25, marks=pytest.mark.traffic)])
def test_a_router_gives_an_address_back_long_after_its_announcement(
    hosts: tuple[Host, Host, Host], later: float
) -> None:
    """Linux repeats an announcement for 2 s; then only what the router stored can bring the subflow."""
    client, router, server = hosts
    ends = (client, server)
    before = counts(ends, FALLBACKS)
    put_in_force(router, "block", "blk_subflow")
    with ExitStack() as stack:
        listener = stack.enter_context(server.call(lambda: listen(wildcard("10.9.1.1"), timeout=30)))
        port = listener.getsockname()[1]
        local = stack.enter_context(client.call(lambda: mptcp_socket("10.9.1.1", timeout=30)))
        local.connect(("10.9.1.1", port))
        remote = stack.enter_context(listener.accept()[0])
        remote.settimeout(10)
        reader = stack.enter_context(SubflowReader())

        def subflows() -> int:
            found = reader.read(namespaces.resolve(client.netns))
            return sum(one.open and one.remote_port == port for one in found)

        exchange(local, remote)
        time.sleep(later)
        exchange(local, remote)
        assert subflows() == 1
        assert counts((client,), ("MPTcpExtAddAddr", "MPTcpExtMPJoinSynTx")) == [0, 0]
        announced = counts((server,), ("MPTcpExtAddAddrTx",))
        put_in_force(router, "add", "add_subflow")
        wait_until(lambda: subflows() == 2, meanwhile=lambda: exchange(local, remote))
        assert counts((server,), ("MPTcpExtAddAddrTx",)) == announced
        exchange(local, remote)
    assert counts(ends, FALLBACKS) == before
