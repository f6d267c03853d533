# SPDX-License-Identifier: Apache-2.0
"""blk_subflow between two hosts with real MPTCP sockets: no subflow comes up, and none falls back."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytest

from emptcp.api import Injector, device_indexes, devices, open_plugin_map, tell
from emptcp.chain import apply
from emptcp.errors import EmptcpError
from emptcp.hooks import namespaces
from emptcp.lab.host import Host
from emptcp.lab.resident import resident
from emptcp.lab.sockets import listen, mptcp_socket, receive_exactly, wildcard
from emptcp.lab.topology import Lab, two_hosts
from emptcp.mptcp.sockets import SubflowReader
from emptcp.packet.mptcp import RemoveAddress
from emptcp.policy import file
from emptcp_sdk.testing import wait_until

pytestmark = pytest.mark.kernel

FALLBACKS = (
    "MPTcpExtDssFallback",
    "MPTcpExtMPCapableFallbackACK",
    "MPTcpExtMPCapableFallbackSYNACK",
    "MPTcpExtMPCapableDataFallback",
    "MPTcpExtMPFailTx",
    "MPTcpExtDataCsumErr",
    "TcpInCsumErrors",
)
CONNECTIONS = 20


def block(host: Host, hook: str, do: str = "blk_subflow()") -> None:
    text = f'table = "block"\n[[policy]]\nname = "p"\nhook = "{hook}"\ndev = "path*"\ndo = ["{do}"]\n'
    apply.apply(file.loads(text), host.netns)


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Lab]:
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path / f"emt{os.getpid()}-block"))
    with two_hosts(link="veth", name=f"t{os.getpid()}b") as built:
        for host in (built.a, built.b):
            for path in built.paths:
                end = path.a if host is built.a else path.b
                host.run(["ethtool", "-K", end.device, "tx", "off"])
        yield built
        for name in apply.tables.names():
            apply.remove(name, keep_effects=True)


@pytest.fixture
def joining(lab: Lab) -> Lab:
    """Hosts whose client joins from its second path by itself, and whose server announces nothing."""
    lab.b.run(["ip", "mptcp", "endpoint", "flush"])
    second = lab.paths[1].a
    lab.a.run(f"ip mptcp endpoint add {second.address(4)} dev {second.device} subflow".split())
    return lab


class Connections(ExitStack):
    """Connections from host a to host b over the first path."""

    def __init__(self, lab: Lab, number: int) -> None:
        super().__init__()
        self.lab = lab
        self.reader = self.enter_context(SubflowReader())
        address = lab.paths[0].b.address(4)
        listener = self.enter_context(lab.b.call(lambda: listen(wildcard(address), timeout=30)))
        self.port = listener.getsockname()[1]
        self.pairs: list[tuple[socket.socket, socket.socket]] = []
        for _ in range(number):
            client = self.enter_context(lab.a.call(lambda: mptcp_socket(address, timeout=30)))
            client.connect((address, self.port))
            self.pairs.append((client, self.enter_context(listener.accept()[0])))

    def exchange(self) -> None:
        """Send something both ways on each, and compare it."""
        for pair in self.pairs:
            for one, other in (pair, pair[::-1]):
                one.sendall(bytes(range(256)) * 40)
                other.settimeout(10)
                assert receive_exactly(other, 10_240) == bytes(range(256)) * 40

    def subflows(self) -> int:
        """How many open subflows they have at the client."""
        found = self.reader.read(namespaces.resolve(self.lab.a.netns))
        return sum(one.open and one.remote_port == self.port for one in found)


def fallbacks(lab: Lab) -> list[dict[str, int]]:
    return [{name: host.counters()[name] for name in FALLBACKS} for host in (lab.a, lab.b)]


@pytest.mark.parametrize(("place", "hook"), [("a", "ingress"), ("b", "egress")])
def test_announced_addresses_bring_no_subflow_and_no_fallback_until_the_policy_goes(
    lab: Lab, place: str, hook: str
) -> None:
    """At the host that would join, and at the one that announces."""
    host = lab.a if place == "a" else lab.b
    before, joined = fallbacks(lab), lab.b.counters()["MPTcpExtMPJoinSynRx"]
    block(host, hook)
    with Connections(lab, CONNECTIONS) as connections:
        connections.exchange()
        # Longer than the kernel repeats an announcement: after that only a stored one can be given back.
        time.sleep(2.5)
        connections.exchange()
        assert connections.subflows() == CONNECTIONS
        assert lab.b.counters()["MPTcpExtMPJoinSynRx"] == joined
        apply.remove("block")
        wait_until(lambda: connections.subflows() == 2 * CONNECTIONS)
        connections.exchange()
    assert fallbacks(lab) == before


def test_a_policy_for_announcements_alone_gives_them_back_too(lab: Lab) -> None:
    """No other packet of the subflow is what it selects."""
    text = file.loads(
        'table = "block"\n[[policy]]\nname = "p"\nhook = "ingress"\ndev = "path*"\n'
        'when = "packet_type(\'add_addr\')"\ndo = ["blk_subflow()"]\n'
    )
    apply.apply(text, lab.a.netns)
    with Connections(lab, 2) as connections:
        connections.exchange()
        time.sleep(2.5)
        assert connections.subflows() == 2
        apply.remove("block")
        wait_until(lambda: connections.subflows() == 4)


@pytest.mark.parametrize(("place", "hook"), [("a", "egress"), ("b", "ingress")])
def test_joins_are_held_and_come_up_once_the_policy_goes(joining: Lab, place: str, hook: str) -> None:
    before = fallbacks(joining)
    block(joining.a if place == "a" else joining.b, hook)
    with Connections(joining, 5) as connections:
        connections.exchange()
        wait_until(lambda: joining.a.counters()["MPTcpExtMPJoinSynTx"] >= 5)
        # Longer than TCP goes on trying what is dropped as it leaves.
        time.sleep(7)
        connections.exchange()
        assert connections.subflows() == 5
        apply.remove("block")
        wait_until(lambda: connections.subflows() == 10)
        connections.exchange()
    assert fallbacks(joining) == before


def test_refused_joins_get_a_rst_and_the_connections_go_on(joining: Lab) -> None:
    before = fallbacks(joining)
    block(joining.a, "egress", "blk_subflow(refuse=true)")
    with Connections(joining, 5) as connections:
        connections.exchange()
        wait_until(lambda: joining.b.counters()["MPTcpExtMPJoinNoTokenFound"] >= 5)
        apply.remove("block")
        connections.exchange()
        assert connections.subflows() == 5
    assert fallbacks(joining) == before


@pytest.mark.parametrize(("place", "hook"), [("a", "ingress"), ("b", "egress")])
def test_an_echo_lets_the_announcer_stop_and_the_address_is_given_back_all_the_same(
    lab: Lab, place: str, hook: str
) -> None:
    host = lab.a if place == "a" else lab.b
    before, joined = fallbacks(lab), lab.b.counters()["MPTcpExtMPJoinSynRx"]
    with resident("--no-guard"):
        block(host, hook, "blk_subflow(echo=true)")
        # On a busy machine an echo may come behind the last announcement.
        wait_until(lambda: stops_announcing(lab), 60)
        with Connections(lab, 3) as connections:
            exchange_until_echoed(lab, connections)
            assert connections.subflows() == 3
            assert lab.b.counters()["MPTcpExtMPJoinSynRx"] == joined
            apply.remove("block")
            wait_until(lambda: connections.subflows() == 6)
            connections.exchange()
    assert fallbacks(lab) == before


def exchange_until_echoed(lab: Lab, connections: Connections) -> None:
    before = lab.b.counters()["MPTcpExtEchoAdd"]
    connections.exchange()
    wait_until(lambda: lab.b.counters()["MPTcpExtEchoAdd"] >= before + len(connections.pairs))


def stops_announcing(lab: Lab) -> bool:
    """Whether the server announces less often than Linux does without an echo: four times."""
    before = lab.b.counters()["MPTcpExtAddAddrTx"]
    with Connections(lab, 3) as connections:
        exchange_until_echoed(lab, connections)
        # Longer than the kernel repeats an announcement that is not echoed.
        time.sleep(2.5)
        return lab.b.counters()["MPTcpExtAddAddrTx"] - before < 4 * len(connections.pairs)


@pytest.mark.parametrize("taken_back", [True, False])
def test_an_address_that_is_removed_on_another_subflow_is_not_given_back(lab: Lab, taken_back: bool) -> None:
    """It was announced on the first subflow, and the REMOVE_ADDR comes on the one that joined."""
    second = lab.paths[1].a
    lab.a.run(f"ip mptcp endpoint add {second.address(4)} dev {second.device} subflow".split())
    with resident("--no-guard"):
        block(lab.a, "ingress", "blk_subflow(joins=false)")
        with Connections(lab, 1) as connections:
            connections.exchange()
            wait_until(lambda: connections.subflows() == 2)
            # Longer than the kernel repeats an announcement.
            time.sleep(2.5)
            assert len(kept_back()) == 1
            if taken_back:
                say_on_second_subflow(lab, RemoveAddress((kept_back()[0][3],)))
                wait_until(lambda: not kept_back())
            apply.remove("block")
            if not taken_back:
                wait_until(lambda: lab.a.counters()["MPTcpExtAddAddr"] > 0)
            else:
                time.sleep(1)
                assert lab.a.counters()["MPTcpExtAddAddr"] == 0
            connections.exchange()


def kept_back() -> list[bytes]:
    """The options that are kept back."""
    with cast(Any, open_plugin_map("blk_subflow", "blocked_addresses")) as table:
        values = [value for _key, value in table.items()]
    return [
        option[:length]
        for value in values
        for length, given, option in struct.iter_unpack("=BB30s8x", value)
        if length and not given
    ]


def say_on_second_subflow(lab: Lab, option: RemoveAddress) -> None:
    """Let the server say something on the subflow that joined."""
    namespace = namespaces.resolve(lab.b.netns)
    with SubflowReader() as reader, Injector(namespace) as injector:
        (joined,) = [one for one in reader.read(namespace) if one.remote_id]
        (index,) = device_indexes(namespace, [joined])
        device = next(one for one in devices.list_devices(namespace) if one.ifindex == index)
        assert tell(joined, device, [option], "peer", namespace=namespace, reader=reader, injector=injector)


def test_an_echo_takes_a_resident_process(lab: Lab) -> None:
    with pytest.raises(EmptcpError, match="needs a process in user space"):
        block(lab.a, "ingress", "blk_subflow(echo=true)")
    block(lab.a, "ingress", "blk_subflow(echo=false)")
