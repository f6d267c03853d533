# SPDX-License-Identifier: Apache-2.0
"""A grammar of TCP packets: valid, nearly valid and broken on every layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from random import Random
from typing import Any, Literal

from emptcp.packet.build import build
from emptcp.packet.layers import Extension, Link, Vlan, fragment_header, options_header, routing_header
from emptcp.packet.mptcp import (
    AddAddress,
    Dss,
    MpCapable,
    MpFail,
    MpFastclose,
    MpJoinAck,
    MpJoinSyn,
    MpJoinSynAck,
    MpPrio,
    MpTcpReset,
    RemoveAddress,
)
from emptcp.packet.tcp import MaximumSegmentSize, Option, Sack, SackPermitted, Timestamps, WindowScale

HOSTILE = bytes.fromhex("1e035101 1e1031 1e0c2003 080a 1e 00 01 ff")
"""Payload that looks like options, for whoever reads on behind them."""

LONGEST_BLOCK = 40
FLAGS = ("A", "A", "A", "A", "PA", "S", "SA", "FA", "RA", "R", "F", "", "AU", "AECN", "SFRPAUECN")
V4, V6 = IPv4Address("10.0.0.9"), IPv6Address("fd00::9")
HMAC = b"hmachmac"
KEYS: tuple[tuple[int, ...], ...] = ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4))
"""Parts of an MP_CAPABLE: the keys, the data's length, the checksum."""

FORMS: tuple[tuple[bytes | None, bool, Literal[0, 1]], ...] = (
    (HMAC, False, 1),
    (None, True, 1),
    (None, False, 0),
)
"""ADD_ADDR: announcement and echo of version 1, announcement of version 0."""


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet and what it begins with."""

    data: bytes
    link: Link = "ethernet"


def _padded(keys: tuple[int, ...]) -> tuple[int | None, int | None, int | None, int | None]:
    parts: list[int | None] = [*keys, None, None, None, None]
    return parts[0], parts[1], parts[2], parts[3]


def _legal_options() -> tuple[bytes, ...]:
    """Every MPTCP option in each of its lengths, of versions 0 and 1, and TCP's usual ones."""
    dss = [
        Dss(ack, dsn, 1, 4, checksum=check, data_fin=fin, wide_ack=wide, wide_dsn=wide, stray_flags=stray)
        for ack in (None, 7)
        for dsn in (None, 9)
        for check in (None, 3)
        for fin in (False, True)
        for wide in (False, True)
        for stray in (0, 0xE0)
    ]
    capable = [
        MpCapable(*_padded(keys), flags, version)
        for keys in KEYS
        for version in (0, 1, 2)
        for flags in (0x01, 0x81, 0x21, 0x41, 0x00)
    ]
    addresses = [
        AddAddress(number, address, port, hmac, echo, version)
        for number in (0, 1)
        for address in (V4, V6)
        for port in (None, 80)
        for hmac, echo, version in FORMS
    ]
    few: list[Option] = [
        MpJoinSyn(1, 2),
        MpJoinSynAck(HMAC, 3, backup=True),
        MpJoinAck(bytes(20)),
        *(RemoveAddress(tuple(range(count))) for count in range(1, 10)),
        MpPrio(True),
        MpPrio(False, 3),
        MpFail(7),
        MpFastclose(9),
        MpTcpReset(4, 1),
        MaximumSegmentSize(1460),
        WindowScale(7),
        WindowScale(15),
        SackPermitted(),
        *(Sack(((1, 2),) * count) for count in range(1, 5)),
        Timestamps(1, 2),
    ]
    return tuple({option.encode(): None for option in [*dss, *capable, *addresses, *few]})


LEGAL = _legal_options()
USUAL = b"\x01\x01" + Timestamps(1, 2).encode()
OTHERS = (
    b"\x13\x12" + bytes(16),
    b"\x1d\x10" + bytes(14),
    b"\x22\x02",
    b"\x22\x0acookie!!",
    b"\xfe\x04\xf9\x89",
    b"\xfe\x03\xf9",
    b"\xfe\x06\x00\x01\x02\x03",
    b"\x1e\x02",
    b"\x63\x02",
    b"\x63\x05abc",
)
SLOW = (b"\x01" * 4, b"\x01" * 40, b"\x04\x02" * 20, b"\x01\x04\x02" * 13 + b"\x01")
"""Blocks through which a walk takes many turns."""

ENDS = (
    b"",
    b"",
    b"",
    b"\x00",
    b"\x00\x00\x00",
    b"\x00\x01\x07",
    b"\x1e\x20",
    b"\x1e",
    b"\x08\x01",
    b"\x63\x00",
)


