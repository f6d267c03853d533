# SPDX-License-Identifier: Apache-2.0
"""Captures of both formats, byte orders and time units; cut and damaged ones end in a sentence."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emptcp.errors import EmptcpError
from emptcp.packet.build import build
from emptcp.trace.capture import Capture, CapturedPacket, CaptureWriter, read

ORDERS = ("<", ">")
PACKETS = [build(payload=bytes(size)) for size in (0, 1, 2, 3, 400)]


def pcap(
    packets: list[bytes], order: str = "<", magic: int = 0xA1B2C3D4, link: int = 1, snap: int = 65535
) -> bytes:
    header = struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, snap, link)
    records = (
        struct.pack(f"{order}IIII", 1_700_000_000 + n, 5 + n, len(data), len(data)) + data
        for n, data in enumerate(packets)
    )
    return header + b"".join(records)


def block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    return struct.pack(f"{order}II", kind, len(body) + 12) + body + struct.pack(f"{order}I", len(body) + 12)


def section(order: str) -> bytes:
    return block(order, 0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1))


def interface(order: str, link: int = 1, options: bytes = b"", snap: int = 0) -> bytes:
    return block(order, 1, struct.pack(f"{order}HHI", link, 0, snap) + options)


def enhanced(order: str, data: bytes, ticks: int = 0, index: int = 0, original: int | None = None) -> bytes:
    size = len(data) if original is None else original
    return block(
        order, 6, struct.pack(f"{order}IIIII", index, ticks >> 32, ticks & 0xFFFFFFFF, len(data), size) + data
    )


def option(order: str, code: int, value: bytes) -> bytes:
    return struct.pack(f"{order}HH", code, len(value)) + value + bytes(-len(value) % 4)


def pcapng(packets: list[bytes], order: str = "<") -> bytes:
    return section(order) + interface(order) + b"".join(enhanced(order, data, 7) for data in packets)


def saved(folder: Path, content: bytes) -> Path:
    path = folder / "in.cap"
    path.write_bytes(content)
    return path


def outcome(path: Path) -> tuple[int, EmptcpError | None]:
    """Return how many packets were read, and the refusal that ended it."""
    count = 0
    try:
        for packet in read(path):
            count = packet.n
    except EmptcpError as refused:
        return count, refused
    return count, None


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("magic", "fraction"), [(0xA1B2C3D4, 5000), (0xA1B23C4D, 5)])
def test_pcap_is_read_in_both_orders_and_units(tmp_path: Path, order: str, magic: int, fraction: int) -> None:
    packets = list(read(saved(tmp_path, pcap(PACKETS, order, magic))))
    assert [packet.data for packet in packets] == PACKETS
    assert [packet.n for packet in packets] == [1, 2, 3, 4, 5]
    assert packets[0].time_ns == 1_700_000_000 * 10**9 + fraction
    assert not any(packet.truncated for packet in packets)


@pytest.mark.parametrize("order", ORDERS)
def test_pcapng_is_read_in_both_orders(tmp_path: Path, order: str) -> None:
    packets = list(read(saved(tmp_path, pcapng(PACKETS, order))))
    assert [packet.data for packet in packets] == PACKETS
    assert packets[0].time_ns == 7000


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("resolution", "ticks", "wanted"),
    [(9, 123, 123), (6, 123, 123_000), (0x80 | 10, 1024, 10**9), (3, 1, 10**6)],
)
def test_pcapng_times_follow_the_interfaces_resolution_and_offset(
    tmp_path: Path, order: str, resolution: int, ticks: int, wanted: int
) -> None:
    little = "little" if order == "<" else "big"
    options = option(order, 2, b"eth0") + option(order, 9, bytes((resolution,)))
    options += option(order, 14, (-3).to_bytes(8, "little" if little == "little" else "big", signed=True))
    content = section(order) + interface(order, options=options) + enhanced(order, b"abcd", ticks)
    (packet,) = read(saved(tmp_path, content))
    assert packet.time_ns == wanted - 3 * 10**9


def test_pcapng_with_sections_interfaces_and_all_packet_blocks(tmp_path: Path) -> None:
    old = struct.pack(">HHIIII", 1, 0, 0, 9, 3, 3) + b"old"
    content = (
        section("<") + interface("<", 1) + block("<", 5, bytes(12)) + enhanced("<", b"first")
        + section(">") + interface(">", 113, snap=4) + interface(">", 101) + enhanced(">", b"second", index=1)
        + block(">", 2, old) + block(">", 3, struct.pack(">I", 6) + b"simp")
    )  # fmt: skip
    packets = list(read(saved(tmp_path, content)))
    assert [(one.data, one.link_type, one.truncated) for one in packets] == [
        (b"first", 1, False),
        (b"second", 101, False),
        (b"old", 101, False),
        (b"simp", 113, True),
    ]
    assert packets[3].ticks is None


@pytest.mark.parametrize("form", [pcap, pcapng])
def test_a_cut_capture_gives_its_whole_packets_and_then_names_the_one_that_is_cut(
    tmp_path: Path, form: Callable[[list[bytes]], bytes]
) -> None:
    path = saved(tmp_path, form(PACKETS)[:-200])
    found: list[CapturedPacket] = []
    with pytest.raises(EmptcpError) as caught, Capture(path) as capture:
        found.extend(capture)
    assert [packet.data for packet in found] == PACKETS[:4]
    assert "packet 5" in caught.value.sentence
    assert str(path) in caught.value.sentence
    assert caught.value.fix
    assert len(str(caught.value).splitlines()) <= 6


@pytest.mark.parametrize("form", [pcap, pcapng])
def test_a_capture_cut_anywhere_never_fails_but_by_a_sentence(
    tmp_path: Path, form: Callable[[list[bytes]], bytes]
) -> None:
    content = form(PACKETS[:2])
    for end in range(len(content)):
        count, refused = outcome(saved(tmp_path, content[:end]))
        assert count < 2
        assert refused is None or str(tmp_path) in refused.sentence


@given(st.binary(max_size=200), st.sampled_from((b"", pcap([]), pcapng([]), pcapng([b"abc"]))))
def test_any_bytes_are_read_or_refused_by_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, start: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "junk.cap"
    path.write_bytes(start + junk)
    _, refused = outcome(path)
    assert refused is None or refused.fix


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", "is empty"),
        (b"table = 'home'\n", "neither a pcap nor a pcapng"),
        (b"\x1f\x8b\x08\x00", "is compressed"),
        (pcap([b"abc"])[:24] + b"\xff" * 16, "claims 4294967295 bytes"),
        (section("<") + enhanced("<", b"abc"), "names interface 0, its section declares 0"),
        (pcapng([b"abc"])[:-4] + bytes(4), "lengths at its block's ends differ"),
        (section("<") + interface("<") + struct.pack("<II", 6, 9), "claims 9 bytes"),
        (section("<") + interface("<") + block("<", 6, bytes(8)), "too short"),
    ],
)
def test_what_is_no_capture_is_refused_by_name_and_rule(tmp_path: Path, content: bytes, rule: str) -> None:
    path = saved(tmp_path, content)
    with pytest.raises(EmptcpError) as caught:
        list(read(path))
    assert rule in caught.value.sentence
    assert str(path) in caught.value.sentence
    assert caught.value.fix


def test_a_missing_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(EmptcpError, match="can't be read: no such file"):
        list(read(tmp_path / "none.pcap"))


@pytest.mark.parametrize(
    "content", [pcap(PACKETS, ">"), pcap(PACKETS, "<", 0xA1B23C4D), pcapng(PACKETS, ">")]
)
def test_a_capture_written_back_is_the_same_but_for_the_snapshot_length(
    tmp_path: Path, content: bytes
) -> None:
    source, target = saved(tmp_path, content), tmp_path / "out.cap"
    with Capture(source) as capture, CaptureWriter(target, capture.section) as writer:
        for packet in capture:
            writer.write(packet)
    assert target.read_bytes() == content


def test_changed_and_left_out_packets_are_written_as_they_came_out(tmp_path: Path) -> None:
    snap = 100
    source = saved(tmp_path, pcap([b"a" * 90, b"b" * 50, b"c" * 50], snap=snap))
    target = tmp_path / "out.cap"
    with Capture(source) as capture, CaptureWriter(target, capture.section) as writer:
        first, _, third = capture
        writer.write(first, first.data + b"grown")
        writer.write(third)
    packets = list(read(target))
    assert [(one.data, one.original_length) for one in packets] == [
        (b"a" * 90 + b"grown", 95),
        (b"c" * 50, 50),
    ]
    assert packets[1].time_ns == third.time_ns
    assert packets[0].interface.snaplen == snap + 40


def test_an_empty_capture_is_written_as_an_empty_capture(tmp_path: Path) -> None:
    for content in (pcap([]), section(">")):
        with Capture(saved(tmp_path, content)) as capture:
            CaptureWriter(tmp_path / "out.cap", capture.section).__exit__(None, None, None)
        assert (tmp_path / "out.cap").read_bytes() == content


@pytest.mark.parametrize("order", ORDERS)
def test_tshark_reads_what_was_written(
    tmp_path: Path, tshark: Callable[..., list[dict[str, str]]], order: str
) -> None:
    nano = option(order, 9, b"\x09") + option(order, 0, b"")
    several = (
        section(order) + interface(order, 113) + interface(order, 1, nano) + enhanced(order, PACKETS[3], 9, 1)
        + section(">" if order == "<" else "<") + interface(">" if order == "<" else "<", 101)
        + enhanced(">" if order == "<" else "<", build(link="none"), 5, original=100)
    )  # fmt: skip
    for content in (several, pcap(PACKETS, order, 0xA1B23C4D), pcapng(PACKETS, order)):
        source, target = saved(tmp_path, content), tmp_path / "out.cap"
        with Capture(source) as capture, CaptureWriter(target, capture.section) as writer:
            for packet in capture:
                writer.write(packet)
        names = (
            "frame.number",
            "frame.time_epoch",
            "frame.len",
            "frame.cap_len",
            "frame.encap_type",
            "tcp.seq_raw",
        )
        before, after = tshark(source, names), tshark(target, names)
        assert before
        assert after == before
        ours = [(str(one.n), str(one.original_length), str(len(one.data))) for one in read(source)]
        assert [(row["frame.number"], row["frame.len"], row["frame.cap_len"]) for row in before] == ours


def test_times_are_those_that_tshark_shows(
    tmp_path: Path, tshark: Callable[..., list[dict[str, str]]]
) -> None:
    orders = itertools.product(ORDERS, (0xA1B2C3D4, 0xA1B23C4D))
    for order, magic in orders:
        path = saved(tmp_path, pcap(PACKETS, order, magic))
        shown = [row["frame.time_epoch"] for row in tshark(path, ("frame.time_epoch",))]
        assert [f"{one.time_ns // 10**9}.{one.time_ns % 10**9:09}" for one in read(path)] == shown
