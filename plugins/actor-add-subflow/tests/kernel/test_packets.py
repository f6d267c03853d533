# SPDX-License-Identifier: Apache-2.0
"""What add_subflow does to single packets, on both engines: each stored address rides once, where it fits."""

from __future__ import annotations

import struct
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emptcp.packet.build import build
from emptcp.packet.decode import Decoded, decode
from emptcp.packet.mptcp import AddAddress, Dss, MpCapable, MpJoinSyn
from emptcp.packet.tcp import Nop, Other, Timestamps

pytestmark = pytest.mark.kernel

SHAPES: list[dict[str, Any]] = [{}, {"family": 6, "src": "fd00::1", "dst": "fd00::2"}, {"vlan": [7]}]
TIME, ACK = Timestamps(7, 9), Dss(data_ack=1)
HMAC = b"\x1e\x10\x03\x04\x05\x06\x07\x08"
FOUR, SIX = ip_address("10.9.0.7"), ip_address("fd09::7")
FORMS = [
    AddAddress(3, FOUR, hmac=HMAC),
    AddAddress(3, FOUR, version=0),
    AddAddress(3, FOUR, port=443, version=0),
    AddAddress(3, SIX, version=0),
]
JOIN = MpJoinSyn(token=5, nonce=6, address_id=1)
BOTH = ("blk_subflow()", "add_subflow()")


def options(packet: Decoded) -> list[object]:
    assert packet.tcp is not None
    return [placed.option for placed in packet.tcp.options if not isinstance(placed.option, Nop)]


def run(runner: Any, packet: bytes) -> Decoded:
    """What comes out is valid, and behind the options nothing changed."""
    result = runner.run(packet)
    out = decode(result.data)
    assert (result.verdict, out.valid, out.payload) == ("pass", True, decode(packet).payload)
    return out


@pytest.mark.parametrize("hook", ["ingress", "egress"])
def test_a_stored_address_rides_once_on_the_next_pure_ack(policy: Callable[..., Any], hook: str) -> None:
    runner = policy(*BOTH, hook=hook)
    for shape in SHAPES:
        ack = build(**shape, options=[ACK])
        for form in FORMS:
            run(runner, build(**shape, flags="S", options=[MpCapable()]))
            assert runner.run(build(**shape, options=[form])).verdict == "drop"
            assert options(run(runner, ack)) == [ACK, form]
            assert runner.run(ack).data == ack
            again = build(**shape, options=[form])
            assert runner.run(again).data == again


def test_forty_bytes_are_just_enough(policy: Callable[..., Any]) -> None:
    runner = policy(*BOTH)
    runner.run(build(options=[FORMS[0]]))
    out = run(runner, build(options=[Nop(), Nop(), TIME, ACK]))
    assert options(out) == [TIME, ACK, FORMS[0]]


def test_without_room_it_waits_for_a_packet_that_has_some(policy: Callable[..., Any]) -> None:
    runner = policy(*BOTH)
    big = AddAddress(3, SIX, hmac=HMAC)
    runner.run(build(options=[big]))
    full = build(options=[TIME, ACK])
    result = runner.run(full)
    assert (result.data, result.reason) == (full, "no_space")
    assert options(run(runner, build(options=[Dss(data_ack=1, wide_ack=False)]))) == [
        Dss(data_ack=1, wide_ack=False),
        big,
    ]


def test_only_a_pure_ack_of_its_sender_carries_it(policy: Callable[..., Any]) -> None:
    runner = policy(*BOTH)
    runner.run(build(options=[FORMS[0]]))
    back = {"src": "10.0.0.2", "dst": "10.0.0.1", "sport": 5001, "dport": 40000}
    for packet in (
        build(options=[ACK], payload=HMAC),
        build(options=[TIME]),
        build(options=[ACK, AddAddress(3, FOUR, echo=True)]),
        build(**back, options=[ACK]),  # type: ignore[arg-type]
        build(sport=40001, options=[ACK]),
        build(options=[ACK, Other(19, bytes(16))]),
        build(options=[ACK], fragment=(0, True)),
    ):
        assert runner.run(packet).data == packet
    assert options(run(runner, build(options=[ACK]))) == [ACK, FORMS[0]]


