# SPDX-License-Identifier: Apache-2.0
"""set_backup on a router between two hosts: it has no socket of theirs, so passing packets carry it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from emptcp.chain import apply
from emptcp.hooks import namespaces
from emptcp.hooks.namespaces import Namespace
from emptcp.lab import namespace
from emptcp.lab.sockets import listen, mptcp_socket
from emptcp.mptcp.sockets import SubflowReader
from emptcp.policy import file
from emptcp_sdk.testing import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.traffic]

POLICY = """
table = "hop"
[[policy]]
name = "to the client"
hook = "ingress"
dev = "right2"
when = "subflow(sport={port})"
do = ["set_backup(on={on})"]
"""


@pytest.fixture(scope="module")
def names() -> Iterator[tuple[str, str, str]]:
    """Client, router and server; two networks on either side, the server announces its second address."""
    client, router, server = (f"emt{os.getpid()}-{role}" for role in ("client", "router", "server"))
    with ExitStack() as undo:
        for name in (client, router, server):
            namespace.add(name)
            undo.callback(namespace.remove, name)
        for number in (1, 2):
            _cable(client, router, f"left{number}", f"10.8.{number}")
            _cable(server, router, f"right{number}", f"10.9.{number}")
            namespace.ip_batch([f"route add 10.9.{number}.0/24 via 10.8.{number}.254"], netns=client)
            namespace.ip_batch([f"route add 10.8.{number}.0/24 via 10.9.{number}.254"], netns=server)
        namespaces.call(namespaces.resolve(router), lambda: _write("/proc/sys/net/ipv4/ip_forward", "1"))
        for name in (client, server):
            namespace.ip(["mptcp", "limits", "set", "subflows", "2", "add_addr_accepted", "2"], netns=name)
        namespace.ip(["mptcp", "endpoint", "add", "10.9.2.1", "dev", "right2", "signal"], netns=server)
        yield client, router, server


def _cable(host: str, router: str, device: str, network: str) -> None:
    namespace.ip(f"link add {device} netns {host} type veth peer name {device} netns {router}".split())
    for name, last in ((host, 1), (router, 254)):
        lines = [f"address add {network}.{last}/24 dev {device}", f"link set {device} up"]
        namespace.ip_batch(lines, netns=name)


def _write(path: str, text: str) -> None:
    Path(path).write_text(text)


@pytest.fixture(autouse=True)
def own_emptcp(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path / f"emt{os.getpid()}-hop"))
    yield
    if apply.tables.names():
        apply.remove("hop")


def test_the_clients_sending_is_steered_by_packets_that_pass(names: tuple[str, str, str]) -> None:
    here, _router, there = map(namespaces.resolve, names)
    with ExitStack() as opened:
        reader = opened.enter_context(SubflowReader())
        listener = opened.enter_context(namespaces.call(there, lambda: listen("0.0.0.0", timeout=30)))
        client = opened.enter_context(namespaces.call(here, lambda: mptcp_socket("10.9.1.1", timeout=30)))
        port = listener.getsockname()[1]
        client.connect(("10.9.1.1", port))
        server = opened.enter_context(listener.accept()[0])

        def exchange() -> None:
            """Have packets with data pass both ways; the server goes on to use both subflows."""
            for sender, receiver in ((client, server), (server, client)):
                sender.sendall(bytes(200_000))
                received = 0
                while received < 200_000:
                    received += len(receiver.recv(1 << 16))

        def bits(host: Namespace) -> list[bool]:
            return [s.backup for s in sorted(reader.read(host), key=lambda s: (str(s.local), str(s.remote)))]

        def told(wanted: list[bool]) -> bool:
            """Have traffic pass, as a subflow that is idle is told of nothing; tell whether it was heard."""
            exchange()
            return bits(here) == wanted

        exchange()
        wait_until(lambda: len(bits(here)) == 2)
        for on in (True, False):
            apply.apply(file.loads(POLICY.format(port=port, on=on)), names[1])
            wait_until(lambda on=on: told([False, on]))
            assert bits(there) == [False, False]
