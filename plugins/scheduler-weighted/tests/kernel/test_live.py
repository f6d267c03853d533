# SPDX-License-Identifier: Apache-2.0
"""Overflow and quotas on live connections: the second path is used when the first is full, and counted."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from emptcp.lab.meter import Meter
from emptcp.lab.path import Path as LabPath
from emptcp.lab.sockets import listen, mptcp_socket, wildcard
from emptcp.lab.topology import Lab, two_hosts
from emptcp_sdk.testing import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.traffic, pytest.mark.timeout(240)]

RATES = (20e6, 10e6)
PAYLOAD = 0.95
"""What is left of a path's rate for TCP's payload."""

TABLE = """
table = "weighted"
[path.wan1]
dev = "{one}"
[path.wan2]
dev = "{two}"
cost = {cost}
{more}
[[controller]]
name = "overflow"
use = "weighted"
paths = ["wan1", "wan2"]
netns = "{netns}"
with = {{ weights = {weights} }}
"""


class Machine:
    """An emptcp of its own, and its ``emptcp run``."""

    def __init__(self, folder: Path, lab: Lab) -> None:
        self.lab, self.folder = lab, folder
        self.environment = {**os.environ, "EMPTCP_RUN": str(folder / f"emt{os.getpid()}-run")}
        self.log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self, *words: str) -> None:
        command = [sys.executable, "-m", "emptcp.cli.main", *words]
        done = subprocess.run(command, env=self.environment, timeout=60, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def apply(self, more: str = "", *, cost: int = 10, weights: str = "[]") -> None:
        """Put the table in force."""
        one, two = (path.a.device for path in self.lab.paths)
        file = self.folder / "table.toml"
        told = {"netns": self.lab.a.netns, "more": more, "cost": cost, "weights": weights}
        file.write_text(TABLE.format(one=one, two=two, **told))
        self("apply", str(file), "--guard-window", "0")

    def run(self) -> None:
        """Start ``emptcp run``, and wait until the controller runs."""
        self.log.write_text("")
        with open(self.log, "ab") as out:
            command = [sys.executable, "-m", "emptcp.cli.main", "run", "--no-guard"]
            self._process = subprocess.Popen(command, env=self.environment, stdout=out, stderr=out)
        wait_until(lambda: "runs as process" in self.log.read_text(), told=self.log.read_text)

    def kill(self) -> None:
        """End it as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)

    def state(self) -> dict[str, object]:
        """Return what the controller remembers."""
        file = Path(self.environment["EMPTCP_RUN"]) / "state" / "controllers" / "weighted" / "overflow.json"
        return dict(json.loads(file.read_text())) if file.exists() else {}


