# SPDX-License-Identifier: Apache-2.0
"""Whether a controller's ticks are held with many connections: ``emptcp run`` and the controller on one core.

The connections are real, with two subflows each, between two hosts on this machine. They are idle, so that
the core has nothing else to do. What counts are the ticks as the controller saw them, and processor time.
"""

from __future__ import annotations

import os
import resource
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from emptcp.chain import apply
from emptcp.errors import EmptcpError
from emptcp.lab.resident import resident
from emptcp.lab.sockets import listen, mptcp_socket, wildcard
from emptcp.lab.topology import Lab, two_hosts
from emptcp.policy import file
from emptcp_bench.accuracy import own_tables
from emptcp_bench.measure import Spread

INTERVAL = 0.1
PATIENCE = 60.0
"""Seconds in which all subflows must be there, and seen."""

_TABLE = """
table = "bench"
[[controller]]
name = "metronome"
use = "metronome"
interval = "100ms"
netns = "{netns}"
with = {{ log = "{log}" }}
"""


@dataclass(frozen=True)
class Held:
    """What became of the ticks.

    ``missed`` ticks of those that were due fell out; ``gap`` is between the begins of two, ``tick`` what the
    controller's class took, in seconds; ``busy`` is the share of the core that all processes took.
    """

    connections: int
    subflows: int
    due: int
    missed: int
    gap: Spread
    tick: Spread
    busy: float


def measure(number: int, seconds: float) -> Held:
    """Measure a controller that compares all subflows, and finds that they are as they shall be."""
    _allow_files(4 * number + 1000)
    with own_tables(), two_hosts(link="veth", name="bench") as lab, ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="emptcp-ticks-")))
        _connect(lab, number, opened)
        return _ticking(lab, folder / "ticks", number, seconds)


def _ticking(lab: Lab, log: Path, number: int, seconds: float) -> Held:
    log.write_text("")
    text = _TABLE.format(netns=lab.a.netns, log=log)
    apply.apply(file.loads(text), lab.a.netns)
    try:
        with _on_one_core(), resident("--no-guard") as process:
            _wait_for(2 * number, log)
            used, began = _used(process.pid), time.monotonic()
            time.sleep(seconds)
            ended, spent = time.monotonic(), _used(process.pid) - used
            ticks = [one for one in _ticks(log) if began <= one[0] <= ended]
    finally:
        apply.remove("bench", keep_effects=True)
    return _held(ticks, ended - began, spent)


def _held(ticks: Sequence[Sequence[float]], seconds: float, spent: float) -> Held:
    begins = [one[0] for one in ticks]
    gaps = [later - earlier for earlier, later in pairwise(begins)]
    due = round((begins[-1] - begins[0]) / INTERVAL) + 1
    least = min(ticks, key=lambda one: one[3])
    return Held(
        int(least[2]),
        int(least[3]),
        due,
        max(0, due - len(ticks)),
        Spread.of(gaps),
        Spread.of([one[1] for one in ticks]),
        spent / seconds,
    )


def _connect(lab: Lab, number: int, opened: ExitStack) -> None:
    address = lab.paths[0].b.address(4)
    listener = opened.enter_context(lab.b.call(lambda: listen(wildcard(address), timeout=10)))
    port = listener.getsockname()[1]

    def connected() -> list[socket.socket]:
        made = []
        for _ in range(number):
            client = mptcp_socket(address, timeout=10)
            client.connect((address, port))
            client.sendall(b"x")
            made += [client, listener.accept()[0]]
        return made

    for one in lab.a.call(connected):
        opened.enter_context(one)


def _ticks(log: Path) -> list[list[float]]:
    lines = log.read_text(encoding="ascii").splitlines(keepends=True)
    return [[float(word) for word in line.split()] for line in lines if line.endswith("\n")]


def _subflows(log: Path) -> int:
    ticks = _ticks(log)
    return int(ticks[-1][3]) if ticks else 0


def _wait_for(subflows: int, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while _subflows(log) != subflows:
        if time.monotonic() > deadline:
            sentence = f"the controller does not see all subflows: {_subflows(log)} are there"
            raise EmptcpError(sentence, fix="See: emptcp doctor")
        time.sleep(0.2)


def _used(pid: int) -> float:
    """Return the processor time of a process and its children, in seconds."""
    children = [
        int(word)
        for path in Path(f"/proc/{pid}/task").glob("*/children")
        for word in path.read_text().split()
    ]
    ticks = 0
    for one in (pid, *children):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def _on_one_core() -> Iterator[None]:
    """Let what is started meanwhile run on one core, before the machine's other work."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))  # nice counts within a session only
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def _allow_files(number: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, max(hard, number)))
