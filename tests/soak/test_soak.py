# SPDX-License-Identifier: Apache-2.0
"""Random policies, tunes, swaps, sets and removals on 200 concurrent connections: ``make soak``.

Every byte of the connections is checked both ways, the kernel's counters of both hosts are read, and nothing
may grow: neither the process that changes the policies, nor ``emptcp run``, nor what is in the kernel.

``EMPTCP_SOAK_SECONDS`` is how long it lasts, ``EMPTCP_SOAK_SEED`` repeats one.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path as File
from typing import Any

import pytest

from emptcp.chain import running
from emptcp.hooks import namespaces
from emptcp.lab import process
from emptcp.lab.host import Host
from emptcp.lab.path import Path
from emptcp.lab.resident import resident
from emptcp.lab.topology import Lab, two_hosts
from emptcp.mptcp.sockets import subflows
from emptcp.plugins.catalog import Catalog
from emptcp_sdk.fuzz.stages import below

pytestmark = [pytest.mark.kernel, pytest.mark.soak]

HERE = File(__file__).parent
SECONDS = float(os.environ.get("EMPTCP_SOAK_SECONDS", "60"))
CONNECTIONS = 200
RATE = 12_000
"""Bytes per second that each end of each connection sends."""

RESTS = 8

LEEWAY = 120
"""Seconds for what begins and ends, and for the change that is under way when the time is over."""

GROWTH = 8 * 1024
"""KiB that a process may have more: Python's heap breathes. What leaks with each change is far above it."""

BAD = re.compile(
    "TcpInCsumErrors|TcpEstabResets|MPTcpExt.*"
    "(Fallback|Infinite|MPFail|CsumErr|Corruption|DSSNo|Blackhole|MPRst|MPFastclose).*"
)
"""The kernel's counters of wrong checksums, resets and fallbacks."""


@pytest.fixture
def lab(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path))
    monkeypatch.setenv("EMPTCP_GUARD_WINDOW", "0")  # the resident process watches all the time
    with two_hosts([Path(), Path()], link="veth", name="soak") as made:
        yield made


@contextlib.contextmanager
def ends(lab: Lab) -> Iterator[list[subprocess.Popen[str]]]:
    """The two ends of all connections, server first, from when these are there."""
    address, how = lab.paths[0].b.address4, (str(CONNECTIONS), str(RATE))
    server = start(lab.b, "serve", "0.0.0.0", "0", *how)
    client = start(lab.a, "connect", address, said(server), *how)
    assert [said(client), said(server)] == ["ready", "ready"]
    yield [server, client]


def start(host: Host, *words: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return host.start([sys.executable, str(HERE / "traffic.py"), *words], stdin=pipe, stdout=pipe)


def said(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    line = child.stdout.readline().strip()
    assert line, f"{child.args} ended"
    return line


def stop(pair: list[subprocess.Popen[str]]) -> list[dict[str, Any]]:
    """Let both ends send no more, and return how it went."""
    for child in pair:
        assert child.stdin is not None
        child.stdin.close()
        child.stdin = None
    return [json.loads(child.communicate(timeout=120)[0]) for child in pair]


def tokens(lab: Lab) -> list[int]:
    """Return tokens of connections, of either end."""
    found = (subflows(namespaces.resolve(host.netns)) for host in (lab.a, lab.b))
    return [one.token for of_host in found for one in of_host if one.token][:400:40]


def change(lab: Lab, seed: int, daemon: int) -> list[dict[str, Any]]:
    """Change policies for the whole time; return what the process said at each rest, and at its end."""
    words = [seed, SECONDS, RESTS, daemon, lab.a.netns, lab.b.netns, *tokens(lab)]
    command = [sys.executable, str(HERE / "changes.py"), *map(str, words)]
    child = process.start(command, stdout=subprocess.PIPE)
    try:
        out, _ = child.communicate(timeout=SECONDS + LEEWAY)
    finally:
        process.end(child)
    assert child.returncode == 0
    return [json.loads(line) for line in out.splitlines()]


def moved(host: Host, before: dict[str, int]) -> dict[str, int]:
    """Return the host's counters of what must not happen, as far as it did."""
    names = {name: value - before.get(name, 0) for name, value in host.counters().items()}
    return {name: value for name, value in names.items() if value and BAD.fullmatch(name)}


def told(daemon: subprocess.Popen[bytes]) -> str:
    """Return what the resident process said since it was ready."""
    assert daemon.stderr is not None
    os.set_blocking(daemon.stderr.fileno(), False)
    return (daemon.stderr.read() or b"").decode()


def check_bytes(client: dict[str, Any], server: dict[str, Any]) -> None:
    """Check that every connection was MPTCP to its end, and brought each byte."""
    for end in (client, server):
        assert (end["wrong"], end["plain"], end["broken"]) == (0, 0, {})
        assert len(end["received"]) == CONNECTIONS
    assert client["received"] == server["sent"]
    assert server["received"] == client["sent"]
    assert min(client["sent"].values()) > 0


def check_growth(rests: list[dict[str, Any]]) -> None:
    """Check that nothing is held at the end that was not when the first minute was over."""
    settled = [rest for rest in rests if rest["at"] >= min(60, SECONDS / 3)]
    first, last = settled[0], settled[-1]
    assert last["kernel"] == first["kernel"]
    for who in ("changes", "resident"):
        assert last[who].pop("rss") - first[who].pop("rss") < GROWTH
        assert last[who] == first[who]


@pytest.mark.timeout(SECONDS + 3 * LEEWAY)
def test_nothing_breaks_and_nothing_grows(lab: Lab) -> None:
    seed = int(os.environ.get("EMPTCP_SOAK_SEED", random.randrange(1 << 32)))
    print(f"EMPTCP_SOAK_SEED={seed}")
    hosts = (lab.a, lab.b)
    before = [host.counters() for host in hosts]
    with ends(lab) as pair:
        with resident() as daemon:
            *rests, work = change(lab, seed, daemon.pid)
            assert daemon.poll() is None
            assert "the guard switched off" not in told(daemon)
        server, client = stop(pair)
    print(json.dumps(work, indent=1), *map(json.dumps, rests), sep="\n")
    assert [moved(host, counters) for host, counters in zip(hosts, before, strict=True)] == [{}, {}]
    check_bytes(client, server)
    check_growth(rests)
    assert running.everything() == {}
    ours = {stage.name for stage in below(HERE.parents[1] / "plugins", Catalog.of_enabled())}
    assert ours - work["stages"].keys() == set(), "never in force"