def test_a_held_join_is_released(policy: Callable[..., Any]) -> None:
    runner = policy(*BOTH)
    syn = build(flags="S", options=[JOIN])
    assert runner.run(syn).verdict == "drop"
    before = policy("add_subflow()", "blk_subflow()")
    assert before.run(syn).data == syn
    ((_, value),) = before.map("held_joins").items()
    assert struct.unpack("=II", value) == (1, 0)


PLAIN = [
    (f"announce={address}, id=9{', port=443' if port else ''}", AddAddress(9, address, port=port, version=0))
    for address in (FOUR, SIX)
    for port in (None, 443)
]


@pytest.mark.parametrize(("arguments", "form"), PLAIN)
def test_in_version_0_the_address_is_announced_in_the_plain_and_once(
    policy: Callable[..., Any], arguments: str, form: AddAddress
) -> None:
    runner = policy(f"add_subflow({arguments})", hook="egress")
    for shape in SHAPES:
        ends = {"src": shape.get("dst", "10.0.0.2"), "dst": shape.get("src", "10.0.0.1")}
        back: dict[str, Any] = {**shape, **ends, "sport": 5001, "dport": 40000}
        runner.run(build(**shape, flags="S", options=[MpCapable(version=0, sender_key=1)]))
        runner.run(build(**back, flags="SA", options=[MpCapable(version=0, sender_key=2)]))
        full = build(**shape, options=[ACK, Other(253, bytes(22))])
        data = build(**shape, options=[ACK], payload=b"data")
        assert [runner.run(packet).data for packet in (full, data)] == [full, data]
        for way in (shape, back):
            ack = build(**way, options=[ACK])
            assert options(run(runner, ack)) == [ACK, form]
            assert runner.run(ack).data == ack


def test_version_1_takes_an_hmac_so_nothing_is_put_into_its_packets(policy: Callable[..., Any]) -> None:
    arguments, _ = PLAIN[0]
    for hook, version in (("egress", 1), ("ingress", 0)):
        runner = policy(f"add_subflow({arguments})", hook=hook)
        runner.run(build(flags="S", options=[MpCapable(version=version, sender_key=version or 1)]))
        ack = build(options=[ACK])
        assert runner.run(ack).data == ack


@pytest.fixture
def runner(policy: Callable[..., Any]) -> Any:
    return policy(*BOTH)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    moves=st.lists(
        st.one_of(st.integers(1, 5), st.sampled_from(["ack", "data", "full"])), min_size=1, max_size=14
    )
)
def test_what_rides_agrees_with_a_plain_model(runner: Any, moves: list[int | str]) -> None:
    """An announcement is kept back, unless it was given before; a pure ACK with room takes one that waits."""
    run(runner, build(flags="S", options=[MpCapable()]))
    waiting: list[AddAddress] = []
    given_back: list[AddAddress] = []
    for move in moves:
        if isinstance(move, int):
            option = AddAddress(move, FOUR, hmac=HMAC)
            passes = option in given_back
            if not passes and option not in waiting:
                waiting.append(option)
            result = runner.run(build(options=[option]))
            assert result.verdict == ("pass" if passes else "drop")
        else:
            block = [TIME, ACK, Other(253, bytes(6))] if move == "full" else [ACK]
            out = options(run(runner, build(options=block, payload=HMAC if move == "data" else b"")))
            rides = [one for one in out if one not in block]
            assert len(rides) == int(move == "ack" and bool(waiting))
            for one in rides:
                assert isinstance(one, AddAddress)
                waiting.remove(one)
                given_back.append(one)
