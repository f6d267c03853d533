# SPDX-License-Identifier: Apache-2.0
"""``emptcp run`` as a process: ready, one at a time, devices that come back, a clean end."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from emptcp.control import resident
from emptcp.control.devices import DeviceWatch
from emptcp.hooks import namespaces

pytestmark = pytest.mark.kernel

POLICY = """
table = "come-and-go"
[[policy]]
name = "count"
hook = "egress"
dev = "wan*"
do = ["record('packets')"]
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=10)


@pytest.fixture
def netns() -> Iterator[str]:
    name = f"emt{os.getpid()}-control"
    ip("netns", "add", name)
    yield name
    ip("netns", "delete", name)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An emptcp of its own: another run folder, hence other pins, than any that runs on this machine."""
    return {**os.environ, "EMPTCP_RUN": str(tmp_path / f"emt{os.getpid()}-run")}


def emptcp(environment: dict[str, str], *words: str) -> str:
    command = [sys.executable, "-m", "emptcp.cli.main", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Run:
    """An ``emptcp run`` and what it says."""

    def __init__(self, environment: dict[str, str]) -> None:
        command = [sys.executable, "-m", "emptcp.cli.main", "run"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, env=environment, stdout=pipe, stderr=subprocess.STDOUT)
        assert self.process.stdout is not None
        self.output = self.process.stdout
        self.said = ""

    def wait_for(self, text: str, seconds: float = 30) -> None:
        """Wait until ``text`` was said; fails when that does not happen in time."""
        deadline = time.monotonic() + seconds
        while text not in self.said:
            ready, _, _ = select.select([self.output], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"'{text}' was not said within {seconds} s, but: {self.said}"
            read = os.read(self.output.fileno(), 4096)
            assert read, f"it ended, and said: {self.said}"
            self.said += read.decode()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()
            self.output.close()


def test_a_device_that_comes_back_gets_its_policies_again(
    netns: str, environment: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(POLICY)
    ip("-n", netns, "link", "add", "wan0", "type", "veth", "peer", "name", "far0")
    emptcp(environment, "apply", str(file), "--netns", netns)
    run = Run(environment)
    try:
        run.wait_for("ready")
        ip("-n", netns, "link", "delete", "wan0")
        ip("-n", netns, "link", "add", "wan0", "type", "veth", "peer", "name", "far0")
        run.wait_for("device wan0 appeared")
        run.wait_for("attached egress of wan0")
        assert "egress of wan0" in emptcp(environment, "list")
    finally:
        code = run.stop()
        emptcp(environment, "remove", "come-and-go")
    assert code == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_and_a_second_one_is_refused_before(
    environment: dict[str, str], number: signal.Signals
) -> None:
    run = Run(environment)
    try:
        run.wait_for("ready")
        second = Run(environment)
        second.wait_for(f"there already, as process {run.process.pid}")
        assert second.process.wait(30) == 1
        second.stop()
    finally:
        code = run.stop(number)
    assert code == 0


def test_a_namespace_that_goes_before_it_is_watched_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = f"emt{os.getpid()}-gone"
    ip("netns", "add", name)
    gone = namespaces.resolve(name)
    ip("netns", "delete", name)
    monkeypatch.setattr(resident, "REFRESH", 0.01)

    class Work:
        looks = 0

        def refresh(self) -> None:
            self.looks += 1
            if self.looks == 3:
                os.kill(os.getpid(), signal.SIGTERM)

        def namespaces(self) -> list[namespaces.Namespace]:
            return [gone]

        def event(self, record: bytes) -> None: ...

        def sweep(self) -> None: ...

        def appeared(self, namespace: namespaces.Namespace, device: str) -> None: ...

        def watched(self, namespace: namespaces.Namespace) -> None: ...

        def reload(self) -> None: ...

        def wakers(self) -> list[resident.Waker]:
            return []

    work = Work()
    with resident.StopSignals() as stop:
        resident.Resident(work, tmp_path).run(stop)
    assert work.looks == 3


def test_what_wakes_the_loop_neither_hurries_nor_delays_its_sweeps(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(resident, "REFRESH", 0.05)
    wakes, sweeps = 0, 0
    readable, other = socket.socketpair()
    other.send(b"x")

    class Waker:
        def fileno(self) -> int:
            return readable.fileno()

        def woken(self) -> list[bytes]:
            nonlocal wakes
            wakes += 1
            return []

    class Work:
        def refresh(self) -> None: ...

        def namespaces(self) -> list[namespaces.Namespace]:
            return []

        def event(self, record: bytes) -> None: ...

        def sweep(self) -> None:
            nonlocal sweeps
            sweeps += 1
            if sweeps == 3:
                os.kill(os.getpid(), signal.SIGTERM)

        def appeared(self, namespace: namespaces.Namespace, device: str) -> None: ...

        def watched(self, namespace: namespaces.Namespace) -> None: ...

        def reload(self) -> None: ...

        def wakers(self) -> list[resident.Waker]:
            return [Waker()]

    with readable, other, resident.StopSignals() as stop:
        resident.Resident(Work(), tmp_path).run(stop)
    assert sweeps == 3
    assert wakes > 2 * sweeps


def test_the_watch_tells_of_new_devices_and_of_new_ones_with_an_old_name(netns: str) -> None:
    watch = DeviceWatch(namespaces.resolve(netns))
    try:
        for _ in range(2):
            ip("-n", netns, "link", "add", "wan0", "type", "veth", "peer", "name", "far0")
            select.select([watch], [], [], 5)
            assert sorted(watch.read()) == ["far0", "wan0"]
            ip("-n", netns, "link", "set", "wan0", "up")
            assert watch.read() == []
            ip("-n", netns, "link", "delete", "wan0")
    finally:
        watch.close()
