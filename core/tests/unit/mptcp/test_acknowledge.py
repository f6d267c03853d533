# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emptcp.mptcp import duplicate_ack
from emptcp.mptcp.acknowledge import End, next_sequence
from emptcp.mptcp.sockets import Subflow
from emptcp.packet.decode import Tcp, decode
from emptcp.packet.layers import Ipv4, Ipv6
from emptcp.packet.mptcp import MpPrio

sequence = st.integers(0, 2**32 - 1)

SUBFLOW = Subflow(
    local=IPv4Address("10.0.0.1"),
    local_port=40000,
    remote=IPv4Address("10.0.1.2"),
    remote_port=5001,
    state=1,
    token=7,
    local_id=0,
    remote_id=1,
    backup=False,
    request_backup=False,
    timestamps=True,
    snd_una=1000,
    snd_nxt=1000,
    send_window=65536,
    write_seq=1000,
    rcv_nxt=5000,
    acknowledged=5000,
    receive_window=32768,
    rtt_us=20000.0,
    bound_device=0,
    device=2,
    send_scale=7,
    receive_scale=8,
)


def read(subflow: Subflow, to: End) -> tuple[Ipv4 | Ipv6, Tcp]:
    packet = decode(duplicate_ack(subflow, [MpPrio(backup=True)], to), "none")
    assert packet.valid
    assert packet.subtypes == (5,)
    assert packet.ip is not None
    assert packet.tcp is not None
    return packet.ip, packet.tcp


def test_a_packet_to_us_comes_from_the_peer_with_what_the_peer_would_say() -> None:
    ip, tcp = read(SUBFLOW, "us")
    assert (ip.src, tcp.sport, ip.dst, tcp.dport) == (SUBFLOW.remote, 5001, SUBFLOW.local, 40000)
    assert (tcp.seq, tcp.ack, tcp.window) == (5000, 1000, 65536 >> 7)


def test_a_packet_to_the_peer_comes_from_us_with_what_we_would_say() -> None:
    ip, tcp = read(SUBFLOW, "peer")
    assert (ip.src, tcp.sport, ip.dst, tcp.dport) == (SUBFLOW.local, 40000, SUBFLOW.remote, 5001)
    assert (tcp.seq, tcp.ack, tcp.window) == (1000, 5000, 32768 >> 8)


def test_an_ipv6_subflow_gets_an_ipv6_packet() -> None:
    over = replace(SUBFLOW, local=IPv6Address("fd00::1"), remote=IPv6Address("fd00::2"))
    assert read(over, "us")[0].src == IPv6Address("fd00::2")


@pytest.mark.parametrize(
    ("window", "field"),
    [(0, 0), (1, 1), (127, 1), (128, 1), (256, 2), (0xFFFF << 7, 0xFFFF), (2**32 - 1, 0xFFFF)],
)
def test_only_a_closed_window_is_told_as_zero(window: int, field: int) -> None:
    assert read(replace(SUBFLOW, send_window=window), "us")[1].window == field


def test_the_window_to_the_peer_counts_from_what_is_acknowledged_now() -> None:
    assert read(replace(SUBFLOW, rcv_nxt=5000 + 4096), "peer")[1].window == (32768 - 4096) >> 8


def test_more_received_than_offered_is_a_closed_window() -> None:
    assert read(replace(SUBFLOW, rcv_nxt=5000 + 40000), "peer")[1].window == 0


@given(una=sequence, flight=st.integers(0, 2**20), held=st.integers(0, 2**24), window=st.integers(0, 2**24))
def test_the_sequence_to_the_peer_is_never_ahead_of_what_will_be_sent_nor_of_the_window(
    una: int, flight: int, held: int, window: int
) -> None:
    nxt = (una + flight) % 2**32
    busy = replace(SUBFLOW, snd_una=una, snd_nxt=nxt, write_seq=(nxt + held) % 2**32, send_window=window)
    ahead = (next_sequence(busy) - nxt) % 2**32
    assert ahead <= held
    assert ahead == 0 or flight + ahead <= window
