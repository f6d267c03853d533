# SPDX-License-Identifier: Apache-2.0
"""rate_limit by pacing, on live connections between two hosts: new ones, old ones, changed, taken back."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from emptcp.chain import apply, pins
from emptcp.cli.main import main
from emptcp.hooks import namespaces
from emptcp.lab import traffic
from emptcp.lab.meter import Meter
from emptcp.lab.topology import Lab, two_hosts
from emptcp.policy import file
from emptcp.policy.model import Table

pytestmark = [pytest.mark.kernel, pytest.mark.traffic]

MBIT = 125_000

Settle = Callable[..., None]


def table(rate: str, extra: str = "mode=pacing") -> Table:
    return file.loads(
        f"""
        table = "limits"
        [[policy]]
        name = "second path"
        hook = "egress"
        dev = "path2"
        do = ["rate_limit(rate={rate}, {extra})"]
        """
    )


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with two_hosts(link="relay", name=f"t{os.getpid()}") as built:
        yield built


@pytest.fixture(autouse=True)
def own_emptcp(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path / f"emt{os.getpid()}-pace"))
    yield
    if apply.tables.names():
        apply.remove("limits")


@contextmanager
def stream(lab: Lab) -> Iterator[None]:
    sender = traffic.start(lab.a, lab.b, lab.paths[0].b.address(4))
    try:
        yield
    finally:
        sender.terminate()
        sender.wait(5)


def rates(lab: Lab, seconds: float) -> list[float]:
    """Return bytes per second of each path, in the paths' order."""
    with Meter(lab.a) as meter:
        before, began = by_path(lab, meter), time.monotonic()
        time.sleep(seconds)
        after, ended = by_path(lab, meter), time.monotonic()
    return [(new - old) / (ended - began) for old, new in zip(before, after, strict=True)]


def near(rate: float, share: float = 0.05) -> Any:
    """Return what equals this many Mbit/s."""
    return pytest.approx(rate * MBIT, rel=share)


def by_path(lab: Lab, meter: Meter) -> list[int]:
    found = meter.read()
    return [sum(one.acked for one in found if one.local == path.a.address(4)) for path in lab.paths]


@pytest.fixture
def running(lab: Lab) -> Iterator[list[float]]:
    """A connection that was there before any policy; gives the rates of its paths."""
    with stream(lab):
        time.sleep(1.5)
        yield [max(both) for both in zip(rates(lab, 1), rates(lab, 1), strict=True)]


def test_a_running_connection_is_paced_tuned_and_given_back(
    lab: Lab, running: list[float], settle: Settle
) -> None:
    for rate in (80, 40, 10):
        apply.apply(table(f"{rate}mbit"), lab.a.netns)
        settle(
            lambda: rates(lab, 1), lambda now, rate=rate: now[1] == near(rate) and now[0] > 0.95 * running[0]
        )
    apply.remove("limits")
    settle(lambda: rates(lab, 1), lambda now: now == pytest.approx(running, rel=0.1))


def test_a_low_rate_is_kept_and_does_not_hold_up_the_other_path(
    lab: Lab, running: list[float], settle: Settle
) -> None:
    """What was queued for the path would go out for ten seconds, and the receiver wait for it."""
    apply.apply(table("1mbit"), lab.a.netns)
    settle(lambda: rates(lab, 1), lambda now: now[1] == near(1) and now[0] > 0.9 * running[0])


def wanted(lab: Lab) -> list[int]:
    """Return SO_MAX_PACING_RATE of each subflow of the second path, in bytes per second."""
    said = lab.a.run(["ss", "-tinH", "src", lab.paths[1].a.address(4)]).stdout
    return [int(found) // 8 for found in re.findall(r"pacing_rate \d+bps/(\d+)bps", said)]


def test_a_changed_rate_is_the_sockets_when_the_command_returns(
    lab: Lab, running: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    apply.apply(table("10mbit"), lab.a.netns)
    assert wanted(lab) == [10 * MBIT]
    assert main(["tune", "second path", "rate_limit", "rate=20mbit"]) == 0
    assert wanted(lab) == [20 * MBIT]


def test_a_new_connection_is_paced_from_the_start(lab: Lab, settle: Settle) -> None:
    apply.apply(table("10mbit"), lab.a.netns)
    with stream(lab):
        settle(lambda: rates(lab, 1), lambda now: now[1] == near(10))


def test_by_itself_it_paces_what_this_host_sends(lab: Lab, running: list[float], settle: Settle) -> None:
    apply.apply(table("10mbit", "mode=auto"), lab.a.netns)
    settle(lambda: rates(lab, 1), lambda now: now[1] == near(10))


def test_with_the_last_table_the_companion_goes(lab: Lab) -> None:
    apply.apply(table("10mbit"), lab.a.netns)
    tree = pins.find()
    assert tree is not None
    cookie = namespaces.resolve(lab.a.netns).cookie
    (companion,) = tree.sockets(cookie).iterdir()
    assert sorted(path.name for path in companion.iterdir()) == ["events", "iterator"]
    apply.remove("limits")
    assert tree.with_sockets() == []


def test_a_companion_of_a_command_that_was_killed_is_replaced_and_goes_with_the_table(lab: Lab) -> None:
    apply.apply(table("10mbit"), lab.a.netns)
    tree = pins.find()
    assert tree is not None
    (companion,) = tree.sockets(namespaces.resolve(lab.a.netns).cookie).iterdir()
    (companion / "iterator").unlink()
    apply.apply(table("10mbit", "mode=pacing, burst=30ms"), lab.a.netns)
    assert sorted(path.name for path in companion.iterdir()) == ["events", "iterator"]
