# SPDX-License-Identifier: Apache-2.0
"""An injected MP_PRIO is taken by the socket, on an idle subflow and on a saturated one, by either end."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

import pytest

from emptcp.errors import EmptcpError
from emptcp.hooks import devices, namespaces
from emptcp.hooks.devices import Device
from emptcp.hooks.namespaces import Namespace
from emptcp.mptcp import duplicate_ack, events
from emptcp.mptcp.inject import Injector
from emptcp.mptcp.sockets import SubflowReader
from emptcp.packet.build import build
from emptcp.packet.checksum import checksum, pseudo_header
from emptcp.packet.mptcp import MpPrio
from emptcp.pybpf import features
from emptcp_sdk.testing import wait_until

from .conftest import Connection, Hosts, ip, run

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(not features.has("live_frames"), reason="no live frames in this kernel"),
]

PRIO = "MPTcpExtMPPrioRx"
CHECKSUM_ERRORS = "TcpInCsumErrors"


def set_backup(hosts: Hosts, connection: Connection, reader: SubflowReader, on: bool) -> None:
    """Deliver one MP_PRIO to the client's stack on the subflow of path 2."""
    with Injector(hosts.us) as injector:
        subflow = connection.subflows(reader, hosts.us)[1]
        injector.deliver(path2(hosts), duplicate_ack(subflow, [MpPrio(backup=on)]))


def path2(hosts: Hosts) -> Device:
    (device,) = (device for device in devices.list_devices(hosts.us) if device.name == "path2")
    return device


def test_an_idle_subflow_of_ours_takes_it_once_and_gives_it_back(
    hosts: Hosts, connection: Connection, reader: SubflowReader
) -> None:
    before = hosts.counter(hosts.us, PRIO)
    for count, on in enumerate((True, False), 1):
        set_backup(hosts, connection, reader, on)
        assert [s.backup for s in connection.subflows(reader, hosts.us)] == [False, on]
        assert hosts.counter(hosts.us, PRIO) == before + count
    assert hosts.counter(hosts.us, CHECKSUM_ERRORS) == 0


def test_an_idle_subflow_of_the_peer_takes_it(
    hosts: Hosts, connection: Connection, reader: SubflowReader
) -> None:
    before = hosts.counter(hosts.peer, PRIO)
    with Injector(hosts.us) as injector:
        subflow = connection.subflows(reader, hosts.us)[1]
        injector.send(duplicate_ack(subflow, [MpPrio(backup=True)], to="peer"))
    wait_until(lambda: connection.subflows(reader, hosts.peer)[1].backup)
    assert hosts.counter(hosts.peer, PRIO) == before + 1
    assert hosts.counter(hosts.peer, CHECKSUM_ERRORS) == 0


