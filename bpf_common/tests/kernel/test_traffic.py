# SPDX-License-Identifier: Apache-2.0
"""Real TCP connections whose packets are changed on their way: no byte is lost, no checksum is wrong.

On a cable whose offloads are on, nobody looks at checksums: so the tests that matter switch them off
(``ethtool -K DEV tx off``), which makes the sender's kernel finish each checksum after TC egress.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from emptcp.hooks import namespaces
from emptcp.hooks.namespaces import Namespace
from emptcp.packet.decode import decode
from emptcp.pybpf import Link, LoadedObject, features, load_object

pytestmark = pytest.mark.kernel

FIRST = bytes(4)
JOBS = ("nothing", "insert", "remove", "rewrite", "rewrite_odd", "cap", "insert_prio", "rewrite_option")
AMOUNT = 2_000_000
BYTES = bytes(range(256)) * (AMOUNT // 256)
SHORT = b"\xfd\x02"
"""An experimental option that fits over the two NOPs before timestamps; receivers ignore it."""
LONG = b"\xfd\x08emptcp"


def run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=10, capture_output=True)


@dataclass(frozen=True)
class Cable:
    """Two hosts on one cable; ``left`` and ``right`` are also the devices' names."""

    left: Namespace
    right: Namespace

    def index(self, side: str) -> int:
        host = getattr(self, side)
        return int(namespaces.call(host, lambda: socket.if_nametoindex(side)))

    def offload(self, state: str) -> None:
        """Switch checksum offload on or off at both ends."""
        for side in ("left", "right"):
            name = getattr(self, side).name
            run("ip", "netns", "exec", name, "ethtool", "-K", side, "tx", state)

    def wrong_checksums(self) -> int:
        """Return how many TCP segments either host has thrown away for their checksum."""
        return sum(namespaces.call(host, _in_csum_errors) for host in (self.left, self.right))


def _in_csum_errors() -> int:
    lines = Path("/proc/thread-self/net/snmp").read_text(encoding="ascii").splitlines()
    names, values = (line.split() for line in lines if line.startswith("Tcp:"))
    return int(values[names.index("InCsumErrors")])


@pytest.fixture(scope="module")
def cable() -> Iterator[Cable]:
    names = [f"emt{os.getpid()}-bc{side}" for side in ("l", "r")]
    try:
        for name in names:
            run("ip", "netns", "add", name)
        run(
            "ip",
            "link",
            "add",
            "left",
            "netns",
            names[0],
            "type",
            "veth",
            "peer",
            "name",
            "right",
            "netns",
            names[1],
        )
        for number, (name, side) in enumerate(zip(names, ("left", "right"), strict=True), 1):
            for command in (
                "link set lo up",
                f"address add 10.77.0.{number}/24 dev {side}",
                f"address add fd77::{number}/64 dev {side} nodad",
                f"link set {side} up",
            ):
                run("ip", "-n", name, *command.split())
        yield Cable(*(namespaces.resolve(name) for name in names))
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, timeout=10, capture_output=True)


@pytest.fixture
def changing(objects: dict[str, Path]) -> Iterator[LoadedObject]:
    with load_object(objects["change"]) as loaded:
        yield loaded


def order(loaded: LoadedObject, job: str, data: bytes = b"", number: int = 0, scale: int = 0) -> None:
    """Say what the program is to do with every packet, and start its counters at 0."""
    value = struct.pack("<IHBBI", 3, 14, 0, 0, 0)
    value += struct.pack("<IIIII2B", JOBS.index(job), number, len(data), 0, 0, scale, scale)
    loaded.maps["order"].update(FIRST, (value + data.ljust(40, b"\0")).ljust(76, b"\0"))
    loaded.maps["outcome"].update(FIRST, bytes(loaded.maps["outcome"].info.value_size))


def counts(loaded: LoadedObject) -> tuple[int, int, int]:
    """Return how many packets were seen, changed, and changed while merged."""
    value = loaded.maps["outcome"].lookup(FIRST)
    assert value is not None
    packets, changed, merged = struct.unpack("<QQQ", value[-24:])
    return packets, changed, merged


def attach(cable: Cable, loaded: LoadedObject, side: str, hook: str, name: str = "change_tc") -> Link:
    """Attach one of the object's programs; skips at TC where the kernel has no TCX."""
    host, index = getattr(cable, side), cable.index(side)
    if hook == "xdp":
        return namespaces.call(host, lambda: Link.attach_xdp(loaded.programs["change_xdp"], index))
    if not features.has("tcx"):
        pytest.skip(features.reason("tcx"))
    ingress = hook == "ingress"
    return namespaces.call(host, lambda: Link.attach_tcx(loaded.programs[name], index, ingress))


