# SPDX-License-Identifier: Apache-2.0
"""Two hosts (namespaces) with two cables between them, and a real MPTCP connection over both."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from emptcp.hooks import namespaces
from emptcp.hooks.namespaces import Namespace
from emptcp.mptcp.sockets import Subflow, SubflowReader
from emptcp_sdk.testing import wait_until

PORT = 5001
IPPROTO_MPTCP = 262


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=10)


def run(host: Namespace, command: list[str]) -> str:
    """Run a command inside a namespace and return what it printed."""
    return namespaces.call(host, lambda: subprocess.check_output(command, text=True, timeout=10))


@dataclass
class Hosts:
    """The client ``us`` has 10.9.N.1 and fd09:N::1 on device ``pathN``, the server ``peer`` the 2nd."""

    us: Namespace
    peer: Namespace

    def counter(self, host: Namespace, name: str) -> int:
        """Return a counter of MPTCP or TCP (``MPTcpExtMPPrioRx``) of one host."""
        return int(run(host, ["nstat", "-asz", name]).splitlines()[-1].split()[1])


@pytest.fixture(scope="session")
def hosts() -> Iterator[Hosts]:
    names = [f"emt{os.getpid()}-{role}" for role in ("us", "peer")]
    with ExitStack() as undo:
        for name in names:
            ip("netns", "add", name)
            undo.callback(ip, "netns", "delete", name)
        for number in (1, 2):
            _cable(names, number)
        for name in names:
            ip("-n", name, "link", "set", "lo", "up")
            ip(
                "netns",
                "exec",
                name,
                "ip",
                "mptcp",
                "limits",
                "set",
                "subflow",
                "4",
                "add_addr_accepted",
                "4",
            )
        ip("netns", "exec", names[1], "ip", "mptcp", "endpoint", "add", "10.9.2.2", "dev", "path2", "signal")
        ip("netns", "exec", names[1], "ip", "mptcp", "endpoint", "add", "fd09:2::2", "dev", "path2", "signal")
        us, peer = map(namespaces.resolve, names)
        yield Hosts(us, peer)


def _cable(names: list[str], number: int) -> None:
    device = f"path{number}"
    ip("link", "add", device, "netns", names[0], "type", "veth", "peer", "name", device, "netns", names[1])
    for last, name in enumerate(names, 1):
        # Wrong checksums pass unnoticed on a veth unless the sender computes them.
        ip("netns", "exec", name, "ethtool", "-K", device, "tx", "off")
        ip("-n", name, "address", "add", f"10.9.{number}.{last}/24", "dev", device)
        ip("-n", name, "address", "add", f"fd09:{number}::{last}/64", "dev", device, "nodad")
        ip("-n", name, "link", "set", device, "up")


@dataclass
class Connection:
    """The client's and the server's socket of one connection, with both subflows established."""

    client: socket.socket
    server: socket.socket

    def subflows(self, reader: SubflowReader, host: Namespace) -> list[Subflow]:
        """Return the connection's subflows as ``host`` sees them, by path."""
        port = self.client.getpeername()[1]
        found = [s for s in reader.read(host) if port in (s.local_port, s.remote_port) and s.state == 1]
        return sorted(found, key=lambda subflow: str(subflow.local))


@pytest.fixture(params=["10.9.1.2", "fd09:1::2"], ids=["ipv4", "ipv6"])
def connection(hosts: Hosts, reader: SubflowReader, request: pytest.FixtureRequest) -> Iterator[Connection]:
    address = request.param
    with ExitStack() as undo:
        listener, client = (
            undo.enter_context(namespaces.call(host, lambda: _socket(address)))
            for host in (hosts.peer, hosts.us)
        )
        listener.bind(("::" if ":" in address else "0.0.0.0", 0))
        listener.listen()
        client.connect((address, listener.getsockname()[1]))
        server = undo.enter_context(listener.accept()[0])
        made = Connection(client, server)
        client.sendall(b"hello")
        assert server.recv(5) == b"hello"
        _wait_for_both(made, reader, hosts)
        yield made


def _socket(address: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM, IPPROTO_MPTCP)
    if family == socket.AF_INET6:
        # Otherwise it takes the announced IPv4 address too, and has three subflows.
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    made.settimeout(5)
    return made


def _wait_for_both(made: Connection, reader: SubflowReader, hosts: Hosts) -> None:
    wait_until(lambda: all(len(made.subflows(reader, host)) >= 2 for host in (hosts.us, hosts.peer)))


@pytest.fixture(scope="session")
def reader() -> Iterator[SubflowReader]:
    with SubflowReader() as made:
        yield made