def test_sending_to_the_peer_takes_no_live_frames(
    hosts: Hosts, connection: Connection, reader: SubflowReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMPTCP_DISABLE", "live_frames")
    subflow = connection.subflows(reader, hosts.us)[1]
    with Injector(hosts.us) as injector:
        injector.send(duplicate_ack(subflow, [MpPrio(backup=True)], to="peer"))
        with pytest.raises(EmptcpError, match="can't take packets from user space"):
            injector.deliver(path2(hosts), duplicate_ack(subflow, [MpPrio(backup=True)]))
    wait_until(lambda: connection.subflows(reader, hosts.peer)[1].backup)


def test_the_change_is_told_as_an_event(hosts: Hosts, connection: Connection, reader: SubflowReader) -> None:
    with events.EventReader(hosts.us) as watch:
        set_backup(hosts, connection, reader, True)
        (told,) = (event for event in watch.read(2) if event.name == "SF_PRIO")
    subflow = connection.subflows(reader, hosts.us)[1]
    assert (told.local, told.remote_port, told.backup) == (subflow.local, subflow.remote_port, True)


def test_an_old_sequence_number_is_not_taken(
    hosts: Hosts, connection: Connection, reader: SubflowReader
) -> None:
    """What the sequence number is for: the same packet with one that was acknowledged changes nothing."""
    subflow = connection.subflows(reader, hosts.us)[1]
    old = replace(subflow, rcv_nxt=(subflow.acknowledged - 100) % 2**32)
    with Injector(hosts.us) as injector:
        injector.deliver(path2(hosts), duplicate_ack(old, [MpPrio(backup=True)]))
    assert not any(s.backup for s in connection.subflows(reader, hosts.us))


def test_a_saturated_subflow_takes_it_and_its_load_goes_away_and_comes_back(
    hosts: Hosts, connection: Connection, reader: SubflowReader
) -> None:
    with saturated(hosts, connection):
        wait_until(lambda: min(load(hosts.us, 0.2)) > 5e6)
        set_backup(hosts, connection, reader, True)
        assert connection.subflows(reader, hosts.us)[1].backup
        wait_until(lambda: share(load(hosts.us, 0.3)) < 0.03)
        set_backup(hosts, connection, reader, False)
        wait_until(lambda: share(load(hosts.us, 0.3)) > 0.2)


def udp(family: Literal[4, 6], source: str, target: str, payload: bytes) -> bytes:
    """An IP packet with a datagram from port 4241 to 4242."""
    head = struct.pack("!HHH", 4241, 4242, 8 + len(payload))
    ends = [ip_address(address).packed for address in (source, target)]
    check = checksum(pseudo_header(*ends, 8 + len(payload), protocol=17) + head + b"\0\0" + payload)
    segment = head + check.to_bytes(2, "big") + payload
    return build(link="none", family=family, src=source, dst=target, protocol=17, transport=segment)


@pytest.mark.parametrize("mode", ["tun", "tap"])
@pytest.mark.parametrize("family", [4, 6])
def test_devices_with_and_without_ethernet_header_take_packets(
    hosts: Hosts, mode: str, family: Literal[4, 6]
) -> None:
    local, remote = ("10.7.0.1", "10.7.0.2") if family == 4 else ("fd07::1", "fd07::2")
    name = hosts.us.name
    ip("-n", name, "tuntap", "add", "other0", "mode", mode)
    try:
        ip("-n", name, "address", "add", local, "peer", remote, "dev", "other0", "nodad")
        ip("-n", name, "link", "set", "other0", "up")
        (device,) = (device for device in devices.list_devices(hosts.us) if device.name == "other0")
        kind = socket.AF_INET if family == 4 else socket.AF_INET6
        with namespaces.call(hosts.us, lambda: socket.socket(kind, socket.SOCK_DGRAM)) as receiver:
            receiver.settimeout(2)
            receiver.bind(("0.0.0.0" if family == 4 else "::", 4242))
            packet = udp(family, remote, local, b"hello")
            with Injector(hosts.us) as injector:
                injector.deliver(device, packet)
            assert receiver.recv(100) == b"hello"
    finally:
        ip("-n", name, "link", "delete", "other0")


def share(rates: list[float]) -> float:
    """The part of path 2 in all that is sent."""
    return rates[1] / sum(rates)


def load(host: Namespace, seconds: float) -> list[float]:
    """Bits per second that ``host`` sends on each path."""

    def sent() -> list[int]:
        lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
        return [int(line.split()[9]) for line in sorted(lines) if line.strip().startswith("path")]

    first = namespaces.call(host, sent)
    time.sleep(seconds)
    second = namespaces.call(host, sent)
    return [(after - before) * 8 / seconds for before, after in zip(first, second, strict=True)]


@contextmanager
def saturated(hosts: Hosts, connection: Connection) -> Iterator[None]:
    """The client sends all that two paths of 20 Mbit/s take, the server reads."""
    shape(hosts, "add")
    stop = threading.Event()
    threads = [
        threading.Thread(target=pump, args=(stop, lambda: connection.client.send(bytes(1 << 16)))),
        threading.Thread(target=pump, args=(stop, lambda: connection.server.recv(1 << 20))),
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        connection.client.shutdown(socket.SHUT_RDWR)
        connection.server.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(10)
        shape(hosts, "delete")


def pump(stop: threading.Event, step: Callable[[], object]) -> None:
    while not stop.is_set():
        try:
            if step() == b"":
                return
        except OSError:
            return


def shape(hosts: Hosts, verb: str) -> None:
    rate = ["root", "tbf", "rate", "20mbit", "burst", "32k", "latency", "50ms"] if verb == "add" else ["root"]
    for path in ("path1", "path2"):
        run(hosts.us, ["tc", "qdisc", verb, "dev", path, *rate])