class Tap:
    """Everything that reaches a device, as its driver gave it to the stack."""

    def __init__(self, host: Namespace, device: str) -> None:
        self._socket = namespaces.call(host, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x0300))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 20)
        namespaces.call(host, lambda: self._socket.bind((device, 3)))
        self._socket.setblocking(False)

    def packets(self) -> list[bytes]:
        """Return what came in since."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                data, address = self._socket.recvfrom(70_000)
                if address[2] != socket.PACKET_OUTGOING:
                    found.append(data)
        return found

    def close(self) -> None:
        self._socket.close()


def read_all(source: socket.socket) -> bytes:
    parts = []
    while part := source.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def serve(listener: socket.socket, got: dict[str, bytes]) -> None:
    peer, _ = listener.accept()
    with peer:
        peer.settimeout(20)
        writer = threading.Thread(target=lambda: (peer.sendall(BYTES), peer.shutdown(socket.SHUT_WR)))
        writer.start()
        got["right"] = read_all(peer)
        writer.join(20)


def transfer(cable: Cable, family: int) -> dict[str, bytes]:
    """Send every byte value both ways at once over one connection; return what each side read."""
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    address = "10.77.0.2" if family == 4 else "fd77::2"
    got: dict[str, bytes] = {}
    with (
        namespaces.call(cable.right, lambda: socket.socket(kind)) as listener,
        namespaces.call(cable.left, lambda: socket.socket(kind)) as client,
    ):
        for end in (listener, client):
            end.settimeout(20)
        listener.bind((address, 0))
        listener.listen()
        server = threading.Thread(target=serve, args=(listener, got))
        server.start()
        client.connect(listener.getsockname()[:2])
        writer = threading.Thread(target=lambda: (client.sendall(BYTES), client.shutdown(socket.SHUT_WR)))
        writer.start()
        got["left"] = read_all(client)
        writer.join(20)
        server.join(20)
    return got


def carried(packets: list[bytes], option: bytes) -> int:
    """Return how many packets carry the option; each one's checksums must be right."""
    found = 0
    for packet in packets:
        seen = decode(packet)
        if seen.tcp is None:
            continue
        assert seen.valid, packet[:100].hex()
        found += option in [one.raw for one in seen.tcp.options]
    return found


CASES = [
    ("insert", {"data": SHORT}),
    ("insert", {"data": LONG}),
    ("cap", {"number": 40 << 7, "scale": 8}),
]


@pytest.mark.parametrize(("job", "how"), CASES, ids=["in place", "grown ACKs", "window"])
@pytest.mark.parametrize("hook", ["egress", "ingress", "xdp"])
@pytest.mark.parametrize("family", [4, 6])
def test_changed_packets_are_right_and_nothing_is_lost(
    cable: Cable, changing: LoadedObject, family: int, hook: str, job: str, how: dict[str, Any]
) -> None:
    cable.offload("off")
    order(changing, job, **how)
    before = cable.wrong_checksums()
    tap = Tap(cable.right, "right")
    link = attach(cable, changing, "left" if hook == "egress" else "right", hook)
    try:
        got = transfer(cable, family)
        packets, changed, _ = counts(changing)
    finally:
        link.close()
        arrived = tap.packets()
        tap.close()
    assert got == {"left": BYTES, "right": BYTES}
    assert cable.wrong_checksums() == before
    assert packets > 20
    assert changed
    if hook != "ingress" and "data" in how:
        assert carried(arrived, how["data"])


@pytest.mark.parametrize("family", [4, 6])
def test_merged_packets_are_changed_in_place(cable: Cable, changing: LoadedObject, family: int) -> None:
    cable.offload("off")
    order(changing, "insert", SHORT)
    before = cable.wrong_checksums()
    link = attach(cable, changing, "left", "egress")
    try:
        got = transfer(cable, family)
        packets, changed, merged = counts(changing)
    finally:
        link.close()
    assert got == {"left": BYTES, "right": BYTES}
    assert merged
    # All but the SYN, and FIN or RST, which get nothing inserted.
    assert changed >= packets - 6
    assert cable.wrong_checksums() == before


@pytest.mark.parametrize("hook", ["egress", "ingress"])
def test_a_wrong_checksum_would_be_noticed(cable: Cable, changing: LoadedObject, hook: str) -> None:
    cable.offload("off")
    before = cable.wrong_checksums()
    link = attach(cable, changing, "left" if hook == "egress" else "right", hook, "spoil_tc")
    try:
        with namespaces.call(cable.left, socket.socket) as client:
            client.settimeout(0.2)
            with pytest.raises(TimeoutError):
                client.connect(("10.77.0.2", 9))
    finally:
        link.close()
    assert cable.wrong_checksums() > before
