# SPDX-License-Identifier: Apache-2.0
"""Use cases over real sockets: every setting is what it says, and what it measures can be wrong."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path as File

import pytest

from emptcp.cli import main
from emptcp.lab import comparison, namespace, steering, tenants
from emptcp.lab.comparison import OURS, Plan
from emptcp.lab.grid import BACKUP, COMPLETION, DISJOINT, GOODPUT, KERNEL, TCP, USE_CASES, Point, Traffic
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
    use_case = replace(USE_CASES["overflow"], against=(KERNEL, BACKUP, DISJOINT, TCP))
    plan = Plan((point,), rounds, 3.0)
    ((link, found),) = comparison.compare(use_case, plan, second_path_down, "auto", lambda line: None)
    assert link in ("relay", "netem")
    assert set(found.values) == {KERNEL, BACKUP, DISJOINT, TCP, OURS}
    return found.values


def test_each_setting_is_what_it_says() -> None:
    both, *others = (value for (value,) in compared(Point("all", PATHS, GOODPUT)).values())
    assert both > 24
    for alone in others:
        assert 15 < alone < 20.5


def test_files_are_timed_from_the_first_syn_to_the_last_byte() -> None:
    found = compared(Point("files", (PATHS[0],) * 2, COMPLETION, Traffic(size=250_000)))
    # 250 kB of 20 Mbit/s take 100 ms, and slow start and connecting some round trips of 10 ms.
    for (milliseconds,) in found.values():
        assert 60 < milliseconds < 1000


def test_a_rate_is_kept_and_a_hundred_connections_are_all_read() -> None:
    with two_hosts(PATHS, name=f"l{os.getpid()}") as lab:
        with Load(lab, Traffic(rate=4e6), subflows=2) as load:
            slow = load.run(1.0, 3.0)
        assert slow.mbit == pytest.approx(4, rel=0.1)
        assert sum(slow.by_path.values()) * 8e-6 / 3 == pytest.approx(4, rel=0.15)
        with Load(lab, Traffic(connections=30), subflows=2) as load:
            many = load.run(1.0, 3.0)
        assert 20 < many.mbit < 30


def test_paths_of_one_link_carry_no_more_than_it_does() -> None:
    shared = tuple(Path(rate=20e6, rtt=rtt, link="shared") for rtt in (0.01, 0.02))
    with two_hosts((*shared, PATHS[1]), name=f"l{os.getpid()}") as lab:
        with Load(lab, Traffic(), subflows=3) as load:
            found = load.run(2.0, 3.0)
        one, two, other = (found.by_path[path.name] * 8e-6 / 3 for path in lab.paths)
    assert 15 < one + two < 20.5
    assert other > 7
    assert min(one, two) > 0


def test_overflow_spares_the_costly_path(capfd: pytest.CaptureFixture[str]) -> None:
    """The smallest grid with the scheduler itself."""
    assert main.main(["lab", "run", "overflow", "--quick", "--json", "--no-picture"]) == 0
    answer = json.loads(capfd.readouterr().out)
    against = {case["against"]: case for case in answer["cases"]}
    assert against[KERNEL]["with"]["median"] > 95
    assert against[KERNEL]["baseline"]["median"] < 95
    assert against[KERNEL]["ratio"]["median"] > 1
    assert against[BACKUP]["ratio"]["median"] == pytest.approx(1, abs=0.05)


def test_a_redundant_path_of_the_grid_carries_nothing_with_the_path_manager() -> None:
    use_case = USE_CASES["shared-bottleneck"]
    with two_hosts(use_case.quick.paths, name=f"l{os.getpid()}") as lab:
        with steering.controlled(lab, use_case.policy), Load(lab, Traffic(), subflows=1) as load:
            with_emptcp = load.run(4.0, 3.0).by_path
        with Load(lab, Traffic(), subflows=3) as load:
            without = load.run(2.0, 2.0).by_path
    assert with_emptcp.get("path2", 0) == 0, with_emptcp
    assert min(with_emptcp["path1"], with_emptcp["path3"]) > 0, with_emptcp
    assert min(without.values()) > 0, without


def test_what_a_hash_can_choose_is_laid_and_measured_and_background_takes_its_part() -> None:
    links = (Path(rate=20e6, rtt=0),) * 2
    point = Point("two", links, GOODPUT, background=16e6)
    with tenants.guest(point, f"l{os.getpid()}") as guest:
        said: list[str] = []
        mean = guest.mean_of_outcomes(1.0, 2.0, said.append)
        loaded, both, free = (float(line.split()[-2]) for line in said)
    assert loaded < 8
    assert 15 < free < 20
    assert free < both < 25
    assert mean == pytest.approx((loaded + 2 * both + free) / 4, abs=0.02)


def test_a_guest_s_subflows_are_spread_off_the_busiest_link() -> None:
    """Of three links others use the first one, by which a hash sent both subflows; two are free."""
    use_case = USE_CASES["multi-tenant"]
    point = next(one for one in use_case.points if one.background and len(one.paths) == 3)
    with tenants.guest(point, f"l{os.getpid()}") as guest:
        guest.lay(guest.worst)
        without = guest.goodput(1.0, 2.0)
        with steering.controlled(guest.lab, use_case.policy_of(point)):
            spread = guest.goodput(4.0, 3.0)
    assert without < 8
    assert spread > 30
