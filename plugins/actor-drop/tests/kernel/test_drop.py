# SPDX-License-Identifier: Apache-2.0
"""drop: which packets pass all the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from emptcp.packet.build import build
from emptcp.packet.mptcp import Dss, MpCapable, MpJoinSyn
from emptcp.packet.tcp import Nop, Timestamps

pytestmark = pytest.mark.kernel

V6 = {"family": 6, "src": "fd00::1", "dst": "fd00::2"}
FULL = [Nop(), Nop(), Timestamps(1, 2), Dss(data_ack=1, dsn=2, data_length=4, checksum=3)]
SHAPES: list[dict[str, Any]] = [{}, V6, {"vlan": [7]}]


@pytest.mark.parametrize("hook", ["ingress", "egress"])
@pytest.mark.parametrize("shape", SHAPES, ids=["ipv4", "ipv6", "vlan"])
def test_what_is_selected_is_dropped_and_nothing_else(
    trial: Callable[..., Any], shape: dict[str, Any], hook: str
) -> None:
    policy = trial("drop()", when="packet_type('dss')", hook=hook)
    for options in ([Dss(data_ack=1)], FULL):
        assert policy.run(build(**shape, options=options)).verdict == "drop"
    join = build(**shape, flags="S", options=[MpJoinSyn(1, 2, 3)])
    assert (policy.run(join).verdict, policy.run(join).data) == ("pass", join)
    assert policy.run(build(**shape, options=[Timestamps(1, 2)])).verdict == "pass"


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("flags", ["S", "SA"])
def test_the_first_handshake_passes_unless_that_is_meant(
    trial: Callable[..., Any], flags: str, version: int
) -> None:
    key = None if version and flags == "S" else 5
    syn = build(flags=flags, options=[MpCapable(version=version, sender_key=key)])
    result = trial("drop()").run(syn)
    assert (result.verdict, result.data, result.reason) == ("pass", syn, "unsafe")
    assert trial("drop(unsafe=true)").run(syn).verdict == "drop"
    assert trial("drop()").run(build(flags="S", options=[MpJoinSyn(1, 2, 3)])).verdict == "drop"
