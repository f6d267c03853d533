# SPDX-License-Identifier: Apache-2.0
"""add_subflow between two hosts with real MPTCP sockets: what was kept back comes up, also seconds later."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from emptcp.chain import apply
from emptcp.errors import EmptcpError
from emptcp.hooks import namespaces
from emptcp.lab.host import Host
from emptcp.lab.resident import resident
from emptcp.lab.sockets import listen, mptcp_socket, receive_exactly, wildcard
from emptcp.lab.topology import Lab, two_hosts
from emptcp.mptcp import keys
from emptcp.mptcp.sockets import SubflowReader
from emptcp.plugins.catalog import Catalog
from emptcp.plugins.manager import Manager
from emptcp.policy import file
from emptcp_sdk.testing import wait_until

pytestmark = pytest.mark.kernel

LATER = float(os.environ.get("EMPTCP_GIVE_BACK_AFTER", "4"))
"""Seconds between blocking and giving back: more than the 2 s in which Linux repeats an announcement."""

FALLBACKS = ("MPTcpExtDssFallback", "MPTcpExtMPCapableFallbackACK", "MPTcpExtMPFailTx", "TcpInCsumErrors")
PACKETS = ("MPTcpExtAddAddr", "MPTcpExtAddAddrTx")


def policy(name: str, host: Host, hook: str, do: str, when: str = "") -> None:
    chosen = f'when = "{when}"\n' if when else ""
    text = (
        f'table = "{name}"\n[[policy]]\nname = "p"\nhook = "{hook}"\ndev = "path*"\n{chosen}do = ["{do}"]\n'
    )
    apply.apply(file.loads(text), host.netns)


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def lab(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Lab]:
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path / f"emt{os.getpid()}-add"))
    with two_hosts(link="veth", family=request.param, name=f"t{os.getpid()}a") as built:
        for host in (built.a, built.b):
            for path in built.paths:
                end = path.a if host is built.a else path.b
                host.run(["ethtool", "-K", end.device, "tx", "off"])
        yield built
        for name in apply.tables.names():
            apply.remove(name, keep_effects=True)


class Connection(ExitStack):
    """A connection from host a to host b over the first path."""

    def __init__(self, lab: Lab) -> None:
        super().__init__()
        self.lab = lab
        self.reader = self.enter_context(SubflowReader())
        address = lab.paths[0].b.address(lab.family)
        listener = self.enter_context(lab.b.call(lambda: listen(wildcard(address), timeout=30)))
        self.client = self.enter_context(lab.a.call(lambda: mptcp_socket(address, timeout=30)))
        self.client.connect((address, listener.getsockname()[1]))
        self.server = self.enter_context(listener.accept()[0])
        self.server.settimeout(10)

    def exchange(self) -> None:
        for one, other in ((self.client, self.server), (self.server, self.client)):
            one.sendall(bytes(range(256)) * 40)
            assert receive_exactly(other, 10_240) == bytes(range(256)) * 40

    def subflows(self) -> int:
        port = self.client.getpeername()[1]
        found = self.reader.read(namespaces.resolve(self.lab.a.netns))
        return sum(one.open and one.remote_port == port for one in found)


def counts(lab: Lab, names: tuple[str, ...]) -> list[dict[str, int]]:
    return [{name: host.counters()[name] for name in names} for host in (lab.a, lab.b)]


@pytest.mark.parametrize(("place", "hook"), [("a", "ingress"), ("b", "egress")])
def test_an_idle_connection_gets_its_subflow_when_the_kernel_repeats_no_more(
    lab: Lab, place: str, hook: str
) -> None:
    """Blocking goes on beside it, and the kernel has sent nothing more when it comes up."""
    host = lab.a if place == "a" else lab.b
    before = counts(lab, FALLBACKS)
    policy("block", host, hook, "blk_subflow()")
    with Connection(lab) as connection:
        connection.exchange()
        time.sleep(LATER)
        assert connection.subflows() == 1
        sent = counts(lab, PACKETS)[1]["MPTcpExtAddAddrTx"]
        policy("add", host, hook, "add_subflow()")
        wait_until(lambda: connection.subflows() == 2)
        assert counts(lab, PACKETS)[1]["MPTcpExtAddAddrTx"] == sent
        connection.exchange()
    assert counts(lab, FALLBACKS) == before


def test_only_what_is_selected_comes_up(lab: Lab) -> None:
    policy("block", lab.a, "ingress", "blk_subflow()")
    with Connection(lab) as one, Connection(lab) as other:
        for connection in (one, other):
            connection.exchange()
        time.sleep(LATER)
        port = one.client.getpeername()[1]
        policy("add", lab.a, "ingress", "add_subflow()", f"subflow(sport={port})")
        wait_until(lambda: one.subflows() == 2)
        one.exchange()
        other.exchange()
        assert (one.subflows(), other.subflows()) == (2, 1)


def test_an_address_that_the_kernel_never_announced_is_joined(lab: Lab) -> None:
    """The peer takes it for the HMAC alone, and answers with an echo."""
    lab.b.run(["ip", "mptcp", "endpoint", "flush"])
    before = counts(lab, FALLBACKS)
    address = lab.paths[1].b.address(lab.family)
    with Connection(lab) as connection:
        connection.exchange()
        assert connection.subflows() == 1
        policy("announce", lab.b, "egress", f"add_subflow(announce={address}, id=9)")
        wait_until(lambda: connection.subflows() == 2)
        wait_until(lambda: lab.b.counters()["MPTcpExtEchoAdd"] >= 1)
        connection.exchange()
    assert counts(lab, FALLBACKS) == before


def test_connections_that_begin_later_are_told_where_a_process_is_there_and_not_again(lab: Lab) -> None:
    lab.b.run(["ip", "mptcp", "endpoint", "flush"])
    before = counts(lab, FALLBACKS)
    address = lab.paths[1].b.address(lab.family)
    with resident("--no-guard"):
        policy("announce", lab.b, "egress", f"add_subflow(announce={address}, id=9)")
        with Connection(lab) as one, Connection(lab) as other:
            for connection in (one, other):
                connection.exchange()
            wait_until(lambda: (one.subflows(), other.subflows()) == (2, 2))
            time.sleep(0.5)
            heard = lab.a.counters()["MPTcpExtAddAddr"]
            for connection in (one, other):
                connection.exchange()
            time.sleep(0.5)
            assert lab.a.counters()["MPTcpExtAddAddr"] == heard
    assert counts(lab, FALLBACKS) == before


def test_a_wrong_hmac_is_not_joined(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test above shows hangs on the keys."""
    lab.b.run(["ip", "mptcp", "endpoint", "flush"])
    real = keys.address_hmac
    monkeypatch.setattr(keys, "address_hmac", lambda ours, theirs, *rest: real(theirs, ours, *rest))
    address = lab.paths[1].b.address(lab.family)
    with Connection(lab) as connection:
        connection.exchange()
        policy("announce", lab.b, "egress", f"add_subflow(announce={address}, id=9)")
        connection.exchange()
        time.sleep(0.3)
        assert connection.subflows() == 1


@pytest.mark.parametrize(
    ("hook", "arguments", "said"),
    [
        ("egress", "announce=10.0.9.1", "an address together with its ID"),
        ("egress", "id=9", "an address together with its ID"),
        ("ingress", "announce=10.0.9.1, id=9", "in packets that go out"),
    ],
)
def test_an_announcement_that_can_not_be_is_refused(hook: str, arguments: str, said: str) -> None:
    do = f"add_subflow({arguments})"
    text = f'table = "t"\n[[policy]]\nname = "p"\nhook = "{hook}"\ndev = "x"\ndo = ["{do}"]\n'
    (read,) = file.loads(text).policies
    bound = Catalog.of_enabled().bind(read.do[0])  # type: ignore[arg-type]
    with pytest.raises(EmptcpError, match=said):
        Manager.of_enabled().validate(bound, read)
