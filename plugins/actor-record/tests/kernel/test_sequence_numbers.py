# SPDX-License-Identifier: Apache-2.0
"""What record tells by sequence numbers, packet by packet: size, retransmissions, reordering."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from emptcp.packet.build import build
from emptcp.packet.mptcp import Dss, MpJoinSyn
from emptcp.packet.tcp import Nop, Timestamps

pytestmark = pytest.mark.kernel

Policy = Callable[..., Any]
Told = Callable[..., Any]

BY_SEQUENCE = "record('retransmissions', 'reordering', 'size')"
BASE = (1 << 32) - 300  # the numbers go around soon
WHOLE = (1 << 32) - 1


def data(at: int, size: int = 100, stamp: int | None = 1, **rest: Any) -> bytes:
    """A packet with ``size`` bytes from ``at`` bytes behind ``BASE`` on."""
    options = [*([] if stamp is None else [Timestamps(stamp, 9)]), Dss(data_ack=1)]
    return build(options=rest.pop("options", options), seq=BASE + at & WHOLE, payload=bytes(size), **rest)


def run(runner: Any, *packets: bytes) -> None:
    for packet in packets:
        result = runner.run(packet)
        assert (result.verdict, result.data) == ("pass", packet)


def numbers(size: int, retransmitted: int = 0, reordered: int = 0, extent: int = 0) -> dict[str, float]:
    return {
        "size_0": size,
        "retransmitted_0": retransmitted,
        "reordered_0": reordered,
        "reordering_extent_0": extent,
    }


V6 = {"family": 6}
SHAPES: list[dict[str, Any]] = [{}, V6, {"vlan": [7]}, {"vlan": [7, 8], **V6}, {"ip_options": b"\1\1\1\1"}]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_what_comes_in_order_is_size_alone_also_where_numbers_go_around(
    policy: Policy, told: Told, shape: Any
) -> None:
    runner = policy(BY_SEQUENCE)
    run(runner, *(data(at, stamp=at // 100, **shape) for at in range(0, 1000, 100)))
    assert told(runner) == [numbers(1000)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_what_was_seen_before_was_sent_again(policy: Policy, told: Told, shape: Any) -> None:
    runner = policy(BY_SEQUENCE)
    run(runner, data(0, **shape), data(100, **shape), data(0, **shape), data(100, stamp=2, **shape))
    assert told(runner) == [numbers(200, retransmitted=2)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_what_was_sent_before_the_packet_that_overtook_it_is_reordered(
    policy: Policy, told: Told, shape: Any
) -> None:
    runner = policy(BY_SEQUENCE)
    run(runner, data(0, **shape), data(300, stamp=5, **shape), data(100, stamp=4, **shape))
    assert told(runner) == [numbers(400, reordered=1, extent=300)]
    run(runner, data(200, stamp=5, **shape))
    assert told(runner) == [numbers(400, reordered=2, extent=300)]


def test_what_fills_a_hole_with_a_later_timestamp_was_sent_again(policy: Policy, told: Told) -> None:
    runner = policy(BY_SEQUENCE)
    run(runner, data(0), data(200, stamp=5), data(300, stamp=9), data(100, stamp=6))
    assert told(runner) == [numbers(400, retransmitted=1)]


def test_timestamps_go_around_too(policy: Policy, told: Told) -> None:
    runner = policy(BY_SEQUENCE)
    run(runner, data(0, stamp=WHOLE), data(200, stamp=WHOLE), data(100, stamp=1))
    assert told(runner) == [numbers(300, retransmitted=1)]


def test_without_timestamps_time_tells(policy: Policy, told: Told) -> None:
    runner = policy(BY_SEQUENCE)
    run(runner, data(0, stamp=None), data(200, stamp=None))
    time.sleep(0.004)
    run(runner, data(100, stamp=None))
    assert told(runner) == [numbers(300, retransmitted=1)]


def test_without_timestamps_what_comes_at_once_is_reordered(policy: Policy, told: Told) -> None:
    runner = policy(BY_SEQUENCE)
    # A subflow whose last two packets the machine took within the time that is meant.
    for port in range(1, 100):
        first, *late = (data(at, stamp=None, sport=port) for at in (0, 200, 100))
        run(runner, first)
        began = time.monotonic()
        run(runner, *late)
        if time.monotonic() - began < 0.003:
            assert numbers(300, reordered=1, extent=200) in told(runner)
            return
    pytest.fail("two packets never passed within 3 ms")


def test_a_merged_packet_counts_as_what_goes_over_the_wire(policy: Policy, told: Told) -> None:
    merged = bytearray(192)  # struct __sk_buff
    struct.pack_into("=I8xI", merged, 164, 3, 100)  # gso_segs, gso_size
    runner = policy(BY_SEQUENCE, hook="egress")
    for _ in range(2):
        runner.run(data(0, 300), ctx=bytes(merged))
    assert told(runner) == [numbers(300, retransmitted=3)]


@pytest.mark.parametrize("block", [[Nop()] * 30, [Timestamps(1, 2), Dss(data_ack=1, dsn=2), Nop()]], ids=str)
def test_what_the_options_look_like_does_not_matter(policy: Policy, told: Told, block: Any) -> None:
    runner = policy(BY_SEQUENCE, when="packet_type('dss', 'no_mptcp')")
    run(runner, data(0), data(0, options=block))
    assert told(runner) == [numbers(100, retransmitted=1)]


def test_directions_are_apart(policy: Policy, told: Told) -> None:
    runner = policy(BY_SEQUENCE)
    back = {"src": "10.0.0.2", "dst": "10.0.0.1", "sport": 5001, "dport": 40000}
    run(runner, data(0), data(0, 50, **back), data(0), data(100))
    found = told(runner)[0]
    assert (found["size_0"], found["size_1"]) == (200, 50)
    assert (found["retransmitted_0"], found["retransmitted_1"]) == (1, 0)


def test_the_size_counts_from_the_syn(policy: Policy, told: Told) -> None:
    runner = policy(BY_SEQUENCE)
    run(runner, build(flags="S", seq=BASE - 1, options=[MpJoinSyn(0, 1, 2, 3)]), data(100))
    assert told(runner) == [numbers(200)]


def test_a_new_connection_begins_at_zero(policy: Policy, told: Told) -> None:
    runner = policy(BY_SEQUENCE)
    run(runner, data(0), data(0), build(flags="S", seq=77, options=[MpJoinSyn(0, 1, 2, 3)]))
    assert told(runner) == [numbers(0)]


def test_what_has_no_data_counts_nothing(policy: Policy, told: Told) -> None:
    runner = policy(BY_SEQUENCE)
    run(runner, data(0), data(100, 0), data(-50, 0), data(100, 0, flags="FA"), data(500, flags="RA"))
    assert told(runner) == [numbers(100)]


def test_what_no_window_reaches_is_not_of_this_subflow(policy: Policy, told: Told) -> None:
    runner = policy(BY_SEQUENCE)
    run(runner, data(0), data(100 + (1 << 30)), data(100 - (1 << 30)))
    assert told(runner) == [numbers(100)]


def test_of_more_holes_than_are_kept_the_oldest_is_forgotten(policy: Policy, told: Told) -> None:
    runner = policy(BY_SEQUENCE)
    run(runner, data(0, 10), *(data(at, 10) for at in range(20, 200, 20)))
    assert told(runner) == [numbers(190)]
    run(runner, *(data(at, 10) for at in range(10, 190, 20)))
    found = told(runner)[0]
    assert (found["retransmitted_0"], found["reordered_0"]) == (1, 8)


def test_a_packet_that_passes_two_stages_was_not_sent_again(policy: Policy, told: Told) -> None:
    runner = policy("record('size')", "record('retransmissions')")
    run(runner, data(0), data(100), data(0))
    assert told(runner) == [{"size_0": 200, "retransmitted_0": 1}]


class Model:
    """Every byte by its number: what is behind all that was seen, and the holes with their timestamps."""

    def __init__(self) -> None:
        self.end = 0
        self.holes: dict[int, int] = {}
        self.told = numbers(0)

    def see(self, start: int, size: int, stamp: int) -> None:
        end = self.end
        self.holes |= dict.fromkeys(range(end, start), stamp)
        if start < end:
            left = {self.holes.pop(byte) for byte in range(start, start + size) if byte in self.holes}
            if not left or stamp > min(left):
                self.told["retransmitted_0"] += 1
            else:
                self.told["reordered_0"] += 1
                self.told["reordering_extent_0"] = max(self.told["reordering_extent_0"], end - start)
        self.end = max(end, start + size)
        self.told["size_0"] += self.end - end

    def count(self) -> int:
        """How many holes there are: none lies beside another."""
        return sum(byte - 1 not in self.holes for byte in self.holes)


@pytest.fixture
def runner(policy: Policy) -> Any:
    """One for all examples: each of them is a connection of its own, with the same ends."""
    return policy(BY_SEQUENCE)


SEGMENTS = st.tuples(st.integers(0, 500), st.integers(1, 60), st.integers(0, 5))


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(segments=st.lists(SEGMENTS, min_size=1, max_size=30), family=st.sampled_from([4, 6]))
def test_it_tells_what_the_model_tells(
    runner: Any, told: Told, segments: list[tuple[int, int, int]], family: int
) -> None:
    model = Model()
    runner.run(build(flags="S", seq=BASE - 1, options=[MpJoinSyn(0, 1, 2, 3)], family=family))
    for start, size, stamp in segments:
        model.see(start, size, stamp)
        assume(model.count() <= 8)
        runner.run(data(start, size, stamp, family=family))
        assert told(runner)[0 if family == 4 else -1] == model.told
