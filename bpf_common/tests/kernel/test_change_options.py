# SPDX-License-Identifier: Apache-2.0
"""Inserting, removing and rewriting options: what comes out, and why nothing did."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

import pytest

from emptcp.packet.build import build
from emptcp.packet.decode import decode
from emptcp.packet.layers import fragment_header, options_header
from emptcp.packet.mptcp import AddAddress, Dss, MpPrio, MpTcpReset, RemoveAddress
from emptcp.packet.tcp import Sack, Timestamps

pytestmark = pytest.mark.kernel

HEADER = 20
TS = b"\x01\x01" + Timestamps(11, 12).encode()
ACK8 = Dss(data_ack=7).encode()
MAP = Dss(data_ack=7, dsn=9, wide_ack=False).encode()
MAP8 = Dss(data_ack=7, dsn=9).encode()
PRIO = MpPrio(True).encode()
ADD4 = AddAddress(3, IPv4Address("10.9.8.7"), None, b"hmachmac").encode()
ADD4_PORT = AddAddress(3, IPv4Address("10.9.8.7"), 443, b"hmachmac").encode()
HOSTILE = b"\x1e\x10\x31" + b"\x1e\x03\x51" * 40


def options_of(packet: bytes, link: Any = "ethernet") -> list[bytes]:
    """Return a valid packet's options without NOPs."""
    seen = decode(packet, link)
    assert seen.valid
    assert seen.tcp is not None
    return [option.raw for option in seen.tcp.options if option.kind > 1]


def payload_of(packet: bytes) -> bytes:
    return decode(packet).payload


def block_of(packet: bytes) -> bytes:
    seen = decode(packet)
    assert seen.tcp is not None
    return seen.tcp.block


IN_PLACE = [
    ("NOPs in front", [TS, MAP, b"\x01\x01"], PRIO, 36),
    ("two and two NOPs, nothing else free", [TS, MAP8, b"\x01\x01"], PRIO, 40),
    ("a row that fits", [PRIO, b"\x01\x01\x01\x01\x01"], RemoveAddress((1, 2)).encode(), 8),
    ("NOPs one by one", [b"\x01", PRIO, b"\x01", PRIO, b"\x01", PRIO], PRIO, 12),
    ("at an odd place", [b"\x01\x01\x01", PRIO, Timestamps(1, 2).encode()], b"\x63\x03\x77", 16),
    ("forty NOPs", [b"\x01" * 40], ADD4, 40),
    ("all forty", [b"\x01" * 40], b"\x63\x28" + bytes(range(38)), 40),
    ("behind EOL are zeros", [PRIO, b"\x00" * 5], b"\x63\x05abc", 8),
]


@pytest.mark.parametrize(("what", "options", "new", "size"), IN_PLACE, ids=[row[0] for row in IN_PLACE])
@pytest.mark.parametrize("family", [4, 6])
def test_an_option_goes_into_nops_wherever_they_are(
    change: Any, family: Any, what: str, options: list[bytes], new: bytes, size: int
) -> None:
    packet = build(family=family, options=options, payload=HOSTILE)
    changed = change(packet, "insert", data=new)
    assert changed.done, changed.reason
    assert len(changed.packet) == len(packet)
    assert len(block_of(changed.packet)) == size
    before = options_of(packet)
    after = options_of(changed.packet)
    assert [one for one in after if one != new] == [one for one in before if one != new]
    assert sorted(after) == sorted([*before, new])
    assert payload_of(changed.packet) == HOSTILE


def test_a_row_of_nops_is_used_without_moving_anything(change: Any) -> None:
    packet = build(options=[TS, b"\x01" * 4, ACK8], payload=b"x")
    after = block_of(change(packet, "insert", data=PRIO).packet)
    assert after == TS + PRIO + b"\x01" + ACK8


