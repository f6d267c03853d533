# SPDX-License-Identifier: Apache-2.0
"""What record measures on live connections, against known links and against the kernel's counters."""

from __future__ import annotations

import io
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from emptcp.chain import apply
from emptcp.cli.main import main
from emptcp.lab import traffic
from emptcp.lab.echo import echoing
from emptcp.lab.meter import Meter
from emptcp.lab.path import Path as LabPath
from emptcp.lab.topology import Lab, two_hosts
from emptcp.policy import file
from emptcp_actor_record.tracks import What

pytestmark = [pytest.mark.kernel, pytest.mark.traffic]

EVERYTHING = ", ".join(repr(str(what.name).lower()) for what in What)
POLICY = f"""
table = "measure"
[[policy]]
name = "all"
hook = ["ingress", "egress"]
dev = "path*"
do = ["record({EVERYTHING})"]
"""

Metrics = dict[str, float]


@pytest.fixture(autouse=True)
def own_emptcp(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path / f"emt{os.getpid()}-record"))
    yield
    if apply.tables.names():
        apply.remove("measure")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    paths = [LabPath(rate=50e6, rtt=0.010), LabPath(rate=50e6, rtt=0.040)]
    with two_hosts(paths, name=f"t{os.getpid()}") as built:
        yield built


@pytest.fixture(scope="module")
def lossy() -> Iterator[Lab]:
    """A lab whose queues are a third of what TCP fills."""
    paths = [LabPath(rate=20e6, rtt=0.030, queue=25_000), LabPath(rate=20e6, rtt=0.050, queue=40_000)]
    with two_hosts(paths, name=f"t{os.getpid()}l") as built:
        yield built


@contextmanager
def stream(lab: Lab) -> Iterator[None]:
    sender = traffic.start(lab.a, lab.b, lab.paths[0].b.address(4))
    try:
        yield
    finally:
        sender.terminate()
        sender.wait(5)


def connections(netns: str) -> Any:
    """Return what the command line says, as an operator reads it."""
    with redirect_stdout(io.StringIO()) as out:
        assert main(["connections", "--json", "--netns", netns]) == 0
    return json.loads(out.getvalue())


def by_path(lab: Lab, said: Any, host: str = "a") -> dict[str, Metrics]:
    """Return the metrics of open subflows by the path that they use. Host a's end is the first one."""
    names = {path.a.address(4): path.name for path in lab.paths}
    live = [row for row in said["subflows"] if row["token"] is not None]
    place = 0 if host == "a" else 1
    return {names[row["endpoints"][place][0]]: row["metrics"] for row in live}


def test_round_trips_are_those_of_each_path_and_all_bytes_are_counted(lab: Lab) -> None:
    apply.apply(file.loads(POLICY), lab.a.netns)
    # Long enough for several round trips on each path.
    size = 5_000_000
    assert lab.transfer(size).intact
    said = connections(lab.a.netns)
    found = {row["endpoints"][0][0]: row["metrics"] for row in said["subflows"]}
    for path in lab.paths:
        metrics = found[path.a.address(4)]
        # Timestamps count in milliseconds.
        assert path.rtt - 0.001 <= metrics["rtt_min"] < path.rtt + 0.030
        assert metrics["rtt_min"] <= metrics["rtt_mean"] < 1
        assert metrics["rtt_min"] <= metrics["rtt_last"] < 1
        # Of the histogram's steps those below the path's stay empty: 8,192 us, and 32,768.
        below = {"rtts_below_2ms", "rtts_below_4ms", "rtts_below_8ms"}
        assert not below & metrics.keys()
        assert sum(count for name, count in metrics.items() if name.startswith("rtts_")) > 0
        assert 0 < metrics["window_min_0"] <= metrics["window_last_0"] <= metrics["window_max_0"]
    for end in (0, 1):
        assert sum(metrics[f"bytes_{end}"] for metrics in found.values()) > size
        # By subflow sequence numbers every byte once, also what MPTCP sent on both subflows.
        assert size <= sum(metrics[f"size_{end}"] for metrics in found.values()) < 1.5 * size
        assert all(metrics[f"packets_{end}"] > 0 for metrics in found.values())


def test_retransmissions_are_those_that_the_sender_counts(lossy: Lab) -> None:
    apply.apply(file.loads(POLICY), lossy.a.netns)
    with stream(lossy), Meter(lossy.a) as meter:
        time.sleep(4)
        before = {reading.local: reading for reading in meter.read()}
        found = by_path(lossy, connections(lossy.a.netns))
        after = {reading.local: reading for reading in meter.read()}
    total = 0
    for path in lossy.paths:
        metrics = found[path.name]
        least = before[path.a.address(4)].retransmitted
        most = after[path.a.address(4)].retransmitted
        # What the kernel gave to the device, seen as it leaves: the same, but for what is on the way.
        assert 0.98 * least - 2 <= metrics["retransmitted_0"] <= 1.02 * most + 2
        # Nothing overtakes in front of its sender.
        assert metrics["reordered_0"] == 0
        total += least
    assert total > 20


def test_behind_the_loss_retransmissions_fill_holes_and_are_told_from_reordering(lossy: Lab) -> None:
    apply.apply(file.loads(POLICY), lossy.b.netns)
    with stream(lossy), Meter(lossy.a) as meter:
        time.sleep(4)
        found = by_path(lossy, connections(lossy.b.netns), host="b")
        sent = sum(reading.retransmitted for reading in meter.read())
    seen = sum(metrics["retransmitted_0"] for metrics in found.values())
    # Those that were lost again are not seen here, and some arrive after the reading.
    assert 0.7 * sent - 10 <= seen <= sent
    # These links keep the order.
    assert sum(metrics["reordered_0"] for metrics in found.values()) <= 0.02 * seen


def exchange(client: socket.socket, size: int) -> None:
    """Send bytes and wait until all of them have come back."""
    sender = threading.Thread(target=client.sendall, args=(bytes(size),))
    sender.start()
    while size:
        size -= len(client.recv(65536))
    sender.join(20)


def test_a_connections_goodput_counts_every_byte_once(lossy: Lab) -> None:
    apply.apply(file.loads(POLICY), lossy.a.netns)
    with echoing(lossy) as client:
        exchange(client, 10)
        exchange(client, 3_000_000)
        (whole,) = (one for one in connections(lossy.a.netns)["connections"] if all(one["tokens"]))
    assert len(whole["subflows"]) == 2
    # On two subflows, with losses, what was sent again on the same one or on the other one.
    assert [whole["metrics"][f"goodput_bytes_{end}"] for end in (0, 1)] == [3_000_010] * 2
    assert all(whole["metrics"][f"size_{end}"] >= 3_000_010 for end in (0, 1))


def test_a_connections_goodput_is_near_what_its_application_gets(lab: Lab) -> None:
    apply.apply(file.loads(POLICY), lab.a.netns)
    with stream(lab), Meter(lab.a) as meter:
        time.sleep(3)
        before = sum(reading.acked for reading in meter.read())
        (whole,) = (one for one in connections(lab.a.netns)["connections"] if all(one["tokens"]))
        after = sum(reading.acked for reading in meter.read())
    metrics = whole["metrics"]
    assert len(whole["subflows"]) == 2
    # What is under way: queues and windows of both paths, and what a mapping is ahead of its packets.
    assert 0.9 * before <= metrics["goodput_bytes_0"] <= 1.1 * after + 2_000_000
    assert metrics["goodput_0"] == pytest.approx(metrics["goodput_bytes_0"] / 3, rel=0.25)
