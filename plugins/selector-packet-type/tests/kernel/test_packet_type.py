# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Any

import pytest

from emptcp.packet.build import build
from emptcp.packet.mptcp import (
    AddAddress,
    Dss,
    MpCapable,
    MpFail,
    MpFastclose,
    MpJoinAck,
    MpJoinSyn,
    MpPrio,
    MpTcpReset,
    RemoveAddress,
)
from emptcp.packet.tcp import Timestamps

pytestmark = pytest.mark.kernel

ADDRESS = IPv4Address("10.9.0.1")
ALL = [
    "mp_capable",
    "mp_join",
    "dss",
    "data_ack",
    "data_fin",
    "add_addr",
    "add_addr_echo",
    "remove_addr",
    "mp_prio",
    "mp_fail",
    "mp_fastclose",
    "mp_tcprst",
    "syn",
    "synack",
    "ack",
    "data",
    "fin",
    "rst",
    "no_mptcp",
]

PACKETS = {
    "first SYN": (build(flags="S", options=[MpCapable(flags=1)]), {"syn", "mp_capable"}),
    "its answer": (build(flags="SA", options=[MpCapable(flags=1, sender_key=1)]), {"synack", "mp_capable"}),
    "third ACK": (build(options=[MpCapable(flags=1, sender_key=1, receiver_key=2)]), {"ack", "mp_capable"}),
    "join": (build(flags="S", options=[MpJoinSyn(token=1, nonce=2, address_id=3)]), {"syn", "mp_join"}),
    "end of join": (build(options=[MpJoinAck(hmac=bytes(20))]), {"ack", "mp_join"}),
    "data": (
        build(flags="PA", options=[Dss(data_ack=1, dsn=2, data_length=3)], payload=b"abc"),
        {"data", "dss", "data_ack"},
    ),
    "data without ack": (build(options=[Dss(dsn=2, data_length=3)], payload=b"abc"), {"data", "dss"}),
    "pure ACK": (build(options=[Dss(data_ack=1)]), {"ack", "dss", "data_ack"}),
    "padded pure ACK": (
        build(options=[Dss(data_ack=1, wide_ack=False)], frame_length=80),
        {"ack", "dss", "data_ack"},
    ),
    "DATA_FIN": (
        build(options=[Dss(data_ack=1, dsn=2, data_length=1, data_fin=True)]),
        {"ack", "dss", "data_ack", "data_fin"},
    ),
    "announcement of version 0": (build(options=[AddAddress(4, ADDRESS, version=0)]), {"ack", "add_addr"}),
    "announcement": (build(options=[AddAddress(4, ADDRESS, hmac=bytes(8))]), {"ack", "add_addr"}),
    "echo": (build(options=[AddAddress(4, ADDRESS, echo=True)]), {"ack", "add_addr_echo"}),
    "removal": (
        build(options=[Dss(data_ack=1), RemoveAddress((4,))]),
        {"ack", "dss", "data_ack", "remove_addr"},
    ),
    "priority": (
        build(options=[Dss(data_ack=1), MpPrio(backup=True)]),
        {"ack", "dss", "data_ack", "mp_prio"},
    ),
    "failure": (build(options=[MpFail(dsn=1)]), {"ack", "mp_fail"}),
    "fast close": (build(flags="RA", options=[MpFastclose(receiver_key=1)]), {"rst", "mp_fastclose"}),
    "reset": (build(flags="R", options=[MpTcpReset(reason=1)]), {"rst", "mp_tcprst"}),
    "FIN": (build(flags="FA", options=[Dss(data_ack=1)]), {"fin", "dss", "data_ack"}),
    "plain SYN": (build(flags="S", sport=50000), {"syn", "no_mptcp"}),
    "plain data": (build(sport=50000, options=[Timestamps(1, 2)], payload=b"abc"), {"data", "no_mptcp"}),
    "plain ACK": (build(sport=50000), {"ack", "no_mptcp"}),
}


def matched(runner: Any) -> set[str]:
    return {name for name, (packet, _types) in PACKETS.items() if runner.run(packet).matched}


def packets(*types: str) -> set[str]:
    """The packets of one of the types."""
    return {name for name, (_packet, kinds) in PACKETS.items() if kinds & set(types)}


PLAIN = packets("no_mptcp")


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind != "no_mptcp"])
def test_a_type_matches_exactly_its_packets_among_those_of_mptcp(
    policy: Callable[..., Any], kind: str
) -> None:
    assert packets(kind)
    assert matched(policy("record('packets')", when=f"packet_type('{kind}')")) == packets(kind) - PLAIN


def test_no_mptcp_matches_plain_tcp(policy: Callable[..., Any]) -> None:
    assert matched(policy("record('packets')", when="packet_type('no_mptcp')")) == PLAIN


def test_several_types_match_what_is_of_one_of_them(policy: Callable[..., Any]) -> None:
    runner = policy("record('packets')", when="packet_type('syn', 'add_addr', 'rst')")
    assert matched(runner) == packets("syn", "add_addr", "rst") - PLAIN


def test_types_combine_by_and_and_not(policy: Callable[..., Any]) -> None:
    runner = policy("record('packets')", when="packet_type('dss') and not packet_type('data', 'fin')")
    assert matched(runner) == packets("dss") - packets("data", "fin")
    runner = policy("record('packets')", when="packet_type('no_mptcp') and packet_type('data')")
    assert matched(runner) == {"plain data"}


def test_it_leaves_packets_as_they_are(policy: Callable[..., Any]) -> None:
    runner = policy("record('packets')", when="packet_type('no_mptcp', 'dss', 'mp_join')")
    for packet, _types in PACKETS.values():
        result = runner.run(packet)
        assert (result.verdict, result.data) == ("pass", packet)