def test_the_tables_follow_the_options(change: Any) -> None:
    changed = change(build(options=[TS, MAP8, b"\x01\x01"], payload=b"x"), "insert", data=PRIO)
    found = changed.found
    assert found.timestamps == HEADER
    assert (found.at[2], found.len[2]) == (HEADER + 10, 26)
    assert (found.at[5], found.len[5]) == (HEADER + 36, 3)
    assert found.options_len == 40
    assert found.block[:40] == block_of(changed.packet)


GROWTH = [
    ("no options", [], PRIO, 4),
    ("timestamps", [TS], ADD4, 28 - 12),
    ("timestamps and DSS", [TS, ACK8], ADD4, 40 - 24),
    ("only by closing up", [TS, ACK8], ADD4_PORT, 40 - 24),
    ("beside SACK", [TS, ACK8, Sack(((1, 2),)).encode(), b"\x01\x01"], b"\x63\x08abcdef", 4),
    ("EOL in the end", [PRIO, b"\x00"], b"\x63\x04ab", 4),
]


@pytest.mark.parametrize(("what", "options", "new", "grown"), GROWTH, ids=[row[0] for row in GROWTH])
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("vlan", [(), (5,), (5, 6)])
def test_a_pure_ack_grows(
    change: Any, family: Any, vlan: Any, what: str, options: list[bytes], new: bytes, grown: int
) -> None:
    packet = build(family=family, vlan=vlan, options=options)
    changed = change(packet, "insert", data=new)
    assert changed.done, changed.reason
    assert len(changed.packet) == len(packet) + grown
    assert options_of(changed.packet) == [*options_of(packet), new]
    found = changed.found
    assert found.payload == found.ip_end == len(changed.packet)
    assert (found.payload_len, found.flags & 2) == (0, 2)


@pytest.mark.parametrize("family", [4, 6])
def test_a_pure_ack_grows_without_a_link_layer(change: Any, family: Any) -> None:
    packet = build(family=family, link="none", options=[TS, ACK8])
    changed = change(packet, "insert", data=PRIO, link="none")
    assert changed.done
    assert options_of(changed.packet, "none") == [TS[2:], ACK8, PRIO]


@pytest.mark.parametrize(
    "ip", [{"ip_options": b"\x01" * 12}, {"family": 6, "extensions": [options_header(60)]}]
)
def test_a_pure_ack_grows_behind_more_headers(change: Any, ip: Any) -> None:
    packet = build(options=[TS, ACK8], **ip)
    changed = change(packet, "insert", data=PRIO)
    assert changed.done
    assert options_of(changed.packet) == [TS[2:], ACK8, PRIO]


