# SPDX-License-Identifier: Apache-2.0
"""When counters of harm rise beyond the rate before, and which packets complain."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from emptcp.control.alarms import Complaint, complaint
from emptcp.control.harm import Crowd, Rates, is_beyond
from emptcp.packet.build import build
from emptcp.packet.mptcp import Dss, MpFail, MpTcpReset

FALLBACK = "MPTcpExtDssFallback"


def readings(*values: int) -> list[dict[str, int]]:
    rates = Rates()
    return [rates.beyond(float(second), {FALLBACK: value}) for second, value in enumerate(values)]


def test_the_first_reading_is_where_counting_begins() -> None:
    assert readings(1000) == [{}]


def test_one_fallback_is_harm_where_there_was_none() -> None:
    assert readings(7, 7, 7, 8, 8) == [{}, {}, {}, {FALLBACK: 1}, {}]


def test_the_first_rise_after_the_first_reading_is_harm() -> None:
    assert readings(7, 9) == [{}, {FALLBACK: 2}]


def test_a_rate_that_goes_on_as_before_is_no_harm_and_a_multiple_of_it_is() -> None:
    steady = list(range(0, 200, 10))
    assert not any(readings(*steady)[2:])
    assert readings(*steady, 290)[-1] == {FALLBACK: 100}


def test_the_rate_before_is_forgotten_after_a_minute() -> None:
    rates = Rates()
    for second in range(10):
        rates.beyond(float(second), {FALLBACK: 10 * second})
    for second in range(10, 100):
        rates.beyond(float(second), {FALLBACK: 90})
    assert rates.beyond(100.0, {FALLBACK: 91}) == {FALLBACK: 1}


def test_plain_tcp_servers_are_no_harm() -> None:
    rates = Rates()
    rates.beyond(0.0, {})
    assert rates.beyond(1.0, {"MPTcpExtMPCapableFallbackSYNACK": 1000}) == {}


@pytest.mark.parametrize(
    ("rise", "expected", "beyond"), [(0, 0, 0), (1, 0, 1), (1, 1, 0), (9, 4, 0), (11, 4, 1)]
)
def test_three_deviations_are_the_bound(rise: int, expected: float, beyond: int) -> None:
    assert is_beyond(rise, expected) == bool(beyond)


@pytest.mark.parametrize(
    ("packet", "said"),
    [
        (build(flags="R", options=[MpTcpReset(reason=6)], link="none"), "RST with MP_TCPRST (middlebox)"),
        (build(flags="R", link="none"), ""),
        (build(options=[Dss(data_ack=1), MpFail(dsn=5)], link="none"), "MP_FAIL"),
        (build(options=[Dss(data_ack=1)], link="none"), ""),
        (b"", ""),
        (b"\x45" + bytes(30), ""),
    ],
)
def test_only_middlebox_resets_and_mp_fail_complain(packet: bytes, said: str) -> None:
    heard = complaint("eth0", packet)
    assert (heard.what if heard is not None else "") == said


@pytest.mark.parametrize("reason", [0, 1, 5])
def test_a_reset_of_another_reason_is_a_suspicion_by_no_device(reason: int) -> None:
    packet = build(flags="R", options=[MpTcpReset(reason=reason)], link="none")
    heard = complaint("eth0", packet)
    assert heard is not None
    assert (heard.device, heard.what, heard.packet) == ("", "RST with MP_TCPRST", packet)


def test_a_complaint_tells_between_which_ends() -> None:
    ends = (ip_address("10.0.0.1"), 4000), (ip_address("10.0.0.2"), 443)
    (src, sport), (dst, dport) = ends
    packet = build(options=[MpFail(dsn=5)], link="none", src=src, sport=sport, dst=dst, dport=dport)
    assert complaint("eth0", packet) == Complaint("eth0", "MP_FAIL", ends)


def test_a_count_without_ends_tells_from_the_third_on_within_seconds() -> None:
    crowd = Crowd(3.0)
    assert [dict(crowd.add(float(now), {FALLBACK: 1})) for now in (0, 1, 2, 9, 10)] == [
        {},
        {},
        {FALLBACK: 3},
        {},
        {},
    ]
    assert crowd.add(11.0, {FALLBACK: 5}) == {FALLBACK: 7}


def test_a_reset_for_a_damaged_mapping_tells_alone() -> None:
    assert Crowd(3.0).add(0.0, {"MPTcpExtDSSCorruptionReset": 1}) == {"MPTcpExtDSSCorruptionReset": 1}


def test_a_count_that_is_explained_tells_nothing_for_a_while() -> None:
    crowd = Crowd(within=3.0)
    assert crowd.add(0.0, {FALLBACK: 2}) == {}
    crowd.explain(0.5, FALLBACK)
    assert crowd.add(1.0, {FALLBACK: 9}) == {}
    assert crowd.add(3.6, {FALLBACK: 2}) == {}
    assert crowd.add(3.7, {FALLBACK: 1}) == {FALLBACK: 3}
