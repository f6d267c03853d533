# SPDX-License-Identifier: Apache-2.0
"""`emptcp monitor` on live connections: events of kernel and plugins, with and without `emptcp run`."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from emptcp.chain import pins
from emptcp.control import broadcast
from emptcp.control.ring import EventRing
from emptcp.lab.sockets import listen, mptcp_socket, wildcard
from emptcp.lab.topology import Lab, two_hosts
from emptcp_sdk.testing import wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("instance")]

TELL = """
table = "t"
[[policy]]
name = "connections"
hook = "ingress"
dev = "path*"
do = ["get_connect()"]
"""
SUBFLOWS = """
[[policy]]
name = "subflows"
hook = ["ingress", "egress"]
dev = "path*"
do = ["get_subflow()"]
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMPTCP_RUN", str(tmp_path_factory.mktemp("lab")))
        with two_hosts(link="veth", name=f"t{os.getpid()}m") as built:
            yield built


class Command:
    """An emptcp that runs until it is told to end, and the lines that it printed."""

    def __init__(self, *words: str) -> None:
        command = [sys.executable, "-m", "emptcp.cli.main", *words]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdout=pipe, stderr=subprocess.STDOUT)
        assert self.process.stdout is not None
        self.output = self.process.stdout
        self.lines: list[str] = []
        self._rest = b""

    def wait_for(self, what: Callable[[list[str]], bool], seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not what(self.lines):
            waiting = select.poll()
            waiting.register(self.output, select.POLLIN)
            assert waiting.poll(max(0, deadline - time.monotonic()) * 1000), "\n".join(self.lines)
            read = os.read(self.output.fileno(), 1 << 16)
            assert read, self.lines
            *lines, self._rest = (self._rest + read).split(b"\n")
            self.lines += [line.decode() for line in lines]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()
            self.output.close()


@contextmanager
def command(*words: str) -> Iterator[Command]:
    made = Command(*words)
    try:
        yield made
    finally:
        made.stop()


def connect(lab: Lab) -> None:
    """Let a connection come and go, with a subflow on each path."""
    with ExitStack() as stack:
        before = lab.a.counters()["MPTcpExtMPJoinSynAckRx"]
        address = lab.paths[0].b.address(4)
        listener = stack.enter_context(lab.b.call(lambda: listen(wildcard(address), timeout=30)))
        client = stack.enter_context(lab.a.call(lambda: mptcp_socket(address, timeout=30)))
        client.connect((address, listener.getsockname()[1]))
        server = stack.enter_context(listener.accept()[0])
        wait_until(lambda: lab.a.counters()["MPTcpExtMPJoinSynAckRx"] > before)
        for _ in range(20):
            client.sendall(b"x" * 5000)
            server.sendall(server.recv(1 << 16)[:1])
            client.recv(1)
            time.sleep(0.05)  # a moment for the tokens to be worked out


def told(lines: list[str], source: str) -> list[dict[str, Any]]:
    return [event for event in map(json.loads, lines) if event["source"] == source]


def begun(folder: Any) -> None:
    """Wait until somebody reads the events."""

    def somebody() -> bool:
        ring = EventRing(folder, lambda record: None)
        ring.refresh()
        mine = ring.mine
        ring.close()
        return not mine

    wait_until(somebody)


def test_without_a_resident_process_it_reads_the_events_itself(
    lab: Lab, emptcp: Any, write: Callable[[str], str]
) -> None:
    assert emptcp("apply", write(TELL), "--netns", lab.a.netns).code == 0
    with command("monitor", "--json", "--netns", lab.a.netns) as monitor:
        begun(pins.run_folder())
        connect(lab)
        monitor.wait_for(
            lambda lines: bool(told(lines, "get_connect") and named(lines, "kernel", "ESTABLISHED"))
        )
        second = emptcp("monitor", "--netns", lab.a.netns, "--count", "1")
        assert second.code == 1
        assert "another `emptcp monitor` reads the events" in second.err
    (ours,) = told(monitor.lines, "get_connect")
    theirs = named(monitor.lines, "kernel", "ESTABLISHED")
    assert ours["token"] == theirs[0]["token"]
    same = ("event", "saddr", "daddr", "sport", "dport", "netns")
    assert {name: ours[name] for name in same} == {name: theirs[0][name] for name in same}
    assert not {"key", "remote_key"} & ours.keys()
    assert abs(ours["time"] - theirs[0]["time"]) < 5


def test_several_hear_by_the_resident_process_and_tokens_are_tied(
    lab: Lab, emptcp: Any, write: Callable[[str], str]
) -> None:
    with command("run") as run:
        run.wait_for(lambda lines: "ready" in lines)
        assert emptcp("apply", write(TELL + SUBFLOWS), "--netns", lab.a.netns).code == 0
        words = ("monitor", "--json", "--netns", lab.a.netns)
        with command(*words) as one, command(*words, "--source", "get_subflow", "--keys") as other:
            subscribed(one, lab)
            subscribed(other, lab)
            connect(lab)
            for each in (one, other):
                each.wait_for(lambda lines: bool(named(lines, "get_subflow", "SF_CLOSED")))
            one.wait_for(lambda lines: bool(named(lines, "kernel", "SF_ESTABLISHED")))
    (begun_one,) = told(one.lines, "get_connect")
    joined = named(one.lines, "get_subflow", "SF_ESTABLISHED")
    assert joined
    kernel = named(one.lines, "kernel", "SF_ESTABLISHED")
    assert {event["token"] for event in joined} <= {begun_one["token"], begun_one["remote_token"]}
    assert {event["saddr"] for event in kernel} & {event["saddr"] for event in joined}
    assert {event["source"] for event in map(json.loads, other.lines)} == {"get_subflow"}


def named(lines: list[str], source: str, name: str) -> list[dict[str, Any]]:
    return [event for event in told(lines, source) if event["event"] == name]


def subscribed(monitor: Command, lab: Lab) -> None:
    """Wait until a monitor has connected to the resident process: it holds a socket of its kind."""
    folder = f"/proc/{monitor.process.pid}/fd"

    def sockets() -> int:
        links = [os.readlink(f"{folder}/{name}") for name in os.listdir(folder) if _is_link(folder, name)]
        return sum(link.startswith("socket:") for link in links)

    wait_until(lambda: sockets() >= 2, told=lambda: monitor.lines)


def _is_link(folder: str, name: str) -> bool:
    return os.path.islink(f"{folder}/{name}")


def test_what_a_slow_subscriber_lost_is_told(tmp_path: Any) -> None:
    sender = broadcast.Broadcast(tmp_path)
    reader = broadcast.subscribe(tmp_path)
    assert reader is not None
    try:
        sender.accept()
        for _ in range(5000):
            sender.send(bytes(100))
        received = 0
        reader.setblocking(False)
        while received < 5000:
            try:
                message = reader.recv(1 << 16)
            except BlockingIOError:
                sender.send(bytes(100))
                message = reader.recv(1 << 16)
                assert broadcast.lost(message) == 5000 - received
                break
            assert message == bytes(100)
            received += 1
        assert 0 < received < 5000
    finally:
        reader.close()
        sender.close()
    assert broadcast.subscribe(tmp_path) is None
