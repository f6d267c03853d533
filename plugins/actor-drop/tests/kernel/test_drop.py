# SPDX-License-Identifier: Apache-2.0
"""drop: which packets pass all the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emptcp.packet.build import build
from emptcp.packet.decode import decode
from emptcp.packet.mptcp import Dss, MpCapable, MpJoinSyn, MpPrio
from emptcp.packet.tcp import Nop, Option, Timestamps
from emptcp_sdk.fuzz.model import legal

pytestmark = pytest.mark.kernel

V6 = {"family": 6, "src": "fd00::1", "dst": "fd00::2"}
FULL = [Nop(), Nop(), Timestamps(1, 2), Dss(data_ack=1, dsn=2, data_length=4, checksum=3)]
SHAPES: list[dict[str, Any]] = [{}, V6, {"vlan": [7]}]


@pytest.mark.parametrize("hook", ["ingress", "egress"])
@pytest.mark.parametrize("shape", SHAPES, ids=["ipv4", "ipv6", "vlan"])
def test_what_is_selected_is_dropped_and_nothing_else(
    policy: Callable[..., Any], shape: dict[str, Any], hook: str
) -> None:
    runner = policy("drop()", when="packet_type('dss')", hook=hook)
    for options in ([Dss(data_ack=1)], FULL):
        assert runner.run(build(**shape, options=options)).verdict == "drop"
    join = build(**shape, flags="S", options=[MpJoinSyn(1, 2, 3)])
    assert (runner.run(join).verdict, runner.run(join).data) == ("pass", join)
    assert runner.run(build(**shape, options=[Timestamps(1, 2)])).verdict == "pass"


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("flags", ["S", "SA"])
def test_the_first_handshake_passes_unless_that_is_meant(
    policy: Callable[..., Any], flags: str, version: int
) -> None:
    key = None if version and flags == "S" else 5
    syn = build(flags=flags, options=[MpCapable(version=version, sender_key=key)])
    result = policy("drop()").run(syn)
    assert (result.verdict, result.data, result.reason) == ("pass", syn, "unsafe")
    assert policy("drop(unsafe=true)").run(syn).verdict == "drop"
    assert policy("drop()").run(build(flags="S", options=[MpJoinSyn(1, 2, 3)])).verdict == "drop"


OPTIONS = [
    Nop(),
    Timestamps(1, 2),
    Dss(data_ack=1),
    MpPrio(True),
    MpPrio(True, 3),
    MpCapable(version=1),
    MpCapable(5, version=0),
    MpJoinSyn(1, 2, 3),
]


def test_it_agrees_with_a_plain_model(policy: Callable[..., Any]) -> None:
    """A policy sees packets of MPTCP. A SYN that opens a connection passes, unless that is meant."""
    policies = [policy("drop()"), policy("drop(unsafe=true)")]

    @settings(max_examples=150, deadline=None)
    @given(
        block=st.lists(st.sampled_from(OPTIONS), max_size=3, unique_by=repr),
        flags=st.sampled_from(["S", "SA", "A", "PA", "FA", "RA"]),
        unsafe=st.booleans(),
    )
    def agrees(block: list[Option], flags: str, unsafe: bool) -> None:
        packet = build(flags=flags, options=block)
        tcp = decode(packet).tcp
        assert tcp is not None
        taken = [one.option for one in tcp.options if legal(one, tcp, False)]
        opens = "S" in flags and any(isinstance(one, MpCapable) for one in taken)
        result = policies[unsafe].run(packet)
        assert result.verdict == ("drop" if taken and (unsafe or not opens) else "pass")
        assert result.data == packet

    agrees()
