# SPDX-License-Identifier: Apache-2.0
"""Use cases over real sockets: every setting is what it says, and what it measures can be wrong."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path as File

import pytest

from emptcp.lab import comparison, namespace
from emptcp.lab.comparison import OURS, Plan
from emptcp.lab.grid import BACKUP, COMPLETION, GOODPUT, KERNEL, TCP, USE_CASES, Point, Traffic
from emptcp.lab.load import Load
from emptcp.lab.path import Path
from emptcp.lab.topology import Lab, two_hosts

pytestmark = [pytest.mark.kernel, pytest.mark.traffic, pytest.mark.timeout(180)]

PATHS = (Path(rate=20e6, rtt=0.010), Path(rate=10e6, rtt=0.020))


@pytest.fixture(autouse=True)
def run_folder(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path / f"emt{os.getpid()}-run"))


@contextlib.contextmanager
def second_path_down(lab: Lab, policy: File) -> Iterator[None]:
    """Something that shows, instead of a policy: the joined path carries nothing."""
    namespace.ip(["mptcp", "endpoint", "change", lab.paths[1].b.address4, "backup"], netns=lab.b.netns)
    try:
        yield
    finally:
        namespace.ip(["mptcp", "endpoint", "change", lab.paths[1].b.address4, "nobackup"], netns=lab.b.netns)


def compared(point: Point, rounds: int = 1) -> dict[str, list[float]]:
    use_case = replace(USE_CASES["overflow"], against=(KERNEL, BACKUP, TCP))
    plan = Plan((point,), rounds, 3.0)
    ((link, found),) = comparison.compare(use_case, plan, second_path_down, "auto", lambda line: None)
    assert link in ("relay", "netem")
    assert set(found.values) == {KERNEL, BACKUP, TCP, OURS}
    return found.values


def test_each_setting_is_what_it_says() -> None:
    (both,), (backup,), (tcp,), (ours,) = compared(Point("all", PATHS, GOODPUT)).values()
    assert both > 24
    for alone in (backup, tcp, ours):
        assert 15 < alone < 20.5


def test_files_are_timed_from_the_first_syn_to_the_last_byte() -> None:
    found = compared(Point("files", (PATHS[0],) * 2, COMPLETION, Traffic(size=250_000)))
    # 250 kB of 20 Mbit/s take 100 ms, and slow start and connecting some round trips of 10 ms.
    for (milliseconds,) in found.values():
        assert 60 < milliseconds < 1000


def test_a_rate_is_kept_and_a_hundred_connections_are_all_read() -> None:
    with two_hosts(PATHS, name=f"l{os.getpid()}") as lab:
        with Load(lab, Traffic(rate=4e6), mptcp=True) as load:
            slow = load.run(1.0, 3.0)
        assert slow.mbit == pytest.approx(4, rel=0.1)
        assert sum(slow.by_path.values()) * 8e-6 / 3 == pytest.approx(4, rel=0.15)
        with Load(lab, Traffic(connections=30), mptcp=True) as load:
            many = load.run(1.0, 3.0)
        assert 20 < many.mbit < 30


def test_overflow_spares_the_costly_path(capfd: pytest.CaptureFixture[str]) -> None:
    """The smallest grid with the scheduler itself."""
    from emptcp.cli import main

    assert main.main(["lab", "run", "overflow", "--quick", "--json", "--no-picture"]) == 0
    import json

    answer = json.loads(capfd.readouterr().out)
    against = {case["against"]: case for case in answer["cases"]}
    assert against[KERNEL]["with"]["median"] > 95
    assert against[KERNEL]["baseline"]["median"] < 95
    assert against[KERNEL]["ratio"]["median"] > 1
    assert against[BACKUP]["ratio"]["median"] == pytest.approx(1, abs=0.05)