class Stream:
    """A connection that sends at a rate that may be changed, in bit/s; ``None``: as fast as it can."""

    def __init__(self, lab: Lab, opened: contextlib.ExitStack) -> None:
        self.lab, self.rate = lab, 8e6
        self._meter = opened.enter_context(Meter(lab.a))
        address = lab.paths[0].b.address(4)
        self._listener = opened.enter_context(lab.b.call(lambda: listen(wildcard(address), timeout=30)))
        self._client, server = self._connected(address)
        opened.callback(self._close, server)
        threading.Thread(target=self._swallow, args=[server], daemon=True).start()
        threading.Thread(target=self._send, daemon=True).start()

    def _connected(self, address: str) -> tuple[socket.socket, socket.socket]:
        """Connect until there are both subflows: a join that is lost is not tried again by the kernel."""
        for _ in range(5):
            client = self.lab.a.call(lambda: mptcp_socket(address, timeout=30))
            client.connect((address, self._listener.getsockname()[1]))
            server, _ = self._listener.accept()
            client.sendall(b"x")
            with contextlib.suppress(AssertionError):
                wait_until(lambda: len(self.acked()) == 2, 5)
                return client, server
            client.close()
            server.close()
            time.sleep(1)
        raise AssertionError(f"no second subflow on five connections: {self.lab.a.counters()}")

    def acked(self) -> list[int]:
        """Return what each path has delivered."""
        return [one.acked for one in sorted(self._meter.read(), key=lambda one: one.local)]

    def mbit(self, seconds: float) -> list[float]:
        """Return what each path delivers meanwhile, in Mbit/s."""
        before, began = self.acked(), time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - began
        return [(new - old) * 8e-6 / took for old, new in zip(before, self.acked(), strict=True)]

    def _close(self, server: socket.socket) -> None:
        for end in (self._client, server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _send(self) -> None:
        piece, due = bytes(20_000), time.monotonic()
        with contextlib.suppress(OSError):
            while True:
                self._client.sendall(piece)
                due = max(due + len(piece) * 8 / self.rate, time.monotonic() - 0.2)
                time.sleep(max(0.0, due - time.monotonic()))

    def _swallow(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while server.recv(1 << 20):
                pass


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    paths = [LabPath(rate=rate, rtt=0.02 * number) for number, rate in enumerate(RATES, start=1)]
    with two_hosts(paths, name=f"w{os.getpid()}") as lab:
        made = Machine(tmp_path, lab)
        try:
            yield made
        finally:
            made.kill()
            made("remove", "weighted")


def test_the_second_path_is_used_when_the_first_is_full_and_only_then(machine: Machine) -> None:
    machine.apply()
    machine.run()
    with contextlib.ExitStack() as opened:
        stream = Stream(machine.lab, opened)
        rates: list[list[float]] = []

        def measured(seconds: float) -> list[float]:
            rates.append(stream.mbit(seconds))
            return rates[-1]

        def spared() -> bool:
            first, second = measured(2)
            return second < 0.05 * (first + second)

        def full() -> bool:
            return sum(measured(2)) >= 0.9 * PAYLOAD * sum(RATES) * 1e-6

        # The first path alone: for a while, not at one moment.
        wait_until(spared, told=lambda: rates)
        assert all(spared() for _ in range(3)), rates
        stream.rate = 1e9
        wait_until(full, 40, told=lambda: rates)
        stream.rate = 8e6
        wait_until(spared, 60, told=lambda: rates)


def test_paths_of_one_cost_carry_what_their_weights_say(machine: Machine) -> None:
    """Four to one over 20 and 10 Mbit/s: the second path could carry half of what the first does."""
    machine.apply(cost=0, weights="[4, 1]")
    machine.run()
    with contextlib.ExitStack() as opened:
        stream = Stream(machine.lab, opened)
        stream.rate = 1e9
        rates: list[list[float]] = []

        def held() -> bool:
            rates.append(stream.mbit(4))
            first, second = rates[-1]
            return 3.2 < first / second < 5 and first > 0.85 * PAYLOAD * RATES[0] * 1e-6

        wait_until(held, 60, told=lambda: rates)
        assert held() or held(), rates


def test_a_quota_counts_on_over_a_crash(machine: Machine) -> None:
    machine.apply('quota = "100m"\n[path.wan3]\nlocal = "10.9.9.9"')
    machine.run()
    with contextlib.ExitStack() as opened:
        stream = Stream(machine.lab, opened)
        stream.rate = 1e9

        def used() -> int:
            state: dict[str, int] = machine.state().get("used", {})  # type: ignore[assignment]
            return state.get("wan2", 0)

        wait_until(lambda: used() > 1_000_000, 60, told=machine.log.read_text)
        machine.kill()
        before = used()
        machine.run()
        # Counted in all: what passed before, what passed meanwhile, what passes now; each byte once.
        wait_until(lambda: used() > before + 1_000_000, 60, told=machine.log.read_text)
        stream.rate = 8e6
        wait_until(lambda: stream.mbit(1)[1] == 0, 60)
        wait_until(lambda: used() >= stream.acked()[1] * 0.99, told=lambda: (used(), stream.acked()))
        assert used() <= stream.acked()[1] * 1.05
