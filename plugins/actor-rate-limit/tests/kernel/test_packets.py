# SPDX-License-Identifier: Apache-2.0
"""rate_limit by police and mark, packet by packet, on both back-ends and against a model of its own."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emptcp.packet.build import build
from emptcp.packet.decode import decode
from emptcp.packet.mptcp import Dss, MpJoinSyn
from emptcp.packet.tcp import Nop, Timestamps

pytestmark = pytest.mark.kernel

Policy = Callable[..., Any]

OPTIONS = [Dss(data_ack=1, dsn=2, data_length=4)]
HEADERS = 20 + 20 + 24
DATA = bytes(1000)
# Nothing that was let through is sent again within a test: a byte takes a millisecond.
SLOW = "rate=8kbit, burst=1ms"


def packet(payload: bytes = DATA, **rest: Any) -> bytes:
    return build(options=OPTIONS, payload=payload, **rest)


def back(**rest: Any) -> bytes:
    return packet(src="10.0.0.2", sport=5001, dst="10.0.0.1", dport=40000, **rest)


def verdicts(runner: Any, *packets: bytes) -> list[str]:
    return [runner.run(one).verdict for one in packets]


def test_what_is_too_much_is_dropped(policy: Policy) -> None:
    runner = policy(f"rate_limit({SLOW}, mode=police)")
    assert verdicts(runner, packet(), packet(), packet()) == ["pass", "drop", "drop"]


@pytest.mark.parametrize(
    "shape", [{"family": 6}, {"vlan": [7]}, {"vlan": [7, 8]}, {"ip_options": b"\1\1\1\1"}]
)
def test_it_is_the_same_whatever_the_packet_lies_in(policy: Policy, shape: dict[str, Any]) -> None:
    runner = policy(f"rate_limit({SLOW}, mode=police)")
    assert verdicts(runner, packet(**shape), packet(**shape)) == ["pass", "drop"]


def test_what_has_no_payload_always_passes(policy: Policy) -> None:
    runner = policy(f"rate_limit({SLOW}, mode=police)")
    assert verdicts(runner, packet(), packet(b""), packet(b"", flags="FA"), packet()) == [
        "pass", "pass", "pass", "drop",
    ]  # fmt: skip
    assert verdicts(runner, build(flags="S", options=[MpJoinSyn(0, 1, 2, 3)])) == ["pass"]


def test_each_direction_of_a_subflow_has_its_own_rate(policy: Policy) -> None:
    runner = policy(f"rate_limit({SLOW}, mode=police)")
    assert verdicts(runner, packet(), back(), packet(), back()) == ["pass", "pass", "drop", "drop"]


def test_each_subflow_has_its_own_rate(policy: Policy) -> None:
    runner = policy(f"rate_limit({SLOW}, mode=police)")
    assert verdicts(runner, packet(), packet(sport=40001), packet(sport=40001)) == ["pass", "pass", "drop"]


@pytest.mark.parametrize("per", ["policy", "dev"])
def test_subflows_share_the_rate_of_a_policy_and_of_a_device(policy: Policy, per: str) -> None:
    runner = policy(f"rate_limit({SLOW}, mode=police, per={per})")
    assert verdicts(runner, packet(), packet(sport=40001), back()) == ["pass", "drop", "drop"]


def test_two_stages_of_one_policy_have_their_own_rates(policy: Policy) -> None:
    one = f"rate_limit({SLOW}, mode=police, per=policy)"
    runner = policy("rate_limit(rate=1gbit, mode=police, per=policy)", one)
    assert verdicts(runner, packet(), packet()) == ["pass", "drop"]


def test_a_new_connection_begins_with_the_whole_burst(policy: Policy) -> None:
    # The SYN itself takes half of it.
    runner = policy("rate_limit(rate=8kbit, burst=100ms, mode=police)")
    assert verdicts(runner, packet(), packet()) == ["pass", "drop"]
    runner.run(build(flags="S", options=[MpJoinSyn(0, 1, 2, 3)]))
    assert verdicts(runner, packet()) == ["pass"]


@pytest.mark.parametrize("ecn", [1, 2, 3])
@pytest.mark.parametrize("shape", [{}, {"family": 6}, {"vlan": [7]}, {"tos": 0xB8}], ids=str)
def test_a_sender_that_knows_ecn_is_told_instead(policy: Policy, shape: dict[str, Any], ecn: int) -> None:
    runner = policy(f"rate_limit({SLOW}, mode=mark)")
    tos = shape.get("tos", 0)
    sent = packet(**shape | {"tos": tos | ecn})
    first, second = runner.run(sent), runner.run(sent)
    assert (first.verdict, first.data) == ("pass", sent)
    assert (second.verdict, second.data) == ("pass", packet(**shape | {"tos": tos | 3}))
    assert decode(second.data).valid


def test_a_sender_that_does_not_is_policed(policy: Policy) -> None:
    runner = policy(f"rate_limit({SLOW}, mode=mark)")
    assert verdicts(runner, packet(tos=0xB8), packet(tos=0xB8)) == ["pass", "drop"]


def test_a_mark_of_a_packet_with_a_wrong_checksum_leaves_it_wrong(policy: Policy) -> None:
    runner = policy(f"rate_limit({SLOW}, mode=mark)")
    sent = packet(tos=1, checksum=0x1234)
    runner.run(sent)
    assert runner.run(sent).data == packet(tos=3, checksum=0x1234)


def test_a_merged_packet_costs_what_goes_over_the_wire(policy: Policy) -> None:
    merged = bytearray(192)  # struct __sk_buff
    struct.pack_into("=I8xI", merged, 164, 3, 100)  # gso_segs, gso_size
    # A byte takes a millisecond: room for the merged packet's three headers and half of another one's.
    burst = 3 * HEADERS + len(DATA) + HEADERS // 2
    runner = policy(f"rate_limit(rate=8kbit, burst={burst}ms, mode=police)", hook="egress")
    assert runner.run(packet(), ctx=bytes(merged)).verdict == "pass"
    assert verdicts(runner, packet(b"x"), packet(b"x")) == ["pass", "drop"]


def test_packets_that_are_not_ours_to_pace_are_left_and_counted(policy: Policy) -> None:
    runner = policy("rate_limit(rate=10mbit, mode=pacing)")
    result = runner.run(packet())
    assert (result.verdict, result.data, result.reason) == ("pass", packet(), "refused")


def test_by_itself_it_polices_what_passes_through(policy: Policy) -> None:
    assert verdicts(policy(f"rate_limit({SLOW})"), packet(), packet()) == ["pass", "drop"]


FULL = [Timestamps(1, 2), *OPTIONS, Nop(), Nop()]


@pytest.mark.parametrize("block", [[Nop()] * 40, FULL], ids=["nops", "full"])
def test_whatever_passes_is_as_it_was(policy: Policy, block: list[Any]) -> None:
    runner = policy("rate_limit(rate=1gbit, mode=police)", when="packet_type('dss', 'no_mptcp')")
    sent = build(options=block, payload=bytes(range(256)) * 2)
    result = runner.run(sent)
    assert (result.verdict, result.data) == ("pass", sent)


class Bucket:
    """What may pass while no time passes: bytes, as long as those before took less than the burst."""

    def __init__(self, rate: int, burst: float) -> None:
        self.rate, self.burst, self.ahead = rate, burst, 0.0

    def margin(self) -> float:
        """Seconds by which the next packet is early enough; below zero it is too much."""
        return self.burst - self.ahead

    def take(self, size: int) -> bool:
        if self.margin() < 0:
            return False
        self.ahead += size / self.rate
        return True


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    burst=st.sampled_from([0.1, 1.0, 10.0]),
    packets=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1400)), max_size=30),
)
def test_it_does_what_the_model_does(policy: Policy, burst: float, packets: list[tuple[int, int]]) -> None:
    rate = 1000
    runner = policy(f"rate_limit(rate=8kbit, burst={int(burst * 1000)}ms, mode=police)")
    buckets: dict[int, Bucket] = {}
    for subflow, size in packets:
        bucket = buckets.setdefault(subflow, Bucket(rate, burst))
        if abs(bucket.margin()) < 0.05:  # it would depend on how long the test takes
            break
        wanted = bucket.take(HEADERS + size) or not size
        assert verdicts(runner, packet(bytes(size), sport=40000 + subflow)) == ["pass" if wanted else "drop"]
    runner.close()
