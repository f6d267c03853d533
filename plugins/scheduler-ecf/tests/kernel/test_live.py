# SPDX-License-Identifier: Apache-2.0
"""ECF on a live connection over unlike paths: the slow subflow is spared, and given back when much waits."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from emptcp.hooks import namespaces
from emptcp.lab.path import Path as LabPath
from emptcp.lab.sockets import listen, mptcp_socket, wildcard
from emptcp.lab.topology import Lab, two_hosts
from emptcp.mptcp.sockets import Subflow, SubflowReader
from emptcp_sdk.testing import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.traffic, pytest.mark.timeout(180)]

SO_SNDBUFFORCE = 32

TABLE = """
table = "ecf"
[path.fast]
dev = "{fast}"
[path.slow]
dev = "{slow}"
[[controller]]
name = "ecf"
use = "ecf"
paths = ["fast", "slow"]
netns = "{netns}"
"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    paths = [LabPath(rate=20e6, rtt=0.02), LabPath(rate=5e6, rtt=0.2)]
    with two_hosts(paths, name=f"e{os.getpid()}") as built:
        yield built


@pytest.fixture
def emptcp(tmp_path: Path, lab: Lab) -> Iterator[Path]:
    """Apply the table in an emptcp of its own, and have ``emptcp run``; its log."""
    environment = {**os.environ, "EMPTCP_RUN": str(tmp_path / f"emt{os.getpid()}-run")}
    fast, slow = (path.a.device for path in lab.paths)
    file, log = tmp_path / "ecf.toml", tmp_path / "log"
    file.write_text(TABLE.format(fast=fast, slow=slow, netns=lab.a.netns))
    command = [sys.executable, "-m", "emptcp.cli.main"]
    words = ("apply", str(file), "--guard-window", "0")
    subprocess.run([*command, *words], env=environment, check=True, timeout=60, capture_output=True)
    with open(log, "wb") as out:
        process = subprocess.Popen([*command, "run", "--no-guard"], env=environment, stdout=out, stderr=out)
    try:
        wait_until(lambda: "runs as process" in log.read_text(), told=log.read_text)
        yield log
    finally:
        process.terminate()
        process.wait(20)
        subprocess.run([*command, "remove", "ecf"], env=environment, check=True, timeout=60)


def test_the_slow_subflow_is_spared_and_given_back(lab: Lab, emptcp: Path) -> None:
    with contextlib.ExitStack() as opened:
        reader = opened.enter_context(SubflowReader())

        def subflows() -> list[Subflow]:
            here = [one for one in reader.read(namespaces.resolve(lab.a.netns)) if one.open]
            return sorted(here, key=lambda one: str(one.local))

        client, server = map(opened.enter_context, connected(lab, opened, lambda: len(subflows()) == 2))
        swallower = threading.Thread(target=lambda: swallow(server), daemon=True)
        swallower.start()

        def told() -> str:
            """What every subflow is like now, and what `emptcp run` said."""
            rows = [
                f"{one.local}: backup {one.backup}, RTT {one.rtt_us / 1000:.0f} ms, "
                f"{one.write_seq - one.snd_una} bytes waiting"
                for one in subflows()
            ]
            return "\n".join([*rows, emptcp.read_text()])

        def backups() -> list[bool]:
            return [one.backup for one in subflows()]

        def trickle() -> bool:
            client.sendall(bytes(20_000))  # every 20 ms and more: 8 Mbit/s at most
            return backups() == [False, True]

        def flood() -> bool:
            with contextlib.suppress(BlockingIOError):
                while True:
                    client.send(bytes(1 << 18))
            return backups() == [False, False]

        wait_until(trickle, told=told)
        client.setblocking(False)
        wait_until(flood, told=told)
        client.settimeout(30)
        # What waits goes by both, and then the slow one is spared again.
        wait_until(lambda: backups() == [False, True], 60, told=told)


def connected(
    lab: Lab, opened: contextlib.ExitStack, both: Callable[[], bool]
) -> tuple[socket.socket, socket.socket]:
    """Connect until there are both subflows: a join that is lost is not tried again by the kernel."""
    address = lab.paths[0].b.address(4)
    listener = opened.enter_context(lab.b.call(lambda: listen(wildcard(address), timeout=30)))
    for _ in range(5):
        client = lab.a.call(lambda: mptcp_socket(address, timeout=30))
        client.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 8 << 20)  # for the queue, not the windows
        client.connect((address, listener.getsockname()[1]))
        server, _ = listener.accept()
        client.sendall(b"x")
        with contextlib.suppress(AssertionError):
            wait_until(both, 5)
            return client, server
        client.close()
        server.close()
        time.sleep(1)
    raise AssertionError(f"no second subflow on five connections: {lab.a.counters()}")


def swallow(server: socket.socket) -> None:
    """Read all that comes."""
    with contextlib.suppress(OSError):
        while server.recv(1 << 20):
            pass
