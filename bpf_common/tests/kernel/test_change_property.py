# SPDX-License-Identifier: Apache-2.0
"""Any job on any packet: it comes out as it went in, or valid with exactly the change that was asked for.

Both back-ends give the same bytes and the same answer.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from emptcp.packet.build import build
from emptcp.packet.decode import Decoded, decode
from emptcp.packet.layers import options_header
from emptcp.packet.mptcp import AddAddress, Dss, MpPrio, RemoveAddress
from emptcp.packet.tcp import Sack, Timestamps

# The first one loads every program, on kernels under load for minutes.
pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

NOP, EOL = b"\x01", b"\x00"
HOSTILE = bytes.fromhex("1e035101 1e1031 1e0c2003 080a 1e 00 01 ff")


@dataclass(frozen=True)
class Given:
    """A packet, and with what arguments it was built."""

    packet: bytes
    link: Any
    how: dict[str, Any]

    def __repr__(self) -> str:
        return f"build({', '.join(f'{k}={v!r}' for k, v in self.how.items())})"


def given_packet(how: dict[str, Any]) -> Given:
    return Given(build(**how), how["link"], how)


def option_bytes() -> st.SearchStrategy[bytes]:
    """Options as real stacks send them, NOPs between them, and any others."""
    usual = [
        Timestamps(1, 2),
        Dss(1),
        Dss(1, wide_ack=False),
        Dss(1, 2, checksum=3),
        Dss(None, 2, wide_dsn=False),
        MpPrio(True),
        RemoveAddress((1, 2, 3)),
        Sack(((1, 2),)),
        AddAddress(1, IPv4Address("10.0.0.9"), None, b"hmachmac"),
    ]
    other = st.builds(
        lambda kind, value: bytes((kind, 2 + len(value))) + value,
        st.sampled_from([2, 30, 30, 99, 254]),
        st.binary(max_size=8),
    )
    return st.one_of(st.just(NOP), st.sampled_from([o.encode() for o in usual]), other)


def block(parts: list[bytes], end: bytes) -> bytes:
    """As many whole options as fit, then an end."""
    taken = b""
    for part in parts:
        if len(taken) + len(part) <= 40:
            taken += part
    taken += end[: 40 - len(taken)]
    return taken + NOP * (-len(taken) % 4)


ENDS = [b"", b"", b"", EOL, EOL * 3, b"\x00\x01\x07", b"\x1e\x20"]
BLOCKS = st.builds(block, st.lists(option_bytes(), max_size=14), st.sampled_from(ENDS))


@st.composite
def packets(draw: st.DrawFn) -> Given:
    """Any TCP packet that a stack could send, padded or not, its checksum right or wrong."""
    link = draw(st.sampled_from(["ethernet", "ethernet", "none"]))
    family = draw(st.sampled_from([4, 6]))
    how: dict[str, Any] = {
        "link": link,
        "family": family,
        "flags": draw(st.sampled_from(["A", "A", "A", "PA", "S", "SA", "FA", "RA"])),
        "options": [draw(BLOCKS)],
        "payload": draw(st.sampled_from([b"", b"", b"x", HOSTILE, HOSTILE * 5])),
        "window": draw(st.integers(0, 65535)),
        "seq": draw(st.integers(0, 2**32 - 1)),
        "checksum": draw(st.one_of(st.none(), st.none(), st.integers(0, 65535))),
        "trailer": draw(st.sampled_from([b"", b"", b"\0" * 6, b"padding!" * 6])),
    }
    if link == "ethernet":
        how["vlan"] = draw(st.sampled_from([(), (), (5,), (0,), (7, 8)]))
    if family == 4:
        how["ip_options"] = draw(st.sampled_from([b"", b"", b"\x01" * 8]))
    else:
        how["extensions"] = draw(st.sampled_from([[], [], [options_header(0)], [options_header(60, 16)]]))
    return given_packet(how)


INSERTED = st.one_of(
    st.sampled_from(
        [MpPrio(True).encode(), AddAddress(9, IPv4Address("10.7.7.7"), 80, b"hmachmac").encode()]
    ),
    st.binary(max_size=38).map(lambda value: bytes((99, 2 + len(value))) + value),
)
JOBS = st.one_of(
    st.tuples(st.just("insert"), st.builds(lambda data: {"data": data}, INSERTED)),
    st.tuples(
        st.just("remove"),
        st.builds(lambda n, unsafe: {"number": n, "unsafe": unsafe}, st.integers(0, 8), st.booleans()),
    ),
    st.tuples(
        st.sampled_from(["rewrite", "rewrite_odd"]),
        st.builds(
            lambda at, data, unsafe: {"number": at, "data": data, "unsafe": unsafe},
            st.integers(0, 140),
            st.binary(min_size=5, max_size=5),
            st.booleans(),
        ),
    ),
    st.tuples(
        st.just("cap"),
        st.builds(
            lambda cap, scale: {"number": cap, "scale": (scale, scale)},
            st.integers(0, 2**20),
            st.integers(0, 16),
        ),
    ),
)


def seen(packet: bytes, link: Any) -> Decoded:
    found = decode(packet, link)
    assert found.tcp is not None
    assert found.ip is not None
    return found


def real_options(packet: Decoded) -> list[bytes]:
    assert packet.tcp is not None
    return [option.raw for option in packet.tcp.options if option.kind > 1]


def check_rest(before: Decoded, after: Decoded) -> None:
    """All that no job may touch; the checksum is as right as before."""
    a, b = before.tcp, after.tcp
    assert a is not None
    assert b is not None
    assert (a.sport, a.dport, a.offset) == (b.sport, b.dport, b.offset)
    assert before.payload == after.payload
    assert (before.ethernet, before.vlans) == (after.ethernet, after.vlans)
    assert after.ip_checksum_right in (True, None)
    assert before.data[: before.ip.offset] == after.data[: after.ip.offset]  # type: ignore[union-attr]
    assert before.tcp_checksum_right == after.tcp_checksum_right


def check_insert(before: Decoded, after: Decoded, how: dict[str, Any]) -> None:
    assert Counter(real_options(after)) == Counter([*real_options(before), how["data"]])
    others = list(real_options(after))
    others.remove(how["data"])
    assert others == real_options(before) or how["data"] in real_options(before)
    fixed = slice(after.tcp.offset + 4, after.tcp.offset + 12)  # type: ignore[union-attr]
    assert before.data[fixed] == after.data[fixed]


def check_remove(before: Decoded, after: Decoded, how: dict[str, Any]) -> None:
    gone = Counter(real_options(before)) - Counter(real_options(after))
    assert gone
    assert all(raw[0] == 30 and raw[2] >> 4 == how["number"] for raw in gone)
    assert len(before.data) == len(after.data)


def check_rewrite(before: Decoded, after: Decoded, how: dict[str, Any], size: int) -> None:
    at, check = how["number"], after.tcp.offset + 16  # type: ignore[union-attr]
    assert after.data[at : at + size] == how["data"][:size]
    blank = slice(check, check + 2)
    wanted = bytearray(before.data)
    wanted[at : at + size] = how["data"][:size]
    wanted[blank] = after.data[blank]
    assert after.data == bytes(wanted)
    assert [(o.offset, o.kind, o.length) for o in before.tcp.options] == [  # type: ignore[union-attr]
        (o.offset, o.kind, o.length)
        for o in after.tcp.options  # type: ignore[union-attr]
    ]


def check_cap(before: Decoded, after: Decoded, how: dict[str, Any]) -> None:
    limit = max(1, how["number"] >> (how["scale"][0] - 1))
    assert after.tcp.window == min(before.tcp.window, limit)  # type: ignore[union-attr]
    assert "S" not in how.get("flags", "")


CHECKS = {"insert": check_insert, "remove": check_remove, "cap": check_cap}


@settings(max_examples=600, deadline=None)
@given(packet=packets(), job=JOBS)
def test_a_packet_comes_out_as_it_was_or_valid(changers: Any, packet: Given, job: tuple[str, Any]) -> None:
    name, how = job
    xdp, tc = (one(packet.packet, name, link=packet.link, **how) for one in changers)
    assert (xdp.done, xdp.reason, xdp.packet) == (tc.done, tc.reason, tc.packet)
    assert vars(xdp.found) | {"backend": 1} == vars(tc.found) | {"backend": 1}
    before, after = seen(packet.packet, packet.link), seen(xdp.packet, packet.link)
    if xdp.packet == packet.packet:
        return
    assert xdp.done
    check_rest(before, after)
    if name.startswith("rewrite"):
        check_rewrite(before, after, how, 2 if name == "rewrite" else 5)
    else:
        CHECKS[name](before, after, how)


@settings(max_examples=200, deadline=None)
@given(packet=packets(), job=JOBS)
def test_what_is_known_of_a_packet_stays_true(changers: Any, packet: Given, job: tuple[str, Any]) -> None:
    name, how = job
    xdp = changers[0]
    changed = xdp(packet.packet, name, link=packet.link, **how)
    again = xdp(changed.packet, "nothing", link=packet.link).found
    mine = vars(changed.found)
    ours = (
        "block",
        "cursor",
        "argument",
        "option",
        "built",
        "nops",
        "heads",
        "places",
        "places_len",
        "built_len",
        "length",
    )
    for field, value in vars(again).items():
        if field == "flags":
            assert mine[field] & ~4 == value
        elif field not in (*ours, "reason"):
            assert mine[field] == value, field


def longest(block_: bytes) -> int:
    """Bytes that options take without NOPs and without EOL padding."""
    found = decode(build(options=[block_]))
    assert found.tcp is not None
    return sum(option.length for option in found.tcp.options if option.kind > 1)


@settings(max_examples=300, deadline=None)
@given(options=st.lists(option_bytes(), max_size=14), new=INSERTED, data=st.sampled_from([b"", b"x"]))
def test_an_insertion_succeeds_exactly_if_there_is_room(
    changers: Any, options: list[bytes], new: bytes, data: bytes
) -> None:
    raw = block(options, b"")
    changed = changers[0](build(options=[raw], payload=data), "insert", data=new)
    assume(changed.found.no_modify == 0)
    need = longest(raw) + len(new)
    assert changed.done == (need <= (len(raw) if data else 40))
