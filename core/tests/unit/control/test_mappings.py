# SPDX-License-Identifier: Apache-2.0
"""When data that passes without DSS tells that a subflow lost it."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from emptcp.control import streaks
from emptcp.control.mappings import AT_MOST_EVERY, Mappings, Resent
from emptcp.control.streaks import Ends
from emptcp.packet.build import build
from emptcp.packet.decode import Decoded, decode
from emptcp.packet.mptcp import Dss
from emptcp.packet.tcp import Timestamps

ENDS = (ip_address("10.0.0.1"), 4000), (ip_address("10.0.0.2"), 443)
DSS = Dss(data_ack=1, dsn=1, data_length=4)


def packet(*options: Any, payload: bytes = b"data", ends: Ends = ENDS) -> Decoded:
    (src, sport), (dst, dport) = ends
    return decode(
        build(
            link="none", src=src, sport=sport, dst=dst, dport=dport, options=list(options), payload=payload
        ),
        "none",
    )


def told(*packets: Decoded, step: float = 0.1, devices: str = "e") -> list[bool]:
    """What is told of packets that pass, on the devices in turn."""
    known = Mappings()
    return [
        known.lost(number * step, devices[number % len(devices)], ends_of(one), one)
        for number, one in enumerate(packets)
    ]


def ends_of(packet: Decoded) -> Ends:
    assert packet.ip is not None
    assert packet.tcp is not None
    return (packet.ip.src, packet.tcp.sport), (packet.ip.dst, packet.tcp.dport)


def test_several_packets_without_one_in_a_row_tell_once() -> None:
    plain = packet(Timestamps(1, 2))
    assert told(packet(DSS), plain, plain, plain, plain, plain) == [False, False, False, True, False, False]


def test_a_mapping_in_between_begins_anew() -> None:
    assert not any(told(packet(DSS), packet(), packet(), packet(DSS), packet(), packet()))


def test_what_comes_in_with_one_and_goes_out_without_tells() -> None:
    assert told(*[packet(DSS), packet()] * 4, devices="io") == [False] * 5 + [True, False, False]
    assert not any(told(*[packet(DSS), packet(DSS)] * 4, devices="io"))


def test_plain_tcp_and_the_other_direction_tell_nothing() -> None:
    back = packet(ends=ENDS[::-1])
    assert not any(told(*[packet()] * 9))
    assert not any(told(packet(DSS), *[back] * 9))


def test_what_had_its_last_mapping_long_ago_may_be_another_connection() -> None:
    assert not any(told(packet(DSS), *[packet()] * 9, step=streaks.MEMORY + 1))


def test_the_one_seen_least_recently_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaks, "MOST", 2)
    others: list[Ends] = [((ip_address("10.0.0.1"), port), ENDS[1]) for port in (1, 2)]
    assert not any(told(packet(DSS), *(packet(DSS, ends=one) for one in others), *[packet()] * 5))
    assert told(packet(DSS, ends=others[0]), packet(DSS), *[packet()] * 3)[-1]


def suspected(*packets: Decoded, devices: str = "e", leaves: bool = False) -> list[bool]:
    known = Mappings()
    return [
        known.suspicious(number * 0.1, devices[number % len(devices)], leaves, ends_of(one), one)
        for number, one in enumerate(packets)
    ]


def test_data_that_never_had_a_mapping_makes_suspicious_once() -> None:
    assert suspected(*[packet(Timestamps(1, 2))] * 5) == [False, False, True, False, False]
    assert suspected(*[packet()] * 2, packet(DSS), *[packet()] * 3) == [*[False] * 5, True]


def test_each_place_is_suspected_for_itself() -> None:
    assert suspected(*[packet()] * 6, devices="io") == [*[False] * 4, True, True]
    known = Mappings()
    told = [known.suspicious(0.1, "e", leaves, ENDS, packet()) for leaves in [True, False] * 2 + [True]]
    assert told == [*[False] * 4, True]


def test_suspicion_and_loss_are_counted_apart() -> None:
    known, one = Mappings(), packet()
    both = [
        (known.lost(0.1, "e", ENDS, each), known.suspicious(0.1, "e", False, ENDS, each))
        for each in [packet(DSS), *[one] * 3]
    ]
    assert both[-1] == (True, True)
    assert not any(any(each) for each in both[:-1])


def resent(*mappings: tuple[int, int], step: float = 0.1, first: int = 0) -> list[bool]:
    """Whether data makes suspicious, whose places in the connection and in the subflow are these."""
    known, offset = Resent(), first
    found = []
    for number, (dsn, subflow_seq) in enumerate(mappings):
        mapped = Dss(
            dsn=(dsn + offset) % (1 << 64), subflow_seq=(subflow_seq + offset) & 0xFFFFFFFF, data_length=4
        )
        found.append(known.suspicious(number * step, "e", ENDS, packet(mapped)))
    return found


@pytest.mark.parametrize("first", [0, (1 << 32) - 25, (1 << 64) - 25])
def test_the_oldest_data_sent_thrice_on_the_same_subflow_makes_suspicious(first: int) -> None:
    stands = (10, 1), (20, 11), (30, 21), (10, 31), (10, 41), (10, 51), (10, 61)
    assert resent(*stands, first=first) == [False] * 5 + [True, False]
    assert resent(*stands, step=AT_MOST_EVERY, first=first) == [False] * 5 + [True, True]


def test_neither_one_mapping_on_many_packets_nor_what_tcp_sends_again_makes_suspicious() -> None:
    assert not any(resent((10, 1), *[(20, 11)] * 9, *[(10, 1)] * 9))


def test_newer_data_begins_anew() -> None:
    assert not any(resent((30, 1), (10, 11), (20, 21), (40, 31), (10, 41), (20, 51)))


def test_what_was_newest_is_forgotten() -> None:
    assert not any(resent((30, 1), (10, 11), (10, 21), (10, 31), (10, 41), step=streaks.MEMORY + 1))


def test_data_without_a_mapping_and_acks_say_nothing_of_sending_again() -> None:
    known = Resent()
    assert not any(
        known.suspicious(0.1, "e", ENDS, packet(*options)) for options in [(), (Dss(data_ack=1),)] * 5
    )
