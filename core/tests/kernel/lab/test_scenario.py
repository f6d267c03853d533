# SPDX-License-Identifier: Apache-2.0
"""The scenario over real sockets: what is steered shows, what is not steered does not."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path as File

import pytest

from emptcp.errors import EmptcpError
from emptcp.lab import namespace, report, scenario, traffic
from emptcp.lab.measure import Row
from emptcp.lab.meter import Meter
from emptcp.lab.path import Path
from emptcp.lab.recorder import Recorder
from emptcp.lab.scenario import Moment, Run, Timeline
from emptcp.lab.topology import Lab, two_hosts

pytestmark = [pytest.mark.kernel, pytest.mark.traffic]

# Slow paths fill quickly and cost little, so that a busy machine keeps up.
PATHS = [Path(rate=20e6, rtt=0.010), Path(rate=20e6, rtt=0.030)]
TIMELINE = Timeline(apply=3, remove=6, end=10)


@dataclass
class Listener:
    rows: list[Row] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)

    def second(self, row: Row) -> None:
        self.rows.append(row)

    def changing(self, name: str, at: float) -> None:
        self.begun.append(name)

    def changed(self, moment: Moment) -> None:
        self.moments.append(moment)


@dataclass
class Steering:
    """Does what is handed in, and keeps what it was asked."""

    on: Callable[[], None]
    off: Callable[[], None]
    asked: list[tuple[str, str]] = field(default_factory=list)

    def check(self, file: File, netns: str) -> None:
        self.asked.append(("check", netns))

    def apply(self, file: File, netns: str) -> None:
        self.asked.append(("apply", netns))
        self.on()

    def remove(self, file: File, netns: str) -> None:
        self.asked.append(("remove", netns))
        self.off()


@pytest.fixture(autouse=True)
def run_folder(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path))


def run(lab: Lab, steering: Steering) -> tuple[Run, Listener]:
    listener = Listener()
    return scenario.run_two_path(lab, TIMELINE, listener, steering), listener


def test_a_path_that_the_peer_makes_backup_is_seen_to_be_spared_and_given_back() -> None:
    with two_hosts(PATHS, name=f"t{os.getpid()}") as lab:

        def tell(word: str) -> None:
            command = ["mptcp", "endpoint", "change", lab.paths[1].b.address4, word]
            namespace.ip(command, netns=lab.b.netns)

        steering = Steering(on=lambda: tell("backup"), off=lambda: tell("nobackup"))
        done, listener = run(lab, steering)
    judged = report.verdict(done)
    assert judged.held, judged.statement
    assert steering.asked == [(word, lab.a.netns) for word in ("check", "apply", "remove")]
    assert len(listener.rows) == 10
    assert [row.backup["path2"] for row in listener.rows[3:7]] == [True, True, True, False]
    assert listener.begun == ["applied", "removed"]
    assert [moment.begun for moment in listener.moments] == pytest.approx([3, 6], abs=0.3)
    both = listener.rows[2].mbit
    assert all(15 < both[path] < 20 for path in ("path1", "path2")), both


def test_a_policy_that_takes_long_to_load_still_gets_its_time() -> None:
    with two_hosts(PATHS, name=f"t{os.getpid()}") as lab:
        slow = Steering(on=lambda: time.sleep(1.5), off=lambda: None)
        done = scenario.run_two_path(lab, Timeline(apply=1, remove=2, end=3), Listener(), slow)
    applied, removed = done.moments
    assert applied.done - applied.begun == pytest.approx(1.5, abs=0.3)
    assert removed.begun - applied.done == pytest.approx(0.5, abs=0.3)
    assert done.end - removed.done == pytest.approx(0.5, abs=0.3)
    assert [phase.end - phase.begin > 0.2 for phase in report.phases(done)] == [True] * 3


def test_a_policy_that_does_nothing_is_seen_to_do_nothing() -> None:
    with two_hosts(PATHS, name=f"t{os.getpid()}") as lab:
        done, _ = run(lab, Steering(on=lambda: None, off=lambda: None))
    judged = report.verdict(done)
    assert judged.held is False
    assert judged.statement.startswith("The policy did not do what it says")


def test_a_policy_that_is_refused_ends_the_run_and_leaves_nothing() -> None:
    def refuse() -> None:
        raise EmptcpError("no such thing")

    with two_hosts(PATHS, name=f"t{os.getpid()}") as lab:
        with pytest.raises(EmptcpError, match="no such thing"):
            run(lab, Steering(on=refuse, off=lambda: None))
        assert lab.a.children
    assert not lab.a.children
    assert [namespace.exists(host.netns) for host in (lab.a, lab.b)] == [False, False]


def test_a_path_without_a_subflow_is_named() -> None:
    with two_hosts(PATHS, name=f"t{os.getpid()}") as lab:
        namespace.ip(["mptcp", "endpoint", "flush"], netns=lab.b.netns)
        with pytest.raises(EmptcpError, match="no subflow on path2"):
            run(lab, Steering(on=lambda: None, off=lambda: None))


@pytest.mark.parametrize("family", [4, 6])
def test_the_meter_reads_the_hosts_subflows(family: int) -> None:
    with two_hosts(PATHS, link="veth", family=family, name=f"t{os.getpid()}") as lab, Meter(lab.a) as meter:
        assert meter.read() == []
        traffic.start(lab.a, lab.b, lab.paths[0].b.address(family))
        with Recorder(lab.a, lab.paths, family) as recorder:
            recorder.begin()
        readings = {reading.local: reading for reading in meter.read()}
    assert set(readings) == {path.a.address(family) for path in lab.paths}
    assert all(reading.rtt < 0.1 and not reading.backup for reading in readings.values())
    assert sum(reading.acked for reading in readings.values()) > 0
