# SPDX-License-Identifier: Apache-2.0
"""add_option: where the option goes, and where there is no room."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emptcp.errors import EmptcpError
from emptcp.packet.build import build
from emptcp.packet.decode import Decoded, decode
from emptcp.packet.mptcp import Dss, MpCapable
from emptcp.packet.tcp import Nop, Option, Other, Timestamps
from emptcp.plugins.catalog import Catalog
from emptcp.plugins.manager import Manager
from emptcp.policy.file import loads
from emptcp_sdk.testing import policy_file

pytestmark = pytest.mark.kernel

V6 = {"family": 6, "src": "fd00::1", "dst": "fd00::2"}
TIME, ACK = Timestamps(7, 9), Dss(data_ack=1)
ADD = "add_option(exid=0xe0e1, value=0x0102, size=2)"
MINE = Other(253, b"\xe0\xe1\x01\x02")
DATA = b"\xfd\x04\xe0\xe1" * 5


def options(packet: Decoded) -> list[object]:
    assert packet.tcp is not None
    return [placed.option for placed in packet.tcp.options if not isinstance(placed.option, Nop)]


def run(runner: Any, packet: bytes) -> Decoded:
    """What comes out is valid, and behind the options nothing changed."""
    result = runner.run(packet)
    out = decode(result.data)
    assert result.verdict == "pass"
    assert out.valid
    assert out.payload == decode(packet).payload
    return out


@pytest.mark.parametrize("hook", ["ingress", "egress"])
@pytest.mark.parametrize("shape", [{}, V6, {"vlan": [7]}], ids=["ipv4", "ipv6", "vlan"])
def test_an_ack_grows_and_data_uses_its_nops(
    policy: Callable[..., Any], shape: dict[str, Any], hook: str
) -> None:
    runner = policy(ADD, hook=hook)
    assert options(run(runner, build(**shape, options=[TIME, ACK]))) == [TIME, ACK, MINE]
    block = [
        Nop(),
        Nop(),
        TIME,
        Dss(data_ack=1, wide_ack=False, dsn=2, data_length=20),
        Nop(),
        Nop(),
        Nop(),
        Nop(),
    ]
    packet = build(**shape, options=block, payload=DATA)
    out = run(runner, packet)
    assert sorted(map(repr, options(out))) == sorted(map(repr, [TIME, block[3], MINE]))
    assert len(out.data) == len(packet)


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (build(options=[TIME, Dss(data_ack=1, dsn=2, data_length=20, checksum=3)], payload=DATA), "no_space"),
        (build(options=[ACK], payload=DATA), "not_pure_ack"),
        (build(options=[ACK, Other(19, bytes(16))]), "signed"),
        (build(flags="FA", options=[ACK]), "closing"),
        (build(flags="S", options=[MpCapable(version=1)]), None),
        (build(options=[ACK, MINE]), None),
        (build(options=[ACK, Other(253, b"\xe0\xe1other")]), None),
        (build(options=[ACK], fragment=(0, True)), "fragment"),
    ],
    ids=["full", "no nops", "signed", "fin", "syn", "there", "another value", "fragment"],
)
def test_these_stay_as_they_are(policy: Callable[..., Any], packet: bytes, reason: str | None) -> None:
    result = policy(ADD).run(packet)
    assert (result.verdict, result.data, result.reason) == ("pass", packet, reason)


def test_a_syn_gets_it_if_asked_for(policy: Callable[..., Any]) -> None:
    syn = build(flags="S", options=[MpCapable(version=1), Nop(), Nop(), Nop(), Nop(), Nop(), Nop()])
    added = options(run(policy("add_option(exid=0xe0e1, value=0x0102, size=2, syn=true)"), syn))
    assert MINE in added


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from([253, 254]),
    exid=st.integers(1, 0xFFFF),
    data=st.binary(max_size=4),
    around=st.lists(st.sampled_from([Nop(), TIME]), max_size=2),
)
def test_it_agrees_with_a_plain_model(
    policy: Callable[..., Any], kind: int, exid: int, data: bytes, around: list[Option]
) -> None:
    """A pure ACK has room whenever the options and this one, NOPs left out, are at most 40 bytes."""
    value = int.from_bytes(data, "big")
    runner = policy(f"add_option(kind={kind}, exid={exid}, value={value}, size={len(data)})")
    packet = build(options=[*around, ACK])
    mine = Other(kind, exid.to_bytes(2, "big") + data)
    before = [one for one in (*around, ACK) if not isinstance(one, Nop)]
    fits = sum(len(one.encode()) for one in (*before, mine)) <= 40
    out = run(runner, packet)
    assert sorted(map(repr, options(out))) == sorted(map(repr, [*before, *([mine] if fits else [])]))


def validate(arguments: str) -> None:
    stage = f"add_option({arguments})"
    (runner,) = loads(policy_file(stage)).policies
    bound = Catalog.of_enabled().bind(runner.do[0])  # type: ignore[arg-type]
    Manager.of_enabled().validate(bound, runner)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("exid=1, value=256, size=1", "the value 0x100 of an option has more than 1 bytes"),
        ("kind=254, exid=0xf989, syn=true", r"exid=0xf989 in a SYN is TCP Fast Open's \(RFC 7413\)"),
        ("exid=0xf989, value=7, size=4, syn=true", "in a SYN is TCP Fast Open's"),
        ("kind=254, exid=0xe2d4, value=0xc3d9, size=2, syn=true", "exid=0xe2d4 in a SYN is SMC-R's"),
        ("kind=254, exid=0xe2d4, value=0xc3d90000, size=4, syn=true", "in a SYN is SMC-R's"),
    ],
)
def test_what_the_peer_would_act_upon_is_refused(arguments: str, said: str) -> None:
    with pytest.raises(EmptcpError, match=said):
        validate(arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        "kind=254, exid=0xf989",
        "kind=254, exid=0xe2d4, syn=true",
        "kind=254, exid=0xe2d4, value=0xc3, size=1, syn=true",
        "kind=254, exid=0xe2d4, value=0x0000c3d9, size=4, syn=true",
        "exid=0xe0e1, syn=true",
    ],
)
def test_what_only_begins_like_that_is_not(arguments: str) -> None:
    validate(arguments)
