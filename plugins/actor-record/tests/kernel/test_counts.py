# SPDX-License-Identifier: Apache-2.0
"""What record keeps of single packets, on both back-ends."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest

from emptcp.packet.build import build
from emptcp.packet.mptcp import Dss, MpCapable
from emptcp.packet.tcp import Timestamps
from emptcp_actor_record.tracks import What

pytestmark = pytest.mark.kernel

Policy = Callable[..., Any]
Told = Callable[..., Any]

EVERYTHING = ", ".join(repr(str(what.name).lower()) for what in What)

ACK = [Timestamps(7, 9), Dss(data_ack=1)]
LOW: dict[str, Any] = {"src": "10.0.0.1", "dst": "10.0.0.2", "sport": 1, "dport": 2}
HIGH: dict[str, Any] = {"src": "10.0.0.2", "dst": "10.0.0.1", "sport": 2, "dport": 1}


def test_packets_and_bytes_count_for_the_end_that_sent_them(policy: Policy, told: Told) -> None:
    runner = policy("record('packets', 'bytes')")
    runner.run(build(options=ACK, payload=bytes(100), **LOW))
    runner.run(build(options=ACK, **LOW))
    runner.run(build(options=ACK, **HIGH))
    size = 20 + 20 + 24
    assert told(runner) == [
        {
            "packets_0": 2,
            "packets_1": 1,
            "bytes_0": 2 * size + 100,
            "bytes_1": size,
        }
    ]


def test_what_is_not_asked_for_is_not_kept(policy: Policy, told: Told) -> None:
    runner = policy("record('bytes')")
    runner.run(build(options=ACK, **LOW))
    assert set(told(runner)[0]) == {"bytes_0"}


def test_link_padding_and_tags_are_no_bytes_of_the_packet(policy: Policy, told: Told) -> None:
    runner = policy("record('bytes')")
    runner.run(build(vlan=[7], options=ACK, frame_length=200, **LOW))
    assert told(runner) == [{"bytes_0": 20 + 20 + 24}]


def test_a_merged_packet_counts_as_what_goes_over_the_wire(policy: Policy, told: Told) -> None:
    runner = policy("record('packets', 'bytes')", hook="egress")
    merged = bytearray(192)  # struct __sk_buff
    struct.pack_into("=I8xI", merged, 164, 3, 100)  # gso_segs, gso_size
    runner.run(build(options=ACK, payload=bytes(300), **LOW), ctx=bytes(merged))
    assert told(runner) == [{"packets_0": 3, "bytes_0": 3 * 64 + 300}]


def test_a_new_connection_begins_at_zero(policy: Policy, told: Told) -> None:
    runner = policy("record('packets')")
    for _ in range(3):
        runner.run(build(options=ACK, **LOW))
    runner.run(build(flags="S", options=[MpCapable()], **LOW))
    assert told(runner) == [{"packets_0": 1}]


def test_packets_pass_as_they_are(policy: Policy) -> None:
    runner = policy(f"record({EVERYTHING})")
    packet = build(options=ACK, payload=bytes(range(256)))
    result = runner.run(packet)
    assert (result.verdict, result.data) == ("pass", packet)


def test_of_a_connection_it_is_the_sum_of_its_subflows(policy: Policy, told: Told) -> None:
    runner = policy("record('packets', 'bytes')")
    runner.run(build(options=ACK, payload=bytes(10), **LOW))
    runner.run(build(options=ACK, **{**HIGH, "src": "10.9.0.2"}))
    one, other = told(runner)
    # The second subflow's ends are the other way round.
    (whole,) = told(runner, (7, 8), (8, 7))
    assert whole == {
        "packets_0": one["packets_0"] + other["packets_1"],
        "bytes_0": one["bytes_0"] + other["bytes_1"],
    }
