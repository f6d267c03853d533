# SPDX-License-Identifier: Apache-2.0
"""`emptcp trace`: a policy file over captures of every kind, run in the kernel, attached to nothing."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from emptcp.cli.main import main
from emptcp.packet.build import build
from emptcp.packet.mptcp import Dss, MpCapable, MpPrio
from emptcp.trace.capture import read

pytestmark = pytest.mark.kernel

POLICY = """
table = "traced"

[[policy]]
name = "data"
hook = "{hook}"
dev = ["*"]
when = "packet_type('data')"
do = ["record('bytes')"]

[[policy]]
name = "one port"
hook = "{hook}"
dev = ["*"]
when = "subflow(dport=5001) and not packet_type('syn')"
do = ["record('packets')"]
"""
DSS = Dss(data_ack=7, dsn=7, subflow_seq=1, data_length=3)
DATA = build(link="none", options=[DSS], payload=b"abc")
LINKS = {
    1: bytes(12) + b"\x08\x00",
    9: b"\xff\x03\x00\x21",
    12: b"",
    101: b"",
    113: bytes(14) + b"\x08\x00",
    228: b"",
    276: b"\x08\x00" + bytes(18),
}


def policy(folder: Path, hook: str) -> str:
    path = folder / f"{hook}.toml"
    path.write_text(POLICY.format(hook=hook))
    return str(path)


def capture(folder: Path, packets: list[bytes], link: int = 1, missing: int = 0) -> str:
    path = folder / f"in{link}.pcap"
    records = b"".join(
        struct.pack("<IIII", 9, n, len(data), len(data) + missing) + data for n, data in enumerate(packets)
    )
    path.write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, link) + records)
    return str(path)


def traced(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    assert main(["trace", *words, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("hook", ["ingress", "egress"])
@pytest.mark.parametrize("link", sorted(LINKS))
def test_a_policy_matches_behind_every_link_header_and_the_packet_comes_out_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], link: int, hook: str
) -> None:
    path, out = capture(tmp_path, [LINKS[link] + DATA], link), tmp_path / "out.pcap"
    (line,) = traced(capsys, path, "--policy", policy(tmp_path, hook), "--write", str(out))
    assert line.pop("duration_ns") > 0
    assert line == {
        "schema": 1,
        "n": 1,
        "mptcp": [2],
        "matched": ["data", "one port"],
        "verdict": "pass",
        "changed": [],
        "reason": None,
    }
    assert out.read_bytes() == Path(path).read_bytes()


def test_each_packet_matches_what_its_policies_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packets = [
        build(options=[DSS], payload=b"abc"),
        build(options=[Dss(data_ack=1), MpPrio(True)]),
        build(flags="S", options=[MpCapable()]),
        build(options=[DSS], payload=b"abc", sport=1, dport=2),
        build(family=6, vlan=(7,), options=[DSS], payload=bytes(60000)),
        build(protocol=17, transport=bytes(20)),
    ]
    lines = traced(capsys, capture(tmp_path, packets), "--policy", policy(tmp_path, "ingress"))
    assert [(line["n"], line["mptcp"], line["matched"]) for line in lines] == [
        (1, [2], ["data", "one port"]),
        (2, [2, 5], ["one port"]),
        (3, [0], []),
        (4, [2], ["data"]),
        (5, [2], ["data", "one port"]),
        (6, [], []),
    ]


def test_truncated_and_tiny_packets_are_told_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    packets = [bytes(12) + b"\x08\x00" + DATA[:60], bytes(5)]
    out = tmp_path / "out.pcap"
    for hook in ("ingress", "egress"):
        for missing, reasons in ((10, ["truncated", "truncated"]), (0, ["truncated", "not_ip"])):
            path = capture(tmp_path, packets, missing=missing)
            lines = traced(capsys, path, "--policy", policy(tmp_path, hook), "--write", str(out))
            assert [line["reason"] for line in lines] == reasons
            assert [one.data for one in read(out)] == packets


def test_a_capture_cut_in_mid_packet_is_traced_to_the_cut_and_refused_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = capture(tmp_path, [LINKS[1] + DATA] * 3)
    Path(path).write_bytes(Path(path).read_bytes()[:-20])
    assert main(["trace", path, "--policy", policy(tmp_path, "ingress"), "--json"]) == 1
    shown = capsys.readouterr()
    assert [json.loads(line)["n"] for line in shown.out.splitlines()] == [1, 2]
    assert "packet 3" in shown.err
    assert len(shown.err.splitlines()) <= 6


def test_a_hook_without_policies_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [capture(tmp_path, []), "--policy", policy(tmp_path, "ingress"), "--hook", "egress"]
    assert main(["trace", *words]) == 1
    assert "is for egress" in capsys.readouterr().err
