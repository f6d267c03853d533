# SPDX-License-Identifier: Apache-2.0
"""Put single packets into a running connection: up into our own stack, or out to the peer.

Up goes by BPF_PROG_TEST_RUN with live frames and a program that answers XDP_PASS: the kernel makes an skb as
if the device had received it. A native XDP program on the device does not see it, a generic one and TC
ingress do. Needs 5.18 (feature ``live_frames``). Out goes by a raw IP socket: routing, the link header and
the neighbour are the kernel's work, on any kind of device, and TC egress sees the packet.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any

from emptcp.errors import EmptcpError

if TYPE_CHECKING:
    from emptcp.hooks.devices import Device
    from emptcp.hooks.namespaces import Namespace
    from emptcp.pybpf import Program

# mov64 r0, XDP_PASS; exit
_PASS = struct.pack("=BBhiBBhi", 0xB7, 0, 0, 2, 0x95, 0, 0, 0)
# struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex
_XDP_MD = struct.Struct("=6I")
# Locally administered: the source of frames that no one has sent.
_NOBODY = bytes.fromhex("02656d707463")
_IPPROTO_RAW = 255


class Injector:
    """Delivers and sends packets in one network namespace (None: the caller's)."""

    def __init__(self, namespace: Namespace | None = None) -> None:
        self._open = ExitStack()
        self._inside = self._open.enter_context(_running_in(namespace))

    @cached_property
    def _program(self) -> Program:
        from emptcp import pybpf
        from emptcp.pybpf import features

        if not features.has("live_frames"):
            raise EmptcpError(
                f"this kernel can't take packets from user space: {features.reason('live_frames')}",
                fix="A kernel of 5.18 or later is needed.",
            )
        return self._open.enter_context(pybpf.load_program("xdp", _PASS, name="emptcp_deliver"))

    def deliver(self, device: Device, packet: bytes) -> None:
        """Hand ``packet`` (from its IP header on) to this host's stack as if ``device`` had received it.

        Raises :class:`EmptcpError` where the kernel lacks ``live_frames``.
        """
        program, frame = self._program, framed(device, packet)
        context = _XDP_MD.pack(0, len(frame), 0, device.ifindex, 0, 0)
        self._inside(lambda: program.test_run(frame, ctx=context, repeat=1, live_frames=True, batch_size=1))

    def send(self, packet: bytes, device: str = "") -> None:
        """Send ``packet`` (from its IP header on) by this host's routes, or out of ``device``."""
        self._inside(lambda: _send(packet, device))

    def close(self) -> None:
        """Unload the program."""
        self._open.close()

    def __enter__(self) -> Injector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _running_in(namespace: Namespace | None) -> AbstractContextManager[Callable[[Callable[[], Any]], Any]]:
    """Return a context that gives a function which runs others in the namespace, all in one thread."""
    if namespace is None:
        return nullcontext(lambda action: action())
    from emptcp.hooks import namespaces

    return namespaces.inside(namespace)


def framed(device: Device, packet: bytes) -> bytes:
    """Return ``packet`` behind the Ethernet header with which ``device`` takes it as its own.

    The kernel strips 14 bytes from every live frame, on a device without Ethernet header too; there the
    address that it compares with is zero.
    """
    own = bytes.fromhex(device.address.replace(":", "")) if device.link == "ethernet" else b""
    ethertype = b"\x86\xdd" if packet[0] >> 4 == 6 else b"\x08\x00"
    return (own or bytes(6))[:6].ljust(6, b"\0") + _NOBODY + ethertype + packet


def deliver(namespace: Namespace | None, device: Device, packet: bytes) -> None:
    """Hand one packet to our own stack; see :meth:`Injector.deliver`."""
    with Injector(namespace) as injector:
        injector.deliver(device, packet)


def send(namespace: Namespace | None, packet: bytes, device: str = "") -> None:
    """Send one packet to the peer; see :meth:`Injector.send`."""
    with Injector(namespace) as injector:
        injector.send(packet, device)


def _send(packet: bytes, device: str) -> None:
    if packet[0] >> 4 == 6:
        family, source, target = socket.AF_INET6, packet[8:24], packet[24:40]
    else:
        family, source, target = socket.AF_INET, packet[12:16], packet[16:20]
    with socket.socket(family, socket.SOCK_RAW, _IPPROTO_RAW) as out:
        if device:
            out.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        # Rules of the kind "from ADDRESS lookup TABLE" look at the socket's address, not at the packet's.
        out.bind((socket.inet_ntop(family, source), 0))
        out.sendto(packet, (socket.inet_ntop(family, target), 0))
