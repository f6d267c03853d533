# SPDX-License-Identifier: Apache-2.0
"""set_backup between two hosts with real MPTCP sockets: both ends, idle and busy, and what is given back."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from emptcp.chain import apply
from emptcp.hooks import namespaces
from emptcp.lab.sockets import listen, mptcp_socket, receive_exactly, wildcard
from emptcp.lab.topology import Lab, two_hosts
from emptcp.mptcp.sockets import SubflowReader
from emptcp.policy import file
from emptcp.policy.model import Table
from emptcp_sdk.testing import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.traffic]

PRIO = "MPTcpExtMPPrioRx"
DEVICE = "path2"


def table(
    on: bool = True,
    hooks: str = '["ingress", "egress"]',
    backend: str = "auto",
    when: str = "",
    device: str = DEVICE,
) -> Table:
    return file.loads(
        f"""
        table = "backup"
        [[policy]]
        name = "slow"
        hook = {hooks}
        dev = "{device}"
        backend = "{backend}"
        {f'when = "{when}"' if when else ""}
        do = ["set_backup(on={on})"]
        """
    )


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with two_hosts(link="veth", name=f"t{os.getpid()}") as built:
        yield built


@pytest.fixture(autouse=True)
def own_emptcp(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Tables and pins that no other emptcp of this machine sees, and none of them afterwards."""
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path / f"emt{os.getpid()}-backup"))
    yield
    if apply.tables.names():
        apply.remove("backup", keep_effects=True)


class Ends:
    """A connection over both paths: its sockets, and the backup bits that each host's sockets have."""

    def __init__(self, lab: Lab, reader: SubflowReader, client: socket.socket, server: socket.socket) -> None:
        self.lab, self.reader, self.client, self.server = lab, reader, client, server

    def bits(self, netns: str) -> list[bool]:
        """The bit of each open subflow of a host, by path."""
        port = self.client.getpeername()[1]
        found = self.reader.read(namespaces.resolve(netns))
        ours = [s for s in found if s.open and port in (s.local_port, s.remote_port)]
        return [s.backup for s in sorted(ours, key=lambda s: str(s.local))]

    @property
    def here(self) -> list[bool]:
        """The bits that steer host a, where the policies run."""
        return self.bits(self.lab.a.netns)

    @property
    def there(self) -> list[bool]:
        """The bits that steer host b, the peer."""
        return self.bits(self.lab.b.netns)

    def counts(self) -> tuple[int, int]:
        """How many MP_PRIO each host has received."""
        return self.lab.a.counters()[PRIO], self.lab.b.counters()[PRIO]


@pytest.fixture
def ends(lab: Lab) -> Iterator[Ends]:
    with connected(lab, lab.paths[0].b.address(4)) as made:
        yield made


class connected(ExitStack):
    """A connection of host a to an address of host b, with as many subflows as there are paths."""

    def __init__(self, lab: Lab, address: str) -> None:
        super().__init__()
        self._lab, self._address = lab, address

    def __enter__(self) -> Ends:  # type: ignore[override]
        super().__enter__()
        listener = self.enter_context(self._lab.b.call(lambda: listen(wildcard(self._address), timeout=30)))
        client = self.enter_context(self._lab.a.call(lambda: mptcp_socket(self._address, timeout=30)))
        client.connect((self._address, listener.getsockname()[1]))
        server = self.enter_context(listener.accept()[0])
        client.sendall(b"x")
        server.recv(1)
        ends = Ends(self._lab, self.enter_context(SubflowReader()), client, server)
        wait_until(lambda: len(ends.here) == len(ends.there) == len(self._lab.paths))
        return ends


def test_both_ends_of_an_idle_subflow_are_told_once_per_change_and_given_back(lab: Lab, ends: Ends) -> None:
    first = ends.counts()
    for changes, on in enumerate((True, False, True), 1):
        apply.apply(table(on), lab.a.netns)
        wait_until(lambda on=on: ends.here == [False, on] and ends.there == [False, on])
        assert ends.counts() == (first[0] + changes, first[1] + changes)
    apply.remove("backup")
    wait_until(lambda: ends.here == [False, False] and ends.there == [False, False])
    assert ends.counts() == (first[0] + 4, first[1] + 4)


@pytest.mark.parametrize("broken", [0, 1])
def test_a_subflow_on_which_nothing_can_be_sent_holds_up_no_other_and_is_told_later(
    lab: Lab, ends: Ends, broken: int
) -> None:
    exchange(ends)  # the sockets know their devices now, also without a route
    path = lab.paths[broken]
    (route,) = lab.a.run(["ip", "-4", "route", "show", "dev", path.name]).stdout.splitlines()
    words = [*route.split(), "dev", path.name]
    lab.a.run(["ip", "route", "delete", *words])
    try:
        outcome = apply.apply(table(hooks='"egress"', device="path*"), lab.a.netns)
        assert outcome.warnings == []
        wait_until(lambda: ends.there == [broken != 0, broken != 1])
    finally:
        lab.a.run(["ip", "route", "add", *words])
    wait_until(lambda: ends.there == [True, True], meanwhile=lambda: exchange(ends))


