# SPDX-License-Identifier: Apache-2.0
"""get_subflow packet by packet: one event per subflow that joins, tied to its connection."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emptcp import pybpf
from emptcp.chain import flows
from emptcp.chain.connections import Connections
from emptcp.control.duty import decode
from emptcp.packet.build import build
from emptcp.packet.mptcp import Dss, MpCapable, MpJoinAck, MpJoinSyn, MpJoinSynAck
from emptcp_actor_get_subflow.hooks import emptcp_describe

pytestmark = pytest.mark.kernel

CLIENT, SERVER = 0x0123456789ABCDEF, 0xFEDCBA9876543210
V4 = {"src": "10.0.0.1", "dst": "10.0.0.2"}
V6 = {"family": 6, "src": "fd00::2", "dst": "fd00::1"}
SHAPES = {"ipv4": V4, "ipv6": V6, "vlan": V4 | {"vlan": [7]}}


def token(key: int) -> int:
    return int.from_bytes(hashlib.sha256(key.to_bytes(8, "big")).digest()[:4], "big")


def ends(shape: dict[str, Any], sport: int) -> tuple[dict[str, Any], dict[str, Any]]:
    back = shape | {"src": shape["dst"], "dst": shape["src"]}
    return shape | {"sport": sport, "dport": 443}, back | {"sport": 443, "dport": sport}


def first_subflow(shape: dict[str, Any]) -> list[bytes]:
    there, _ = ends(shape, 5000)
    return [build(**there, options=[MpCapable(version=1, sender_key=CLIENT, receiver_key=SERVER)])]


def join(
    shape: dict[str, Any], ids: tuple[int, int] = (3, 4), backups: tuple[bool, bool] = (False, True)
) -> list[bytes]:
    there, back = ends(shape, 5001)
    return [
        build(**there, flags="S", options=[MpJoinSyn(token(SERVER), 7, ids[0], backups[0])]),
        build(**back, flags="SA", options=[MpJoinSynAck(bytes(8), 8, ids[1], backups[1])]),
        build(**there, options=[MpJoinAck(bytes(20))]),
        build(**back, options=[Dss(data_ack=1)]),
    ]


class Host:
    """A policy with what `emptcp run` does for it."""

    def __init__(self, runner: Any) -> None:
        self.policy = runner
        self.maps = runner.shared.cores()
        self.told: list[Any] = []

    def run(self, packets: list[bytes]) -> list[dict[str, Any]]:
        """Let packets pass, unchanged; return what the plugin tells, and keep what core does."""
        for packet in packets:
            result = self.policy.run(packet)
            assert (result.verdict, result.data) == ("pass", packet)
        found: list[Any] = []

        def hear(record: bytes) -> None:
            event = decode(record, {"core_connection": "core", "get_subflow": "get_subflow"})
            assert event is not None
            (self.told if event.plugin == "core" else found).append(event)

        with pybpf.RingBuffer(self.maps["emptcp_events"](), hear) as ring:
            ring.poll(0)
        return [dict(emptcp_describe(event) or {}) for event in found]

    def answer(self) -> None:
        """Work out the tokens."""
        with Connections(self.maps["emptcp_flows"](), self.maps["emptcp_connections"]()) as known:
            for event in self.told:
                known.see_keys(flows.key(*event.endpoints))


def model(
    shape: dict[str, Any], ids: tuple[int, int] = (3, 4), backups: tuple[bool, bool] = (False, True)
) -> dict[str, Any]:
    return {
        "event": "SF_ESTABLISHED",
        "token": token(CLIENT),
        "remote_token": token(SERVER),
        "locid": ids[0],
        "remid": ids[1],
        "saddr": ip_address(shape["src"]),
        "sport": 5001,
        "daddr": ip_address(shape["dst"]),
        "dport": 443,
        "backup": backups[0],
        "remote_backup": backups[1],
    }


@pytest.mark.parametrize("hook", ["ingress", "egress"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_subflow_that_joined_is_told_once_and_its_end(
    policy: Callable[..., Any], shape: dict[str, Any], hook: str
) -> None:
    host = Host(policy("get_subflow()", hook=hook))
    assert host.run(first_subflow(shape)) == []
    host.answer()
    assert host.run(join(shape)) == [model(shape)]
    assert host.run(join(shape)[2:]) == []
    there, back = ends(shape, 5001)
    fin = [build(**one, flags="FA", options=[Dss(data_ack=1)]) for one in (there, back)]
    assert host.run(fin) == [model(shape) | {"event": "SF_CLOSED"}]


def test_a_join_that_outruns_the_tokens_is_told_when_they_are_there(policy: Callable[..., Any]) -> None:
    host = Host(policy("get_subflow()"))
    assert host.run([*first_subflow(V4), *join(V4)]) == []
    host.answer()
    assert host.run(join(V4)[3:]) == [model(V4)]


def test_the_connection_of_a_join_to_nobody_we_know_is_left_out_after_a_second(
    policy: Callable[..., Any],
) -> None:
    host = Host(policy("get_subflow()"))
    assert host.run(join(V4)) == []
    state = host.policy.states["get_subflow"]
    slot = flows.States(host.policy.shared.flows(), state, 16)
    one, other = (ip_address("10.0.0.1"), 5001), (ip_address("10.0.0.2"), 443)
    since = int.from_bytes(slot.get(one, other)[:8], "little")
    assert since
    slot.put(one, other, (since - 1_100_000_000).to_bytes(8, "little"))
    known = model(V4)
    del known["token"]
    assert host.run(join(V4)[3:]) == [known]


def test_a_flood_of_joins_that_nobody_answers_tells_nothing(policy: Callable[..., Any]) -> None:
    host = Host(policy("get_subflow()"))
    syns = [
        build(**V4, sport=1024 + number, dport=443, flags="S", options=[MpJoinSyn(number * 7919, 1, 1)])
        for number in range(500)
    ]
    assert host.run([*syns, *syns]) == []
    assert not host.told


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ids=st.tuples(st.integers(0, 255), st.integers(0, 255)),
    backups=st.tuples(st.booleans(), st.booleans()),
    six=st.booleans(),
)
def test_it_agrees_with_a_plain_model(
    policy: Callable[..., Any], ids: tuple[int, int], backups: tuple[bool, bool], six: bool
) -> None:
    shape = V6 if six else V4
    host = Host(policy("get_subflow()"))
    host.run(first_subflow(shape))
    host.answer()
    assert host.run(join(shape, ids, backups)) == [model(shape, ids, backups)]
