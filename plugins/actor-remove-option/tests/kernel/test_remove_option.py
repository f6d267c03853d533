# SPDX-License-Identifier: Apache-2.0
"""remove_option: NOPs over one option, and what stays."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emptcp.errors import EmptcpError
from emptcp.packet.build import build
from emptcp.packet.decode import Decoded, decode
from emptcp.packet.mptcp import (
    AddAddress,
    Dss,
    MpCapable,
    MpFastclose,
    MpJoinAck,
    MpJoinSyn,
    MpPrio,
    MpTcpReset,
    RemoveAddress,
)
from emptcp.packet.tcp import Nop, Option, Other, Timestamps
from emptcp.plugins.catalog import Catalog
from emptcp.plugins.manager import Manager
from emptcp.policy.file import loads

pytestmark = pytest.mark.kernel

V6 = {"family": 6, "src": "fd00::1", "dst": "fd00::2"}
TIME, ACK, PRIO = Timestamps(7, 9), Dss(data_ack=1), MpPrio(backup=True)
DATA = PRIO.encode() * 6


def options(packet: Decoded) -> list[object]:
    assert packet.tcp is not None
    return [placed.option for placed in packet.tcp.options if not isinstance(placed.option, Nop)]


def run(runner: Any, packet: bytes) -> Decoded:
    result = runner.run(packet)
    out = decode(result.data)
    assert result.verdict == "pass"
    assert out.valid
    assert (out.payload, len(out.data)) == (decode(packet).payload, len(packet))
    return out


@pytest.mark.parametrize("hook", ["ingress", "egress"])
@pytest.mark.parametrize("shape", [{}, V6, {"vlan": [7]}], ids=["ipv4", "ipv6", "vlan"])
def test_nops_take_its_place(policy: Callable[..., Any], shape: dict[str, Any], hook: str) -> None:
    runner = policy("remove_option(option=mp_prio)", hook=hook)
    full = [Nop(), TIME, PRIO, Dss(data_ack=1, dsn=2, data_length=18, wide_ack=False), Nop(), Nop()]
    for block, rest in (([TIME, ACK, PRIO], {}), (full, {"payload": DATA})):
        packet = build(**shape, options=block, **rest)
        left = [one for one in block if not isinstance(one, Nop) and one != PRIO]
        assert options(run(runner, packet)) == left


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (build(options=[TIME, PRIO]), "unsafe"),
        (build(options=[TIME, ACK]), None),
        (build(options=[ACK, PRIO, Other(19, bytes(16))]), "signed"),
        (build(options=[ACK, PRIO], fragment=(0, True)), "fragment"),
    ],
    ids=["the only one", "not there", "signed", "fragment"],
)
def test_these_stay_as_they_are(policy: Callable[..., Any], packet: bytes, reason: str | None) -> None:
    result = policy("remove_option(option=mp_prio)").run(packet)
    assert (result.verdict, result.data, result.reason) == ("pass", packet, reason)


NEW = AddAddress(2, IPv4Address("10.0.1.1"), hmac=b"12345678")
KEYS, JOIN = MpCapable(1, 2, version=1), MpJoinAck(bytes(20))
MAP = Dss(dsn=2, data_length=len(DATA), wide_dsn=False)


@pytest.mark.parametrize(
    ("name", "packet", "goes"),
    [
        ("add_addr", build(options=[NEW]), False),
        ("add_addr", build(options=[NEW, PRIO]), False),
        ("mp_prio", build(options=[NEW, PRIO]), False),
        ("add_addr", build(options=[NEW, MAP]), False),
        ("add_addr", build(options=[NEW, MAP], payload=DATA), False),
        ("mp_prio", build(options=[PRIO], payload=DATA), False),
        ("mp_fastclose", build(options=[MpFastclose(1)]), False),
        ("add_addr", build(options=[NEW, ACK]), True),
        ("add_addr", build(options=[NEW, PRIO, Dss(data_ack=1, wide_ack=False)]), True),
        ("add_addr", build(options=[KEYS, NEW]), True),
        ("mp_prio", build(options=[JOIN, PRIO]), True),
        ("mp_fastclose", build(flags="RA", options=[MpFastclose(1)]), True),
        ("mp_tcprst", build(flags="RA", options=[MpTcpReset(4)]), True),
        ("mp_prio", build(flags="S", options=[PRIO]), True),
    ],
)
def test_what_is_left_must_be_an_established_subflows(
    policy: Callable[..., Any], name: str, packet: bytes, goes: bool
) -> None:
    """As check_fully_established() in net/mptcp/options.c wants it, but for an ADD_ADDR that stays."""
    runner = policy(f"remove_option(option={name})")
    if not goes:
        result = runner.run(packet)
        assert (result.data, result.reason) == (packet, "unsafe")
        return
    before, after = options(decode(packet)), options(run(runner, packet))
    assert len(after) == len(before) - 1
    assert set(map(repr, after)) < set(map(repr, before))
    assert runner.run(packet).reason is None


def test_the_only_one_goes_if_that_is_meant(policy: Callable[..., Any]) -> None:
    runner = policy("remove_option(option=mp_prio, unsafe=true)")
    assert options(run(runner, build(options=[TIME, PRIO]))) == [TIME]
    for block in ([MpCapable(version=1)], [MpJoinSyn(1, 2, 3)]):
        name = "mp_capable" if isinstance(block[0], MpCapable) else "mp_join"
        syn = build(flags="S", options=block)
        assert options(run(policy(f"remove_option(option={name}, unsafe=true)"), syn)) == []
    dss = build(options=[TIME, Dss(data_ack=1, dsn=2, data_length=18)], payload=DATA)
    assert options(run(policy("remove_option(option=dss, unsafe=true)"), dss)) == [TIME]


def test_the_first_option_of_a_kind_goes(policy: Callable[..., Any]) -> None:
    mine, other = Other(253, b"\xe0\xe1\x07"), Other(253, b"other")
    runner = policy("remove_option(kind=253)")
    assert options(run(runner, build(options=[ACK, mine, TIME]))) == [ACK, TIME]
    assert options(run(runner, build(options=[ACK, mine, other]))) == [ACK, other]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    block=st.lists(
        st.sampled_from([Nop(), TIME, PRIO, RemoveAddress((3,)), Other(253, b"abc")]), max_size=5, unique=True
    ),
    what=st.sampled_from(["option=mp_prio", "option=remove_addr", "kind=253"]),
)
def test_it_agrees_with_a_plain_model(policy: Callable[..., Any], block: list[Option], what: str) -> None:
    gone = {"option=mp_prio": MpPrio, "option=remove_addr": RemoveAddress, "kind=253": Other}[what]
    packet = build(options=[ACK, *block])
    left = [one for one in (ACK, *block) if not isinstance(one, gone | Nop)]
    assert options(run(policy(f"remove_option({what})"), packet)) == left


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "removes exactly one option"),
        ("option=mp_prio, kind=253", "removes exactly one option"),
        ("option=dss", "would break connections without dss"),
        ("kind=8", "would break connections without timestamps"),
        ("kind=29, unsafe=true", "can't remove kind 29, TCP-AO"),
    ],
)
def test_what_would_do_harm_is_refused(arguments: str, said: str) -> None:
    stage = f"remove_option({arguments})"
    text = f'table = "t"\n[[policy]]\nname = "p"\nhook = "ingress"\ndev = "x"\ndo = ["{stage}"]'
    (runner,) = loads(text).policies
    bound = Catalog.of_enabled().bind(runner.do[0])  # type: ignore[arg-type]
    with pytest.raises(EmptcpError, match=said):
        Manager.of_enabled().validate(bound, runner)
