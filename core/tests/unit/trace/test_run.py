# SPDX-License-Identifier: Apache-2.0
"""A capture goes through a runner: what it is given, what is told of each packet, what is written."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from emptcp.errors import EmptcpError
from emptcp.packet.build import build
from emptcp.packet.decode import decode
from emptcp.packet.layers import Link
from emptcp.packet.mptcp import Dss, MpPrio
from emptcp.trace.capture import read
from emptcp.trace.report import table
from emptcp.trace.run import RunResult, Traced, trace

DSS = Dss(data_ack=7)
IP = build(link="none", options=[DSS])


def saved(folder: Path, packets: list[tuple[bytes, int]], link: int = 1) -> str:
    path = folder / "in.pcap"
    records = b"".join(struct.pack("<IIII", 0, 0, len(data), size) + data for data, size in packets)
    path.write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, link) + records)
    return str(path)


class Narrow:
    """A policy in Python: halves windows, drops resets, redirects FINs, leaves SYNs with a reason."""

    def __init__(self) -> None:
        self.given: list[tuple[bytes, Link]] = []

    def __call__(self, packet: bytes, link: Link) -> RunResult:
        self.given.append((packet, link))
        found = decode(packet, link)
        if found.tcp is None:
            return RunResult("pass", packet)
        flags = found.tcp.flags
        if flags & 4:
            return RunResult("drop", packet, ("no resets",))
        if flags & 1:
            return RunResult("redirect", packet, ("elsewhere",))
        if flags & 2:
            return RunResult("pass", packet, (), "syn_data")
        at = found.tcp.offset + 14
        changed = packet[:at] + struct.pack("!H", found.tcp.window // 2) + packet[at + 2 :]
        return RunResult("pass", changed, ("narrow",), None, 42)


def test_each_packet_has_the_fields_of_the_schema(tmp_path: Path) -> None:
    packets = [
        build(options=[DSS, MpPrio(True)], payload=b"x"),
        build(flags="R"),
        build(flags="F"),
        build(flags="S"),
        build(protocol=17, transport=bytes(20)),
    ]
    path = saved(tmp_path, [(one, len(one)) for one in packets])
    lines = [json.loads(json.dumps(one.as_json())) for one in trace(path, Narrow())]
    assert lines[0] == {
        "schema": 1,
        "n": 1,
        "mptcp": [2, 5],
        "matched": ["narrow"],
        "verdict": "pass",
        "changed": [{"field": "tcp.window_size_value", "old": "512", "new": "256"}],
        "reason": None,
        "duration_ns": 42,
    }
    told = [(one["n"], one["verdict"], one["matched"], one["changed"], one["reason"]) for one in lines[1:]]
    assert told == [
        (2, "drop", ["no resets"], [], None),
        (3, "redirect", ["elsewhere"], [], None),
        (4, "pass", [], [], "syn_data"),
        (5, "pass", [], [], None),
    ]


def test_packets_are_written_as_they_came_out_and_dropped_ones_left_out(tmp_path: Path) -> None:
    head = b"\xff\x03\x00\x21"
    packets = [head + IP, head + build(link="none", flags="R"), b"\xff\x03\xc0\x21\x01\x01"]
    path, out = saved(tmp_path, [(one, len(one)) for one in packets], link=9), tmp_path / "out.pcap"
    list(trace(path, Narrow(), str(out)))
    written = list(read(out))
    assert [one.data for one in written] == [head + IP[:34] + b"\x01\x00" + IP[36:], packets[2]]
    assert written[0].link_type == 9


def test_truncated_packets_are_not_run_but_their_options_are_told(tmp_path: Path) -> None:
    packet = build(options=[DSS, MpPrio(True)], payload=bytes(100))
    runner = Narrow()
    path, out = saved(tmp_path, [(packet[:74], len(packet))]), tmp_path / "out.pcap"
    (traced,) = trace(path, runner, str(out))
    assert runner.given == []
    assert (traced.result.reason, traced.result.verdict, traced.mptcp) == ("truncated", "pass", (2, 5))
    assert [(one.data, one.original_length) for one in read(out)] == [(packet[:74], len(packet))]


@pytest.mark.parametrize("link", [1, 101])
def test_over_long_packets_are_run_on_their_head_and_come_out_whole(tmp_path: Path, link: int) -> None:
    layer: Link = "ethernet" if link == 1 else "none"
    packet = build(link=layer, options=[DSS], payload=bytes(range(256)) * 250)
    runner = Narrow()
    (traced,) = trace(saved(tmp_path, [(packet, len(packet))], link), runner)
    assert decode(*runner.given[0]).reason is None
    assert len(runner.given[0][0]) < 3000
    assert [change.field for change in traced.changed] == ["tcp.window_size_value"]
    window = 48 if link == 1 else 34
    assert traced.out == packet[:window] + b"\x01\x00" + packet[window + 2 :]


def test_a_packet_that_is_no_ip_is_passed_with_its_reason(tmp_path: Path) -> None:
    runner = Narrow()
    (traced,) = trace(saved(tmp_path, [(b"\xff\x03\xc0\x21\x01", 5)], 9), runner)
    assert (traced.result.reason, traced.mptcp, runner.given) == ("not_ip", (), [])


def test_a_cut_capture_is_traced_up_to_the_cut_and_written_so(tmp_path: Path) -> None:
    packet = build(options=[DSS])
    path = saved(tmp_path, [(packet, len(packet)), (packet, len(packet))])
    Path(path).write_bytes(Path(path).read_bytes()[:-5])
    found: list[Traced] = []
    with pytest.raises(EmptcpError, match="packet 2"):
        found.extend(trace(path, Narrow(), str(tmp_path / "out.pcap")))
    assert len(found) == 1
    assert len(list(read(tmp_path / "out.pcap"))) == 1


def test_an_unknown_link_type_names_packet_and_file(tmp_path: Path) -> None:
    path = saved(tmp_path, [(b"abc", 3)], 147)
    with pytest.raises(EmptcpError) as caught:
        list(trace(path, Narrow()))
    assert str(caught.value).startswith(f"packet 1 of '{path}': link type 147 is not known")


def test_the_capture_itself_is_never_overwritten(tmp_path: Path) -> None:
    path = saved(tmp_path, [(build(), 54)])
    before = Path(path).read_bytes()
    with pytest.raises(EmptcpError, match="is the capture that is read"):
        list(trace(path, Narrow(), path))
    assert Path(path).read_bytes() == before


def test_the_report_tells_packet_match_change_and_sum(tmp_path: Path) -> None:
    packets = [build(options=[DSS], payload=b"xyz"), build(flags="R", family=6), build(flags="S"), bytes(60)]
    path = saved(tmp_path, [(one, len(one)) for one in packets])
    assert list(table(trace(path, Narrow()))) == [
        "     1  10.0.0.1:40000 > 10.0.0.2:5001  .  len 3  [DSS]  matched 'narrow'  pass  42 ns",
        "        tcp.window_size_value: 512 -> 256",
        "     2  [fd00::1]:40000 > [fd00::2]:5001  R  len 0  matched 'no resets'  drop",
        "     3  10.0.0.1:40000 > 10.0.0.2:5001  S  len 0  pass  (untouched: syn_data)",
        "     4  60 bytes  pass",
        "4 packets: 1 with MPTCP, 2 matched, 1 changed, 1 dropped, 0 redirected",
    ]