def option(random: Random) -> bytes:
    """Return one option: legal, one byte too long or short, of an unknown kind or subtype, or a NOP."""
    which = random.randrange(10)
    if which < 2:
        return b"\x01" * random.choice((1, 1, 1, 2, 3, 4, 12))
    if which == 2:
        return random.choice(OTHERS)
    raw = random.choice(LEGAL)
    if which == 3:
        raw = raw[:-1] if random.random() < 0.5 else raw + b"\x01"
        return raw[:1] + bytes((len(raw),)) + raw[2:]
    if which == 4 and len(raw) > 2:
        at = random.randrange(2, min(len(raw), 4))
        return raw[:at] + bytes((random.randrange(256),)) + raw[at + 1 :]
    return raw


def block(random: Random) -> bytes:
    """Return an option block, a multiple of 4 long and at most 40 bytes."""
    if random.random() < 0.03:
        return random.choice(SLOW)
    taken = USUAL if random.random() < 0.4 else b""
    for _ in range(random.choice((0, 1, 1, 2, 3, 5, 14))):
        one = option(random)
        if len(taken) + len(one) <= LONGEST_BLOCK:
            taken += one
    taken += random.choice(ENDS)[: LONGEST_BLOCK - len(taken)]
    return taken + random.choice((b"\x01", b"\x01", b"\x00")) * (-len(taken) % 4)


def _extensions(random: Random) -> list[Extension]:
    makers: list[Callable[[], Extension]] = [
        lambda: options_header(0),
        lambda: options_header(60, random.choice((8, 16, 64))),
        lambda: routing_header((V6,), random.choice((0, 0, 1))),
        lambda: fragment_header(random.choice((0, 0, 5)), random.random() < 0.5),
        lambda: Extension(random.choice((50, 51, 59, 135)), bytes(7)),
    ]
    weights = (6, 6, 2, 2, 1)
    count = random.choice((0, 0, 0, 1, 1, 2, 8, 9))
    return [made() for made in random.choices(makers, weights, k=count)]


def _rarely(random: Random, chance: float, how: dict[str, Any], name: str, value: Any) -> None:
    if random.random() < chance:
        how[name] = value


def _lies(random: Random, how: dict[str, Any]) -> None:
    """Let a field say what is not so, in few packets."""
    _rarely(random, 0.10, how, "checksum", random.choice((0, 0xFFFF, random.randrange(65536))))
    _rarely(random, 0.02, how, "data_offset", random.randrange(16))
    _rarely(random, 0.04, how, "ip_length", random.choice((0, 0, 19, 40, 60, 65535, random.randrange(200))))
    _rarely(random, 0.01, how, "ethertype", random.choice((0x0800, 0x86DD, 0x8100, 0x88A8, 0x0806, 0x8847)))
    _rarely(random, 0.02, how, "protocol", random.choice((4, 17, 41, 47, 50)))
    if how["family"] == 4:
        _rarely(random, 0.02, how, "ihl", random.randrange(16))
        _rarely(random, 0.04, how, "ip_checksum", random.randrange(65536))
        _rarely(random, 0.06, how, "fragment", random.choice(((0, True), (3, True), (3, False))))


def _tags(random: Random) -> list[Vlan]:
    return [
        Vlan(random.choice((0, 5, 4095)), random.choice((0x8100, 0x8100, 0x88A8)), random.randrange(8))
        for _ in range(random.choice((0, 0, 0, 0, 1, 1, 2, 3)))
    ]


def packet(random: Random) -> Packet:
    """Return a packet that a stack, or a fool, could send."""
    link: Link = "none" if random.random() < 0.1 else "ethernet"
    family = random.choice((4, 4, 6))
    ports = random.choice(((40000, 5001), (5001, 40000), (80, 80)))
    how: dict[str, Any] = {
        "link": link,
        "family": family,
        "sport": ports[0],
        "dport": ports[1],
        "seq": random.randrange(2**32),
        "flags": random.choice(FLAGS),
        "window": random.choice((0, 1, 512, 65535, random.randrange(65536))),
        "tos": random.randrange(4),
        "options": [block(random)],
        "payload": random.choice((b"", b"", b"", b"x", HOSTILE, HOSTILE * 5, bytes(1000))),
        "trailer": random.choice((b"", b"", b"", b"\0" * 6, b"padding!" * 6)),
    }
    if link == "ethernet":
        how["vlan"] = _tags(random)
    if random.random() < 0.3:
        how["src"], how["dst"] = ("10.0.0.2", "10.0.0.1") if family == 4 else ("fd00::2", "fd00::1")
    if family == 4:
        how["ip_options"] = random.choice((b"", b"", b"", b"\x01" * 8, b"\x01" * 40))
    else:
        how["extensions"] = _extensions(random)
    _lies(random, how)
    return Packet(build(**how), link)
