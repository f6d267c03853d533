# SPDX-License-Identifier: Apache-2.0
"""What record keeps of single packets, on both back-ends."""

from __future__ import annotations

import struct
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Any

import pytest

from emptcp.api import FlowEntry
from emptcp.chain import flows
from emptcp.packet.build import build
from emptcp.packet.mptcp import Dss, MpCapable
from emptcp.packet.tcp import Timestamps
from emptcp_actor_record.hooks import emptcp_metrics

pytestmark = pytest.mark.kernel

Trial = Callable[..., Any]

SIZE = 80  # struct record_state

ACK = [Timestamps(7, 9), Dss(data_ack=1)]
LOW: dict[str, Any] = {"src": "10.0.0.1", "dst": "10.0.0.2", "sport": 1, "dport": 2}
HIGH: dict[str, Any] = {"src": "10.0.0.2", "dst": "10.0.0.1", "sport": 2, "dport": 1}


def metrics(policy: Any) -> dict[str, float]:
    """What the plugin tells of the subflow between ``LOW`` and ``HIGH``."""
    ends = [(IPv4Address(one["src"]), one["sport"]) for one in (LOW, HIGH)]
    state = flows.States(policy.shared.flows(), policy.states["record"], SIZE).get(*ends)
    assert state is not None
    (found,) = emptcp_metrics([FlowEntry((ends[0], ends[1]), since=0, state={"record": state})])
    return dict(found)


def test_packets_and_bytes_count_for_the_end_that_sent_them(trial: Trial) -> None:
    policy = trial("record('packets', 'bytes')")
    policy.run(build(options=ACK, payload=bytes(100), **LOW))
    policy.run(build(options=ACK, **LOW))
    policy.run(build(options=ACK, **HIGH))
    size = 20 + 20 + 24
    assert metrics(policy) == {
        "packets_0": 2,
        "packets_1": 1,
        "bytes_0": 2 * size + 100,
        "bytes_1": size,
    }


def test_what_is_not_asked_for_is_not_kept(trial: Trial) -> None:
    policy = trial("record('bytes')")
    policy.run(build(options=ACK, **LOW))
    assert set(metrics(policy)) == {"bytes_0"}


def test_link_padding_and_tags_are_no_bytes_of_the_packet(trial: Trial) -> None:
    policy = trial("record('bytes')")
    policy.run(build(vlan=[7], options=ACK, frame_length=200, **LOW))
    assert metrics(policy) == {"bytes_0": 20 + 20 + 24}


def test_a_merged_packet_counts_as_what_goes_over_the_wire(trial: Trial) -> None:
    policy = trial("record('packets', 'bytes')", hook="egress")
    merged = bytearray(192)  # struct __sk_buff
    struct.pack_into("=I8xI", merged, 164, 3, 100)  # gso_segs, gso_size
    policy.run(build(options=ACK, payload=bytes(300), **LOW), ctx=bytes(merged))
    assert metrics(policy) == {"packets_0": 3, "bytes_0": 3 * 64 + 300}


def test_a_new_connection_begins_at_zero(trial: Trial) -> None:
    policy = trial("record('packets')")
    for _ in range(3):
        policy.run(build(options=ACK, **LOW))
    policy.run(build(flags="S", options=[MpCapable()], **LOW))
    assert metrics(policy) == {"packets_0": 1}


def test_packets_pass_as_they_are(trial: Trial) -> None:
    policy = trial("record('packets', 'bytes', 'rtt')")
    packet = build(options=ACK, payload=bytes(range(256)))
    result = policy.run(packet)
    assert (result.verdict, result.data) == ("pass", packet)
