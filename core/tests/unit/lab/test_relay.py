# SPDX-License-Identifier: Apache-2.0
"""One direction of a path, without devices: what it does to frames is arithmetic."""

from __future__ import annotations

import itertools
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emptcp.lab.relay import Direction, Sleep, Transmitter

MILLISECOND = 1_000_000
ARRIVALS = st.lists(st.tuples(st.integers(0, 400_000), st.integers(60, 1514)), min_size=1, max_size=200)


def direction(rate: float = 100e6, delay: float = 0.010, queue: int = 100_000) -> Direction:
    return Direction(-1, -1, rate=rate, delay=delay, queue=queue)


def test_a_lone_frame_arrives_after_its_time_on_the_wire_and_the_delay() -> None:
    link = direction()
    link.take(bytes(1250), 1_000)
    assert link.on_the_way[0][0] == pytest.approx(1_000 + 0.1 * MILLISECOND + 10 * MILLISECOND)


def test_frames_that_come_at_once_leave_at_the_rate() -> None:
    link = direction()
    for _ in range(10):
        link.take(bytes(1250), 0)
    due = [at for at, _ in link.on_the_way]
    assert [later - at for at, later in itertools.pairwise(due)] == pytest.approx([100_000] * 9)


def test_a_full_queue_drops_what_comes_last() -> None:
    link = direction(queue=12_500)
    for number in range(20):
        link.take(bytes([number]) * 1250, 0)
    # Ten wait, and the one that finds exactly a full queue before it still goes.
    assert [frame[0] for _, frame in link.on_the_way] == list(range(11))
    assert link.dropped == 9
    link.take(bytes(1250), MILLISECOND)
    assert link.dropped == 9


def test_paths_of_one_link_share_its_rate_and_its_queue() -> None:
    shared = Transmitter()
    shape = {"rate": 100e6, "queue": 12_500, "transmitter": shared}
    near, far = Direction(-1, -1, delay=0.010, **shape), Direction(-1, -1, delay=0.050, **shape)
    for _ in range(10):
        near.take(bytes(1250), 0)
        far.take(bytes(1250), 0)
    # Eleven fit: one on the wire and ten that wait, whichever way they go.
    assert len(near.on_the_way) + len(far.on_the_way) == 11
    assert near.dropped + far.dropped == 9
    due = [at for at, _ in near.on_the_way]
    assert [later - at for at, later in itertools.pairwise(due)] == pytest.approx([200_000] * 5)


@given(arrivals=ARRIVALS, rate=st.sampled_from([1e6, 100e6, 1e9]), queue=st.integers(0, 50_000))
def test_order_rate_delay_and_queue_hold_for_any_arrivals(
    arrivals: list[tuple[int, int]], rate: float, queue: int
) -> None:
    link = direction(rate=rate, delay=0.005, queue=queue)
    now, before = 0, 0.0
    for gap, size in arrivals:
        now += gap
        dropped = link.dropped
        link.take(bytes(size), now)
        if link.dropped > dropped:
            assert before - now > queue * 8e9 / rate
            continue
        leaves = link.on_the_way[-1][0] - 5 * MILLISECOND
        assert leaves == pytest.approx(max(now, before) + size * 8e9 / rate)
        before = leaves
    assert len(link.on_the_way) + link.dropped == len(arrivals)


def test_what_is_due_is_written_and_the_next_moment_told() -> None:
    source, sink = os.pipe()
    link = Direction(source, sink, rate=8e9, delay=0.001, queue=10_000)
    link.take(b"first", 0)
    link.take(b"second", MILLISECOND)
    assert link.write(0) == pytest.approx(1_000_005)
    assert link.write(1_000_005) == pytest.approx(2_000_006)
    assert os.read(source, 100) == b"first"
    assert link.write(3_000_000) is None
    assert os.read(source, 100) == b"second"


def test_a_frame_that_waits_is_told_with_when_it_came() -> None:
    source, sink = os.pipe()
    os.write(sink, b"x")
    before = time.monotonic_ns()
    ready, came = Sleep([source]).until(None)
    assert ready == [source]
    assert before <= came <= time.monotonic_ns()


def test_a_sleeper_learns_how_late_it_wakes_and_then_wakes_on_time() -> None:
    sleep = Sleep([])
    late = []
    for _ in range(100):
        due = time.monotonic_ns() + 2 * MILLISECOND
        sleep.until(due)
        late.append(sleep.woken - due)
    learnt = sorted(late[50:])[25]
    assert 0 < sleep.late <= 250_000
    assert abs(learnt) < 250_000
