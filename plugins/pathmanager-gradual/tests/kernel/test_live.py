# SPDX-License-Identifier: Apache-2.0
"""Gradual opening on live connections: when subflows come up, on which paths, and what outlives whom."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from emptcp.hooks import namespaces
from emptcp.lab.path import Path as LabPath
from emptcp.lab.sockets import listen, mptcp_socket, receive_exactly, wildcard
from emptcp.lab.topology import Lab, two_hosts
from emptcp.mptcp.sockets import SubflowReader
from emptcp_sdk.testing import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(180)]

TABLE = """
table = "gradual"
[path.one]
dev = "{one}"
links = ["copper"]
[path.resold]
dev = "{resold}"
links = ["tower", "copper"]
[path.two]
dev = "{two}"
links = ["coax"]
[[controller]]
name = "gradual"
use = "gradual"
paths = ["one", "resold", "two"]
netns = "{netns}"
with = {{ after = ["200k", "1m"] }}
"""
ONE, RESOLD, TWO = range(3)


@pytest.fixture(params=["announced", "endpoints"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Three paths. Host b announces its addresses, or host a joins from endpoints of its own."""
    with two_hosts([LabPath()] * 3, link="veth", name=f"g{os.getpid()}") as built:
        if request.param == "endpoints":
            built.b.run(["ip", "mptcp", "endpoint", "flush"])
            for path in built.paths[1:]:
                words = f"ip mptcp endpoint add {path.a.address(4)} dev {path.a.device} subflow"
                built.a.run(words.split())
        yield built


class Machine:
    """An emptcp of its own, and its ``emptcp run``, on host a."""

    def __init__(self, folder: Path, lab: Lab) -> None:
        self.environment = {**os.environ, "EMPTCP_RUN": str(folder / f"emt{os.getpid()}-run")}
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None
        one, resold, two = (path.a.device for path in lab.paths)
        file = folder / "gradual.toml"
        file.write_text(TABLE.format(one=one, resold=resold, two=two, netns=lab.a.netns))
        self("apply", str(file), "--guard-window", "0")

    def __call__(self, *words: str) -> str:
        command = [sys.executable, "-m", "emptcp.cli.main", *words]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(self) -> None:
        """Start ``emptcp run`` and wait until the controller is there."""
        self.log.write_text("")
        command = [sys.executable, "-m", "emptcp.cli.main", "run", "--no-guard"]
        with open(self.log, "ab") as out:
            self.process = subprocess.Popen(command, env=self.environment, stdout=out, stderr=out)
        wait_until(lambda: "runs as process" in self.log.read_text(), told=self.log.read_text)

    def end(self, number: signal.Signals) -> None:
        """End ``emptcp run``."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(20)
            self.process = None


@pytest.fixture
def machine(tmp_path: Path, lab: Lab) -> Iterator[Machine]:
    made = Machine(tmp_path, lab)
    try:
        made.run()
        yield made
    finally:
        made.end(signal.SIGTERM)
        if "gradual" in made("list"):
            made("remove", "gradual", "--keep-effects")


class Transfer(ExitStack):
    """A connection from host a to host b, on the first path."""

    def __init__(self, lab: Lab) -> None:
        super().__init__()
        self.lab = lab
        self.reader = self.enter_context(SubflowReader())
        address = lab.paths[ONE].b.address(4)
        listener = self.enter_context(lab.b.call(lambda: listen(wildcard(address), timeout=30)))
        self.client = self.enter_context(lab.a.call(lambda: mptcp_socket(address, timeout=30)))
        self.client.connect((address, listener.getsockname()[1]))
        self.port = listener.getsockname()[1]
        self.server: socket.socket = self.enter_context(listener.accept()[0])
        self.server.settimeout(10)

    def send(self, size: int) -> None:
        """Send bytes, and receive them."""
        for _ in range(size // 10_000):
            self.client.sendall(bytes(10_000))
            receive_exactly(self.server, 10_000)

    def paths(self) -> list[int]:
        """Return the numbers of the paths on which it has a subflow that is open."""
        addresses = [path.a.address(4) for path in self.lab.paths]
        found = self.reader.read(namespaces.resolve(self.lab.a.netns))
        return sorted(
            addresses.index(str(one.local)) for one in found if one.open and one.remote_port == self.port
        )


def opens(transfer: Transfer, paths: list[int], machine: Machine) -> None:
    """Wait until it has subflows on these paths, and on no others."""
    wait_until(lambda: transfer.paths() == paths, told=lambda: (transfer.paths(), machine.log.read_text()))


def joins(lab: Lab) -> int:
    """Return how many SYNs that join host b has received."""
    return lab.b.counters()["MPTcpExtMPJoinSynRx"]


def test_a_short_transfer_has_one_subflow_and_a_long_one_gets_those_that_share_no_link(
    lab: Lab, machine: Machine
) -> None:
    with Transfer(lab) as transfer:
        transfer.send(100_000)
        time.sleep(2)  # twenty times what an unblocked join takes
        assert transfer.paths() == [ONE]
        assert joins(lab) == 0
        transfer.send(150_000)
        opens(transfer, [ONE, TWO], machine)
        transfer.send(3_000_000)
        time.sleep(2)
        assert transfer.paths() == [ONE, TWO]
        assert joins(lab) == 1
        # With the table everything is given back: what waited comes up.
        machine("remove", "gradual")
        wait_until(lambda: transfer.paths() == [ONE, RESOLD, TWO], 60, told=transfer.paths)
        transfer.send(100_000)


def test_a_killed_daemon_leaves_paths_open_and_blocked_and_the_next_one_repeats_nothing(
    lab: Lab, machine: Machine
) -> None:
    with Transfer(lab) as long:
        long.send(250_000)
        opens(long, [ONE, TWO], machine)
        allowed = machine("set", "list", "gradual-allow-two")
        assert len(allowed.splitlines()) == 1
        machine.end(signal.SIGKILL)
        before = joins(lab), lab.a.counters()["MPTcpExtAddAddr"]
        with Transfer(lab) as short:
            short.send(250_000)
            time.sleep(2)
            # Nobody is there who could count, and what nobody has allowed is blocked.
            assert short.paths() == [ONE]
            assert joins(lab) == before[0]
            assert machine("set", "list", "gradual-allow-two") == allowed
            machine.run()
            opens(short, [ONE, TWO], machine)
            assert long.paths() == [ONE, TWO]
            assert joins(lab) == before[0] + 1
            assert allowed.strip() in machine("set", "list", "gradual-allow-two")
