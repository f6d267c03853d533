# SPDX-License-Identifier: Apache-2.0
"""Packets whose headers are not in the linear part of the skb: pulled, then parsed and changed as any other.

A TAP device builds such skbs: of a frame longer than a page it puts as many bytes into the linear part as the
writer's ``virtio_net_hdr`` says the headers have.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from emptcp.hooks import namespaces
from emptcp.hooks.namespaces import Namespace
from emptcp.packet.build import build
from emptcp.packet.layers import options_header
from emptcp.packet.mptcp import Dss
from emptcp.packet.tcp import Timestamps
from emptcp.pybpf import Link, LoadedObject, features, load_object

pytestmark = pytest.mark.kernel

TUNSETIFF, IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x400454CA, 0x0002, 0x1000, 0x4000
OPTIONS = [b"\x01\x01", Timestamps(1, 2), Dss(1), b"\x01" * 4]
LARGE = b"payload!" * 600


@dataclass(frozen=True)
class Device:
    """A TAP device's descriptor and where it is."""

    host: Namespace
    descriptor: int

    def send(self, frame: bytes, linear: int) -> None:
        """Bring a frame in, ``linear`` bytes of it in the linear part."""
        os.write(self.descriptor, struct.pack("<BBHHHH", 0, 0, linear, 0, 0, 0) + frame)


def opened() -> int:
    descriptor = os.open("/dev/net/tun", os.O_RDWR)
    flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", b"tap", flags))
    return descriptor


@pytest.fixture(scope="module")
def tap() -> Iterator[Device]:
    if not Path("/dev/net/tun").exists():
        pytest.skip("this machine has no /dev/net/tun")
    name = f"emt{os.getpid()}-tap"
    subprocess.run(["ip", "netns", "add", name], check=True, timeout=10)
    try:
        host = namespaces.resolve(name)
        device = Device(host, namespaces.call(host, opened))
        subprocess.run(["ip", "-n", name, "link", "set", "tap", "up"], check=True, timeout=10)
        yield device
        os.close(device.descriptor)
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True, timeout=10)


@pytest.fixture
def attached(tap: Device, objects: dict[str, Path]) -> Iterator[LoadedObject]:
    """The changing program on the device's ingress, told to insert MP_PRIO."""
    if not features.has("tcx"):
        pytest.skip(features.reason("tcx"))
    with load_object(objects["change"]) as loaded:
        order = struct.pack("<IHBBI", 3, 14, 0, 0, 0) + struct.pack("<IIIII", 6, 0, 0, 0, 0)
        loaded.maps["order"].update(bytes(4), order.ljust(76, b"\0"))
        link = namespaces.call(
            tap.host,
            lambda: Link.attach_tcx(loaded.programs["change_tc"], socket.if_nametoindex("tap"), True),
        )
        yield loaded
        link.close()


def counts(loaded: LoadedObject) -> tuple[int, int]:
    """Return how many packets were parsed as TCP, and changed, and start again at 0."""
    value = loaded.maps["outcome"].lookup(bytes(4))
    assert value is not None
    loaded.maps["outcome"].update(bytes(4), bytes(len(value)))
    parsed, changed = struct.unpack_from("<QQ", value, len(value) - 24)
    return parsed, changed


SHAPES: list[dict[str, Any]] = [
    {},
    {"family": 6},
    {"vlan": [5, 6]},
    {"ip_options": b"\x01" * 40},
    {"family": 6, "extensions": [options_header(60, 64), options_header(60, 128)]},
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_headers_are_pulled_wherever_the_linear_part_ends(
    tap: Device, attached: LoadedObject, shape: dict[str, Any]
) -> None:
    frame = build(**shape, options=OPTIONS, payload=LARGE)
    headers = len(frame) - len(LARGE)
    counts(attached)
    linear = [14, 15, 33, 34, 35, headers - 1, headers, headers + 1, 1000]
    for size in linear:
        tap.send(frame, size)
    assert counts(attached) == (len(linear), len(linear))


def test_what_is_not_tcp_is_left_alone_there_too(tap: Device, attached: LoadedObject) -> None:
    counts(attached)
    tap.send(build(protocol=17, transport=bytes(5000)), 14)
    assert counts(attached) == (0, 0)
