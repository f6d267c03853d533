# SPDX-License-Identifier: Apache-2.0
"""get_connect packet by packet: one event when both keys were seen, and what follows from them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emptcp import pybpf
from emptcp.control.duty import decode
from emptcp.packet.build import build
from emptcp.packet.mptcp import Dss, MpCapable
from emptcp.packet.tcp import Nop, Option, Timestamps
from emptcp_actor_get_connect.hooks import emptcp_describe

pytestmark = pytest.mark.kernel

CLIENT, SERVER = 0x0123456789ABCDEF, 0xFEDCBA9876543210
V4 = {"src": "10.0.0.1", "dst": "10.0.0.2"}
V6 = {"family": 6, "src": "fd00::2", "dst": "fd00::1"}
SHAPES = {"ipv4": V4, "ipv6": V6, "vlan": V4 | {"vlan": [7]}}


def back(shape: dict[str, Any]) -> dict[str, Any]:
    return shape | {"src": shape["dst"], "dst": shape["src"]}


def handshake(
    shape: dict[str, Any],
    version: int,
    client: int = CLIENT,
    server: int = SERVER,
    around: Sequence[Option] = (),
) -> list[bytes]:
    syn = MpCapable(version=version, sender_key=None if version else client)
    last = MpCapable(version=version, sender_key=client, receiver_key=server)
    there, answer = shape | {"sport": 5000, "dport": 443}, back(shape) | {"sport": 443, "dport": 5000}
    return [
        build(**there, flags="S", options=[*around, syn]),
        build(**answer, flags="SA", options=[*around, MpCapable(version=version, sender_key=server)]),
        build(**there, options=[*around, last]),
        build(**there, options=[Dss(data_ack=1)]),
        build(**answer, options=[Dss(data_ack=1)]),
    ]


def events(runner: Any, packets: list[bytes], secrets: bool = False) -> list[dict[str, Any]]:
    """Let packets pass, unchanged, and return what they tell."""
    records: list[bytes] = []
    for packet in packets:
        result = runner.run(packet)
        assert (result.verdict, result.data) == ("pass", packet)
    with pybpf.RingBuffer(runner.shared.cores()["emptcp_events"](), records.append) as ring:
        ring.poll(0)
    told = []
    for record in records:
        event = decode(record, {"get_connect": "get_connect"})
        assert event is not None
        told.append(dict(emptcp_describe(event, secrets) or {}))
    return told


def hashed(key: int, version: int) -> bytes:
    return (hashlib.sha256 if version else hashlib.sha1)(key.to_bytes(8, "big")).digest()


def model(shape: dict[str, Any], version: int, client: int, server: int) -> dict[str, Any]:
    """RFC 6824 and RFC 8684, section 3.1: token and IDSN are the first and last bits of the key's hash."""
    first, second = hashed(client, version), hashed(server, version)
    return {
        "event": "ESTABLISHED",
        "token": int.from_bytes(first[:4], "big"),
        "remote_token": int.from_bytes(second[:4], "big"),
        "saddr": ip_address(shape["src"]),
        "sport": 5000,
        "daddr": ip_address(shape["dst"]),
        "dport": 443,
        "version": version,
        "idsn": int.from_bytes(first[-8:], "big"),
        "remote_idsn": int.from_bytes(second[-8:], "big"),
    }


@pytest.mark.parametrize("hook", ["ingress", "egress"])
@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_handshake_is_told_once(
    policy: Callable[..., Any], shape: dict[str, Any], version: int, hook: str
) -> None:
    for one in (shape, back(shape)):
        runner = policy("get_connect()", hook=hook)
        assert events(runner, handshake(one, version)) == [model(one, version, CLIENT, SERVER)]
        assert events(runner, handshake(one, version)[2:]) == []


def test_keys_are_told_only_if_asked_for(policy: Callable[..., Any]) -> None:
    quiet, asked = (
        events(policy("get_connect()"), handshake(V4, 1), secrets)[0] for secrets in (False, True)
    )
    assert {name: asked[name] for name in asked.keys() - quiet.keys()} == {
        "key": "0123456789abcdef",
        "remote_key": "fedcba9876543210",
    }


def test_a_connection_that_began_before_is_not_told(policy: Callable[..., Any]) -> None:
    assert events(policy("get_connect()"), handshake(V4, 1)[3:]) == []


def test_the_first_data_tells_it_where_the_third_ack_was_lost(policy: Callable[..., Any]) -> None:
    packets = handshake(V4, 1)
    last = MpCapable(version=1, sender_key=CLIENT, receiver_key=SERVER, data_length=4)
    packets[2] = build(**V4, sport=5000, dport=443, options=[last], payload=b"data")
    assert len(events(policy("get_connect()"), packets)) == 1


def test_keys_that_change_within_the_handshake_are_not_told(policy: Callable[..., Any]) -> None:
    runner = policy("get_connect()")
    syn, answer, *_ = handshake(V4, 1)
    *_, third, _, _ = handshake(V4, 1, server=SERVER ^ 1)
    assert events(runner, [syn, answer, third]) == []
    assert runner.run(third).reason == "unknown_state"


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    keys=st.lists(st.integers(1, (1 << 64) - 1), min_size=2, max_size=2, unique=True),
    version=st.integers(0, 1),
    around=st.lists(st.sampled_from([Nop(), Timestamps(1, 2)]), max_size=2, unique=True),
    six=st.booleans(),
)
def test_it_agrees_with_a_plain_model(
    policy: Callable[..., Any], keys: list[int], version: int, around: list[Option], six: bool
) -> None:
    shape = V6 if six else V4
    (told,) = events(policy("get_connect()"), handshake(shape, version, *keys, around))
    assert told == model(shape, version, *keys)
