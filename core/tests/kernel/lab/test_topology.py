# SPDX-License-Identifier: Apache-2.0
"""Two hosts joined by cables: real sockets, real subflows, nothing left."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path as File

import pytest

from emptcp.errors import EmptcpError
from emptcp.hooks import namespaces
from emptcp.lab import namespace, process, state
from emptcp.lab.host import Host
from emptcp.lab.path import Path
from emptcp.lab.topology import two_hosts

pytestmark = [pytest.mark.kernel, pytest.mark.traffic]

SO_RCVBUFFORCE = 33
ETH_P_ALL = 3
IPV4 = b"\x08\x00"
NAME = f"t{os.getpid()}"


@pytest.fixture(autouse=True)
def run_folder(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> File:
    monkeypatch.setenv("EMPTCP_RUN", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("family", [4, 6])
def test_a_transfer_uses_one_subflow_per_path_and_every_byte_arrives(family: int) -> None:
    with two_hosts([Path(), Path(), Path()], link="veth", family=family, name=NAME) as lab:
        done = lab.transfer(size=2_000_000)
    assert done.intact
    assert done.mptcp
    assert done.subflows == 3
    assert done.at_a.received == done.at_b.received == 2_000_000
    assert all(done.sent_a[path.device_a] > 1000 for path in lab.paths)
    assert done.bad_checksums == 0
    assert done.counters_a["MPTcpExtMPJoinSynAckRx"] == 2
    assert done.counters_b["MPTcpExtMPCapableSYNRX"] == 1


def test_a_transfer_over_plain_tcp_is_told_apart_from_mptcp() -> None:
    with two_hosts([Path()], link="veth", name=NAME) as lab:
        lab.b.set("net.mptcp.enabled", 0)
        with pytest.raises(EmptcpError, match="at host b"):
            lab.transfer(size=1000)


@pytest.mark.parametrize("link", ["relay", "veth"])
def test_nothing_is_imported_from_the_folder_in_which_a_lab_is_started(
    tmp_path: File, monkeypatch: pytest.MonkeyPatch, link: str
) -> None:
    for planted in ("json.py", "emptcp.py", "socket.py"):
        File(tmp_path, planted).write_text("raise SystemExit('planted code ran')")
    monkeypatch.chdir(tmp_path)
    with two_hosts([Path()], link=link, name=NAME) as lab:
        assert lab.transfer(10_000).intact


def tcp_sum(frame: bytes) -> int:
    """One's complement sum over an IPv4 segment and its pseudo-header: 0xffff when the checksum is right."""
    packet = frame[14 : 14 + int.from_bytes(frame[16:18], "big")]
    segment = packet[(packet[0] & 15) * 4 :]
    covered = (
        packet[12:20] + struct.pack("!HH", packet[9], len(segment)) + segment + b"\0" * (len(segment) % 2)
    )
    total = sum(word for (word,) in struct.iter_unpack("!H", covered))
    return total % 0xFFFF or 0xFFFF


def test_the_links_carry_single_frames_with_real_checksums() -> None:
    with two_hosts([Path()], link="veth", name=NAME) as lab, capture(lab.b, "path1") as tap:
        assert lab.transfer(size=300_000).intact
        frames = [frame for frame in received(tap) if frame[12:14] == IPV4]
    assert len(frames) > 400
    assert max(map(len, frames)) == 1514
    assert {tcp_sum(frame) for frame in frames} == {0xFFFF}


def capture(host: Host, device: str) -> socket.socket:
    """A socket that gets every frame of a device, both directions."""
    tap = host.call(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
    tap.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
    tap.bind((device, ETH_P_ALL))
    return tap


def received(tap: socket.socket) -> Iterator[bytes]:
    tap.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            yield tap.recv(65536)


def test_nothing_is_left_of_a_lab_also_when_its_block_fails() -> None:
    with contextlib.suppress(ZeroDivisionError), two_hosts([Path()], link="veth", name=NAME) as lab:
        child = lab.a.start(["sleep", "60"])
        assert state.find(lab.name).namespaces == (lab.a.netns, lab.b.netns)
        raise ZeroDivisionError
    assert child.poll() == -signal.SIGTERM
    assert not namespace.exists(lab.a.netns)
    assert not namespace.exists(lab.b.netns)
    assert state.records() == []


def test_a_lab_that_can_not_be_built_leaves_nothing() -> None:
    with pytest.raises(EmptcpError, match="no link 'vet'"), two_hosts([Path()], link="vet", name=NAME):
        pass
    assert state.records() == []
    assert not [name for name in namespaces.named() if name.startswith(f"emt-{NAME}")]


def test_two_labs_of_one_name_stand_side_by_side() -> None:
    with (
        two_hosts([Path()], link="veth", name=NAME) as one,
        two_hosts([Path()], link="veth", name=NAME) as other,
    ):
        assert one.name != other.name
        assert one.transfer(size=1000).intact
        assert other.transfer(size=1000).intact


def test_the_machines_list_of_congestion_controls_is_as_before() -> None:
    file = File("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
    before = file.read_text()
    with two_hosts([Path()], link="veth", name=NAME) as lab:
        control = lab.a.run(["cat", "/proc/sys/net/ipv4/tcp_congestion_control"]).stdout.strip()
    assert control in ("cubic", "reno")
    assert file.read_text() == before


def test_a_command_that_fails_in_a_host_is_named_with_its_reason() -> None:
    with two_hosts([Path()], link="veth", name=NAME) as lab:
        with pytest.raises(EmptcpError, match=r"in host a failed: .*No such file"):
            lab.a.run(["cat", "/nonexistent"])
        with pytest.raises(EmptcpError, match=r"took over 0\.1 s"):
            lab.b.run(["sleep", "5"], timeout=0.1)


def test_a_child_is_asked_to_end_before_it_is_killed() -> None:
    listens = "trap 'exit 7' TERM; echo up; while :; do sleep 0.01; done"
    polite = process.start(["sh", "-c", listens], stdout=subprocess.PIPE)
    deaf = "trap '' TERM; echo up; while :; do sleep 0.01; done"
    stubborn = process.start(["sh", "-c", deaf], stdout=subprocess.PIPE)
    for child in (polite, stubborn):
        assert child.stdout is not None
        child.stdout.readline()
    process.end(polite)
    process.end(stubborn, patience=0.2)
    assert polite.returncode == 7
    assert stubborn.returncode == -signal.SIGKILL