@pytest.mark.parametrize("padding", [b"\0", b"\0" * 6, b"garbage", b"\xee" * 40])
@pytest.mark.parametrize("new", [PRIO, ADD4])
def test_growing_begins_at_the_end_of_the_ip_packet(change: Any, padding: bytes, new: bytes) -> None:
    packet = build(trailer=padding)
    changed = change(packet, "insert", data=new)
    grown = -(-len(new) // 4) * 4
    assert changed.done, changed.reason
    assert len(changed.packet) == max(len(packet), 54 + grown)
    assert options_of(changed.packet) == [new]
    assert changed.packet[54 + grown :] == packet[54 + grown :]


REFUSED = [
    (
        "full",
        {"options": [Dss(1, 2, checksum=3).encode(), Timestamps(1, 2).encode(), b"\x01\x01"]},
        "no_space",
    ),
    ("data", {"options": [TS], "payload": b"x"}, "not_pure_ack"),
    ("FIN", {"options": [b"\x01" * 8], "flags": "FA"}, "closing"),
    ("RST", {"options": [b"\x01" * 8], "flags": "R"}, "closing"),
    ("SYN without room", {"flags": "S"}, "not_pure_ack"),
    ("no ACK", {"flags": "P"}, "not_pure_ack"),
    ("garbage behind EOL", {"options": [b"\x00\x01\x01\x01" + b"\x01" * 8]}, "bad_option"),
    ("broken behind NOPs", {"options": [b"\x01\x01\x01\x01\x1e\x09\x20\x01"]}, "bad_option"),
    ("first fragment", {"options": [b"\x01" * 8], "fragment": (0, True)}, "fragment"),
    ("IPv6 fragment", {"options": [b"\x01" * 8], "family": 6, "extensions": [fragment_header()]}, "fragment"),
    ("MD5", {"options": [b"\x13\x12" + bytes(16), b"\x01" * 8]}, "signed"),
    ("AO", {"options": [b"\x1d\x10" + bytes(14), b"\x01" * 8]}, "signed"),
    ("SYN with data", {"options": [b"\x01" * 8], "flags": "S", "payload": b"x"}, "syn_data"),
    ("length 0", {"options": [b"\x01" * 8], "ip_length": 0}, "length_unknown"),
]


@pytest.mark.parametrize(("what", "packet", "reason"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_cannot_be_inserted_leaves_the_packet_as_it_was(
    change: Any, what: str, packet: dict[str, Any], reason: str
) -> None:
    raw = build(**packet)
    changed = change(raw, "insert", data=PRIO)
    assert (changed.done, changed.reason) == (False, reason)
    assert changed.packet == raw
    assert not changed.found.flags & 4


@pytest.mark.parametrize("flags", ["FA", "R"])
def test_a_closing_packet_still_loses_options(change: Any, flags: str) -> None:
    changed = change(
        build(options=[TS, MpTcpReset(1).encode(), RemoveAddress((1,)).encode()], flags=flags),
        "remove",
        number=4,
    )
    assert changed.done


@pytest.mark.parametrize(
    ("new", "reason"),
    [
        (b"\x01\x02", "bad_option"),
        (b"\x00\x02", "bad_option"),
        (b"\x1e\x04\x51", "bad_option"),
        (b"\x1e\x02\x51", "bad_option"),
        (b"\x1e", "bad_option"),
        (b"\x63\x29" + bytes(38), "bad_option"),
        (ACK8, "unsafe"),
    ],
    ids=lambda value: value.hex() if isinstance(value, bytes) else value,
)
def test_only_one_whole_option_is_inserted(change: Any, new: bytes, reason: str) -> None:
    raw = build(options=[TS])
    changed = change(raw, "insert", data=new)
    assert (changed.done, changed.reason, changed.packet) == (False, reason, raw)


def test_a_dss_is_inserted_when_told_so(change: Any) -> None:
    changed = change(build(options=[TS]), "insert", data=ACK8, unsafe=True)
    assert options_of(changed.packet) == [TS[2:], ACK8]


def test_a_gso_packet_is_changed_in_place_only(change_tc: Any, gso_ctx: bytes) -> None:
    packet = build(options=[TS, MAP8, b"\x01\x01"], payload=HOSTILE * 9)
    assert change_tc(packet, "insert", data=PRIO, ctx=gso_ctx).done
    full = build(options=[TS], payload=HOSTILE * 9)
    changed = change_tc(full, "insert", data=PRIO, ctx=gso_ctx)
    assert (changed.done, changed.reason, changed.packet) == (False, "gso", full)


def test_a_tag_in_the_skb_stays_there(change_tc: Any) -> None:
    packet = build(options=[TS, ACK8])
    changed = change_tc(packet, "insert", data=PRIO, tag=5)
    assert changed.done
    assert options_of(changed.packet) == [TS[2:], ACK8, PRIO]


@pytest.mark.parametrize("odd", [b"", b"\x01", b"\x01\x01\x01"])
@pytest.mark.parametrize("family", [4, 6])
def test_removing_leaves_nops(change: Any, family: Any, odd: bytes) -> None:
    packet = build(family=family, options=[odd, ADD4, RemoveAddress((9,)).encode()], payload=HOSTILE)
    changed = change(packet, "remove", number=3)
    assert changed.done
    assert options_of(changed.packet) == [RemoveAddress((9,)).encode()]
    assert block_of(changed.packet) == block_of(packet).replace(ADD4, b"\x01" * 16)
    assert payload_of(changed.packet) == HOSTILE
    assert not changed.found.subtypes >> 3 & 1


def test_removing_takes_each_one_when_there_are_several(change: Any) -> None:
    options = [PRIO, RemoveAddress((1,)).encode(), PRIO, MpPrio(False).encode()]
    changed = change(build(options=options), "remove", number=5)
    assert changed.done
    assert options_of(changed.packet) == [RemoveAddress((1,)).encode()]


def test_removing_leaves_what_is_broken_alone(change: Any) -> None:
    packet = build(options=[PRIO, b"\x00\x1e\x03\x51\x77"])
    changed = change(packet, "remove", number=5)
    assert block_of(changed.packet) == b"\x01\x01\x01\x00\x1e\x03\x51\x77"
    assert decode(changed.packet).tcp_checksum_right


@pytest.mark.parametrize("number", [0, 1, 3, 9, 15])
def test_what_is_not_there_is_not_removed(change: Any, number: int) -> None:
    packet = build(options=[TS, MAP8], payload=HOSTILE)
    changed = change(packet, "remove", number=number)
    assert (changed.done, changed.reason, changed.packet) == (False, "no_option", packet)


def test_a_full_block_without_the_option_keeps_its_payload(change: Any) -> None:
    packet = build(options=[TS, MAP8, b"\x01\x01"], payload=ADD4 * 50)
    for number in (0, 1, 3, 4, 5, 6, 7, 8):
        assert change(packet, "remove", number=number).packet == packet


def test_a_dss_goes_only_when_told_so(change: Any) -> None:
    packet = build(options=[TS, MAP8], payload=HOSTILE)
    changed = change(packet, "remove", number=2)
    assert (changed.done, changed.reason, changed.packet) == (False, "unsafe", packet)
    changed = change(packet, "remove", number=2, unsafe=True)
    assert options_of(changed.packet) == [TS[2:]]


def test_a_fragment_loses_nothing(change: Any) -> None:
    packet = build(options=[PRIO], fragment=(0, True))
    changed = change(packet, "remove", number=5)
    assert (changed.done, changed.reason, changed.packet) == (False, "fragment", packet)


def test_a_bit_of_an_option_is_rewritten(change: Any) -> None:
    for shift in range(5):
        packet = build(options=[b"\x01" * shift, PRIO], payload=HOSTILE)
        changed = change(packet, "rewrite_option", number=5, length=2, data=b"\x50")
        assert changed.done
        assert options_of(changed.packet) == [MpPrio(False).encode()]
        assert changed.found.block[shift + 2] == 0x50


@pytest.mark.parametrize(
    ("options", "number", "at", "data", "reason"),
    [
        ([PRIO], 4, 2, b"\x40", "no_option"),
        ([PRIO, PRIO], 5, 2, b"\x50", "bad_option"),
        ([PRIO], 5, 3, b"\x50", "bad_option"),
        ([PRIO], 5, 0, b"\x1f", "bad_option"),
        ([PRIO], 5, 1, b"\x04", "bad_option"),
        ([PRIO], 5, 2, b"\x20", "bad_option"),
        ([ACK8], 2, 5, b"\x01", "unsafe"),
    ],
)
def test_a_rewrite_never_moves_an_option_s_edges(
    change: Any, options: list[bytes], number: int, at: int, data: bytes, reason: str
) -> None:
    packet = build(options=[TS, *options])
    changed = change(packet, "rewrite_option", number=number, length=at, data=data)
    assert (changed.done, changed.reason, changed.packet) == (False, reason, packet)


def test_a_dss_is_rewritten_when_told_so(change: Any) -> None:
    packet = build(options=[TS, ACK8])
    changed = change(packet, "rewrite_option", number=2, length=5, data=b"\x01", unsafe=True)
    assert changed.done
    assert options_of(changed.packet)[1] == ACK8[:5] + b"\x01" + ACK8[6:]
