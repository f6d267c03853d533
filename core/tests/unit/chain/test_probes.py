# SPDX-License-Identifier: Apache-2.0
"""The packets that a policy is tried with."""

from __future__ import annotations

from typing import Literal

import pytest

from emptcp.chain.probes import MOST_PAYLOAD, alike, established, first, handshake
from emptcp.packet.build import build
from emptcp.packet.decode import decode
from emptcp.packet.mptcp import Dss, MpCapable
from emptcp.packet.tcp import Flag, Timestamps


def heard(family: Literal[4, 6] = 4, **more: object) -> bytes:
    options = [Timestamps(7, 8), Dss(data_ack=1, dsn=2, data_length=4)]
    return build(link="none", family=family, options=options, **{"payload": b"data", **more})  # type: ignore[arg-type]


@pytest.mark.parametrize("family", [4, 6])
def test_both_are_right_and_of_the_same_subflow_whatever_was_heard(family: Literal[4, 6]) -> None:
    wrong = heard(family, checksum=0x1234, window=77)
    made = [decode(one) for one in alike(wrong)]
    assert [one.valid for one in made] == [True, True]
    (before,) = {(one.ip.src, one.ip.dst, one.tcp.sport, one.tcp.dport) for one in made if one.ip and one.tcp}
    was = decode(wrong, "none")
    assert was.ip
    assert was.tcp
    assert before == (was.ip.src, was.ip.dst, was.tcp.sport, was.tcp.dport)
    assert [len(one.tcp.mptcp) for one in made if one.tcp] == [1, 1]


def test_every_number_of_the_second_is_another() -> None:
    first, second = (decode(one) for one in alike(heard(window=77)))
    assert first.tcp
    assert second.tcp
    for name in ("seq", "ack", "window", "block"):
        assert getattr(first.tcp, name) != getattr(second.tcp, name), name
    assert first.tcp.window == 77
    assert not set(first.payload) & set(second.payload)
    assert [one.raw[:2] for one in first.tcp.options] == [one.raw[:2] for one in second.tcp.options]


def test_a_long_packet_is_cut_to_what_a_trial_takes_and_what_is_no_tcp_gives_none() -> None:
    assert [len(decode(one).payload) for one in alike(heard(payload=bytes(9000)))] == [MOST_PAYLOAD] * 2
    assert list(alike(build(link="none", protocol=17, transport=bytes(8)))) == []


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("answers", [False, True])
def test_a_connection_begins_as_mptcp_between_the_ends_of_what_was_heard(
    family: Literal[4, 6], answers: bool
) -> None:
    was = decode(build(link="none", family=family, options=[Timestamps(7, 8)], payload=b"data"), "none")
    made = [decode(one) for each in (handshake, first) for one in each(was.data, answers)]
    assert all(one.valid for one in made)
    ends = {(one.ip.src, one.tcp.sport, one.ip.dst, one.tcp.dport) for one in made if one.ip and one.tcp}
    assert was.ip
    assert was.tcp
    here, there = (was.ip.src, was.tcp.sport), (was.ip.dst, was.tcp.dport)
    assert ends == {(*there, *here) if answers else (*here, *there)}
    options = [(int(one.tcp.flags), one.tcp.mptcp[0].option, one.payload) for one in made if one.tcp]
    kinds = [(flags, type(option), payload) for flags, option, payload in options]
    assert kinds == [
        (0x02, MpCapable, b""),
        (0x12, MpCapable, b""),
        (0x10, MpCapable, b""),
        (0x10, Dss, b""),
        (0x18, MpCapable, b"data"),
        (0x18, Dss, b"data"),
    ]
    assert [option.data_length for _, option, data in options if data] == [4, 4]  # type: ignore[union-attr]


def test_what_is_no_tcp_begins_no_connection() -> None:
    other = build(link="none", protocol=17, transport=bytes(8))
    assert [*handshake(other, False), *first(other, False)] == []


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("flags", ["A", "RA"])
def test_acks_and_data_with_a_dss_pass_both_ways_whatever_was_heard(
    family: Literal[4, 6], flags: str
) -> None:
    made = [decode(one) for one in established(heard(family, flags=flags, payload=b""))]
    assert all(one.valid and one.subtypes == (Dss.subtype,) for one in made)
    ends = [(str(one.ip.src), one.tcp.sport, bool(one.payload)) for one in made if one.ip and one.tcp]
    assert len(set(ends)) == 4
    assert not any(one.tcp.flags & Flag.RST for one in made if one.tcp)