def exchange(ends: Ends) -> None:
    """Send so much both ways that both subflows carry some."""
    for one, other in ((ends.client, ends.server), (ends.server, ends.client)):
        for _ in range(10):
            one.sendall(bytes(50_000))
            receive_exactly(other, 50_000)


def test_applying_the_same_again_says_nothing(lab: Lab, ends: Ends) -> None:
    apply.apply(table(), lab.a.netns)
    wait_until(lambda: ends.there == [False, True])
    before = ends.counts()
    assert not apply.apply(table(), lab.a.netns).changed
    assert ends.counts() == before


@pytest.mark.parametrize("backend", ["xdp", "tc"])
def test_only_what_the_policy_selects_is_told(lab: Lab, ends: Ends, backend: str) -> None:
    port = ends.client.getpeername()[1]
    hook = '"ingress"'
    apply.apply(table(hooks=hook, backend=backend, when=f"subflow(sport={port + 1})"), lab.a.netns)
    assert ends.here == [False, False]
    apply.apply(table(hooks=hook, backend=backend, when=f"subflow(sport={port})"), lab.a.netns)
    assert ends.here == [False, True]
    assert ends.there == [False, False]
    apply.apply(table(hooks=hook, backend=backend, when=f"subflow(sport={port + 1})"), lab.a.netns)
    assert ends.here == [False, False]


def test_keep_effects_leaves_the_subflow_as_it_is(lab: Lab, ends: Ends) -> None:
    apply.apply(table(hooks='"ingress"'), lab.a.netns)
    apply.remove("backup", keep_effects=True)
    assert ends.here == [False, True]


def test_what_the_peer_had_asked_for_is_what_it_gets_back(lab: Lab, ends: Ends) -> None:
    endpoint = ["ip", "mptcp", "endpoint", "change", lab.paths[1].b.address(4)]
    lab.b.run([*endpoint, "backup"])
    try:
        wait_until(lambda: ends.here == [False, True])
        apply.apply(table(on=False, hooks='"ingress"'), lab.a.netns)
        assert ends.here == [False, False]
        apply.remove("backup")
        assert ends.here == [False, True]
    finally:
        lab.b.run([*endpoint, "nobackup"])


def test_a_wish_of_the_peer_does_not_undo_the_policy(lab: Lab, ends: Ends) -> None:
    apply.apply(table(on=False, hooks='"ingress"'), lab.a.netns)
    before = ends.counts()[0]
    endpoint = ["ip", "mptcp", "endpoint", "change", lab.paths[1].b.address(4)]
    lab.b.run([*endpoint, "backup"])
    try:
        wait_until(lambda: ends.counts()[0] == before + 1)
        assert ends.here == [False, False]
        apply.remove("backup")
        assert ends.here == [False, True]
    finally:
        lab.b.run([*endpoint, "nobackup"])


@pytest.fixture
def shaped(lab: Lab) -> Iterator[None]:
    """Paths of 50 Mbit/s, so that sending as fast as it goes leaves the processors something."""
    everywhere = [(host, path.a.device) for host in (lab.a, lab.b) for path in lab.paths]
    for host, device in everywhere:
        host.run(f"tc qdisc add dev {device} root tbf rate 50mbit burst 32k latency 50ms".split())
    yield
    for host, device in everywhere:
        host.run(f"tc qdisc delete dev {device} root".split())


@contextmanager
def busy(*directions: tuple[socket.socket, socket.socket]) -> Iterator[None]:
    """Send as fast as it goes from the first socket of each direction to the second."""
    stop = threading.Event()

    def repeat(step: Callable[[], object]) -> None:
        with suppress(OSError):
            while not stop.is_set() and step() != b"":
                pass

    steps = [
        step for a, b in directions for step in (partial(a.send, bytes(1 << 16)), partial(b.recv, 1 << 20))
    ]
    threads = [threading.Thread(target=repeat, args=(step,)) for step in steps]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for end in {end for direction in directions for end in direction}:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(10)


@pytest.mark.usefixtures("shaped")
@pytest.mark.parametrize("ways", ["up", "down", "both"])
def test_busy_subflows_are_told_once_too(lab: Lab, ends: Ends, ways: str) -> None:
    up, down = (ends.client, ends.server), (ends.server, ends.client)
    with busy(*{"up": [up], "down": [down], "both": [up, down]}[ways]):
        time.sleep(0.2)
        first = ends.counts()
        for changes, on in enumerate((True, False), 1):
            apply.apply(table(on), lab.a.netns)
            wait_until(lambda on=on: ends.here == [False, on] and ends.there == [False, on])
            time.sleep(0.2)
            assert ends.counts() == (first[0] + changes, first[1] + changes)


def test_new_subflows_are_backup_before_they_carry_anything(lab: Lab) -> None:
    apply.apply(table(), lab.a.netns)
    before = lab.a.sent()[DEVICE], lab.b.sent()[DEVICE]
    done = lab.transfer(2_000_000)
    assert done.intact
    assert done.mptcp
    assert done.bad_checksums == 0
    after = lab.a.sent()[DEVICE], lab.b.sent()[DEVICE]
    assert all(now - then < 50_000 for then, now in zip(before, after, strict=True))
