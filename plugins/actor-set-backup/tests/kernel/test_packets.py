# SPDX-License-Identifier: Apache-2.0
"""What set_backup does to single packets, on both back-ends."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest

from emptcp.packet.build import build
from emptcp.packet.decode import Decoded, decode
from emptcp.packet.mptcp import Dss, MpCapable, MpJoinAck, MpJoinSyn, MpJoinSynAck, MpPrio
from emptcp.packet.tcp import Nop, Option, Timestamps

pytestmark = pytest.mark.kernel

Policy = Callable[..., Any]

TIME = Timestamps(7, 9)
ACK = Dss(data_ack=1)
ONE_WAY = [Nop(), Nop(), TIME, Dss(data_ack=1, wide_ack=False, dsn=2, data_length=4), Nop(), Nop()]
TWO_WAY = [Nop(), Nop(), TIME, Dss(data_ack=1, dsn=2, data_length=4), Nop(), Nop()]
CHECKED = [Nop(), Nop(), TIME, Dss(data_ack=1, dsn=2, data_length=4, checksum=3)]
DATA = b"data"


def options(packet: Decoded) -> list[object]:
    assert packet.tcp is not None
    return [placed.option for placed in packet.tcp.options if not isinstance(placed.option, Nop)]


def run(runner: Any, packet: bytes, link: Any = "ethernet") -> Decoded:
    """Run one packet; what comes out must be a valid one."""
    result = runner.run(packet)
    out = decode(result.data, link)
    assert result.verdict == "pass"
    assert out.valid
    return out


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"family": 6},
        {"vlan": [7]},
        {"vlan": [7, 8], "family": 6},
        {"frame_length": 90},
        {"ip_options": b"\1\1\1\1"},
    ],
    ids=["ipv4", "ipv6", "vlan", "two tags", "padded", "ip options"],
)
def test_a_pure_ack_says_it_once(policy: Policy, shape: dict[str, Any]) -> None:
    runner = policy("set_backup(true)")
    packet = build(options=[TIME, ACK], **shape)
    assert options(run(runner, packet)) == [TIME, ACK, MpPrio(backup=True)]
    assert runner.run(packet).data == packet


def test_a_packet_without_ethernet_header_says_it_too(policy: Policy) -> None:
    runner = policy("set_backup(true)", link="none")
    packet = build(link="none", options=[TIME, ACK])
    assert options(run(runner, packet, "none"))[-1] == MpPrio(backup=True)


@pytest.mark.parametrize("block", [ONE_WAY, TWO_WAY], ids=["one-way", "two-way"])
def test_data_says_it_in_place_of_nops(policy: Policy, block: list[Option]) -> None:
    packet = build(options=block, payload=DATA)
    out = run(policy("set_backup(true)"), packet)
    wanted = [option for option in block if not isinstance(option, Nop)]
    assert options(out) == [*wanted, MpPrio(backup=True)]
    assert (out.payload, len(out.data)) == (DATA, len(packet))


def test_without_room_it_is_said_by_the_next_packet_that_has_some(policy: Policy) -> None:
    runner = policy("set_backup(true)")
    full = build(options=CHECKED, payload=DATA)
    result = runner.run(full)
    assert (result.data, result.reason) == (full, "no_space")
    assert options(run(runner, build(options=[TIME, ACK])))[-1] == MpPrio(backup=True)


@pytest.mark.parametrize(
    "packet",
    [
        build(flags="S", options=[MpCapable(flags=1)]),
        build(options=[TIME, MpCapable(flags=1, sender_key=1, receiver_key=2)]),
        build(options=[TIME, MpJoinAck(hmac=bytes(20))]),
        build(flags="FA", options=[TIME, ACK]),
        build(flags="R", options=[ACK]),
        build(options=[TIME]),
        build(options=[TIME, ACK], fragment=(0, True)),
    ],
    ids=["capable syn", "third ack", "join ack", "fin", "rst", "no mptcp", "fragment"],
)
def test_these_are_never_changed(policy: Policy, packet: bytes) -> None:
    assert policy("set_backup(true)").run(packet).data == packet


@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize("asked", [True, False])
def test_a_join_opens_the_subflow_as_wanted_and_nothing_more_is_said(
    policy: Policy, on: bool, asked: bool
) -> None:
    runner = policy(f"set_backup({on})")
    syn = MpJoinSyn(token=5, nonce=6, address_id=1, backup=asked)
    out = run(runner, build(flags="S", options=[syn]))
    assert options(out) == [MpJoinSyn(token=5, nonce=6, address_id=1, backup=on)]
    later = build(options=[TIME, ACK])
    assert runner.run(later).data == later


def test_a_join_without_a_backup_bit_is_left_alone(policy: Policy) -> None:
    packet = build(flags="SA", options=[MpJoinAck(bytes(20))])
    assert policy("set_backup(true)").run(packet).data == packet


def test_the_answer_to_a_join_steers_who_opened_it(policy: Policy) -> None:
    answer = MpJoinSynAck(hmac=bytes(8), nonce=6, address_id=1, backup=False)
    out = run(policy("set_backup(true)"), build(flags="SA", options=[answer]))
    assert options(out) == [MpJoinSynAck(hmac=bytes(8), nonce=6, address_id=1, backup=True)]


def test_what_the_end_itself_says_is_overruled(policy: Policy) -> None:
    runner = policy("set_backup(true)")
    theirs = build(options=[TIME, ACK, MpPrio(backup=False)])
    for _ in range(2):
        assert options(run(runner, theirs)) == [TIME, ACK, MpPrio(backup=True)]
    later = build(options=[TIME, ACK])
    assert runner.run(later).data == later


def test_a_merged_packet_would_say_it_often_and_leaves_it_to_a_single_one(policy: Policy) -> None:
    runner = policy("set_backup(true)", hook="egress")
    merged = bytearray(192)  # struct __sk_buff
    struct.pack_into("=I8xI", merged, 164, 2, 100)  # gso_segs, gso_size
    packet = build(options=TWO_WAY, payload=bytes(200))
    for _ in range(2):
        assert runner.run(packet, ctx=bytes(merged)).reason == "gso"
    assert options(run(runner, packet))[-1] == MpPrio(backup=True)


def test_what_a_passing_packet_has_said_the_injected_one_does_not_repeat(policy: Policy) -> None:
    runner = policy("set_backup(true)", hook="egress")
    injected = build(options=[MpPrio(backup=True)])
    assert options(run(runner, build(options=[TIME, ACK])))[-1] == MpPrio(backup=True)
    assert options(run(runner, injected)) == []


def test_what_the_injected_packet_has_said_none_repeats(policy: Policy) -> None:
    runner = policy("set_backup(true)", hook="egress")
    injected, later = build(options=[MpPrio(backup=True)]), build(options=[TIME, ACK])
    assert runner.run(injected).data == injected
    assert options(run(runner, injected)) == []
    assert runner.run(later).data == later


def test_an_injected_packet_that_data_overtook_is_moved_behind_it(policy: Policy) -> None:
    runner = policy("set_backup(true)", hook="egress")
    start = (1 << 32) - 2
    for seq in (start, start - 9):  # the second one is sent again
        runner.run(build(seq=seq, options=CHECKED, payload=DATA))
    out = run(runner, build(seq=start, options=[MpPrio(backup=True)]))
    assert out.tcp is not None
    assert (out.tcp.seq, options(out)) == (2, [MpPrio(backup=True)])


@pytest.mark.parametrize("rest", [{"payload": DATA}, {"flags": "FA"}], ids=["data", "fin"])
def test_only_a_pure_ack_is_taken_for_an_injected_one(policy: Policy, rest: dict[str, Any]) -> None:
    runner = policy("set_backup(true)", hook="egress")
    runner.run(build(seq=10, options=CHECKED, payload=DATA))
    out = run(runner, build(seq=5, options=[MpPrio(backup=True)], **rest))
    assert out.tcp is not None
    assert (out.tcp.seq, options(out)) == (5, [MpPrio(backup=True)])


def test_an_injected_packet_that_is_ahead_stays_there(policy: Policy) -> None:
    runner = policy("set_backup(true)", hook="egress")
    runner.run(build(seq=10, options=CHECKED, payload=DATA))
    ahead = build(seq=20, options=[MpPrio(backup=True)])
    assert runner.run(ahead).data == ahead


def test_each_end_is_told_for_itself(policy: Policy) -> None:
    runner = policy("set_backup(true)")
    there = build(src="10.0.0.1", dst="10.0.0.2", sport=1, dport=2, options=[TIME, ACK])
    back = build(src="10.0.0.2", dst="10.0.0.1", sport=2, dport=1, options=[TIME, ACK])
    for packet in (there, back):
        assert options(run(runner, packet))[-1] == MpPrio(backup=True)
        assert runner.run(packet).data == packet


def test_giving_back_a_subflow_that_was_never_backup_says_nothing(policy: Policy) -> None:
    runner = policy("set_backup(false)")
    runner.run(build(flags="S", options=[MpCapable(flags=1)]))
    later = build(options=[TIME, ACK])
    assert runner.run(later).data == later


@pytest.mark.parametrize(("hook", "steers"), [("ingress", "peer"), ("egress", "us")])
def test_a_hook_that_reaches_the_other_end_only_does_nothing(policy: Policy, hook: str, steers: str) -> None:
    packet = build(options=[TIME, ACK])
    assert policy(f"set_backup(steers='{steers}')", hook=hook).run(packet).data == packet
