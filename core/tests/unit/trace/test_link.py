# SPDX-License-Identifier: Apache-2.0
"""Link headers come off and go back on, for every link type; tshark sees the same options."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from emptcp.errors import EmptcpError
from emptcp.packet.build import build
from emptcp.packet.decode import decode
from emptcp.packet.mptcp import Dss, MpPrio
from emptcp.trace.fields import fields, subtypes
from emptcp.trace.link import carried

OPTIONS = (Dss(data_ack=1), MpPrio(True))
V4, V6 = (build(link="none", family=family, options=OPTIONS) for family in (4, 6))
TAGGED = build(vlan=(5,), options=OPTIONS)[14:]


def sll(protocol: int) -> bytes:
    return struct.pack("!HHH8sH", 0, 1, 6, b"\x02\0\0\0\0\x01\0\0", protocol)


def sll2(protocol: int) -> bytes:
    return struct.pack("!HHIHBB8s", protocol, 0, 3, 1, 0, 6, b"\x02\0\0\0\0\x01\0\0")


CASES = {
    "Ethernet": (1, b"", build(options=OPTIONS), "ethernet"),
    "Ethernet, QinQ": (1, b"", build(vlan=(1, 2), options=OPTIONS), "ethernet"),
    "SLL": (113, sll(0x0800), V4, "none"),
    "SLL, IPv6": (113, sll(0x86DD), V6, "none"),
    "SLL, VLAN": (113, sll(0x8100), TAGGED, "ethernet"),
    "SLL2": (276, sll2(0x0800), V4, "none"),
    "SLL2, IPv6": (276, sll2(0x86DD), V6, "none"),
    "SLL2, VLAN": (276, sll2(0x8100), TAGGED, "ethernet"),
    "PPP": (9, b"\xff\x03\x00\x21", V4, "none"),
    "PPP, IPv6": (9, b"\xff\x03\x00\x57", V6, "none"),
    "PPP, no address": (9, b"\x00\x21", V4, "none"),
    "PPP, short protocol": (9, b"\xff\x03\x21", V4, "none"),
    "PPP in HDLC": (50, b"\xff\x03\x00\x57", V6, "none"),
    "raw": (101, b"", V4, "none"),
    "raw, IPv6": (101, b"", V6, "none"),
    "raw by another number": (12, b"", V4, "none"),
    "IPv4": (228, b"", V4, "none"),
    "IPv6": (229, b"", V6, "none"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_link_header_comes_off_to_a_packet_and_goes_back_on(name: str) -> None:
    number, head, packet, link = CASES[name]
    taken = carried(number, head + packet)
    assert taken is not None
    assert taken.link == link
    assert decode(taken.packet, taken.link).subtypes == (2, 5)
    assert taken.restored(taken.packet) == head + packet
    assert taken.restored(taken.packet + b"grown") == head + packet + b"grown"


@pytest.mark.parametrize("name", CASES)
def test_tshark_sees_the_same_options_behind_the_link_header(
    tmp_path: Path, tshark: Callable[..., list[dict[str, str]]], name: str
) -> None:
    number, head, packet, _ = CASES[name]
    data = head + packet
    path = tmp_path / "in.pcap"
    header = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, number)
    path.write_bytes(header + struct.pack("<IIII", 0, 0, len(data), len(data)) + data)
    (row,) = tshark(path, ("tcp.options.mptcp.subtype",))
    taken = carried(number, data)
    assert taken is not None
    assert subtypes(fields(taken.packet, taken.link)) == [2, 5]
    assert row["tcp.options.mptcp.subtype"] == "2,5"


@pytest.mark.parametrize(
    ("number", "data"),
    [
        (1, bytes(13)),
        (113, bytes(15)),
        (276, bytes(19)),
        (9, b"\xff\x03\xc0\x21\x01\x01"),
        (9, b"\xff\x03\x00\x21"),
        (9, b""),
        (101, b""),
        (101, b"\x00\x01"),
    ],
)
def test_what_carries_no_packet_is_not_run(number: int, data: bytes) -> None:
    assert carried(number, data) is None


def test_arp_in_a_cooked_capture_is_given_an_ethernet_header_and_gets_its_own_back() -> None:
    data = sll(0x0806) + bytes(28)
    taken = carried(113, data)
    assert taken is not None
    assert taken.packet[12:14] == b"\x08\x06"
    assert taken.restored(taken.packet) == data


def test_an_unknown_link_type_is_named_with_the_known_ones() -> None:
    with pytest.raises(EmptcpError, match="link type 147 is not known") as caught:
        carried(147, b"")
    assert "Ethernet (1)" in caught.value.fix
