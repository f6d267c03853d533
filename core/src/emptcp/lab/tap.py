# SPDX-License-Identifier: Apache-2.0
"""TAP devices: Ethernet devices of a host whose other end is a file descriptor of ours."""

from __future__ import annotations

import fcntl
import os
import struct

from emptcp.errors import EmptcpError

CLONE = "/dev/net/tun"
# include/uapi/linux/if_tun.h. No IFF_VNET_HDR: without it the kernel computes every checksum and cuts every
# segment before a frame reaches us.
TUNSETIFF = 0x400454CA
IFF_TAP = 0x0002
IFF_NO_PI = 0x1000


def open_tap(device: str) -> int:
    """Make a TAP device in the calling thread's namespace; it lasts as long as the descriptor is open.

    One read gives one frame, one write takes one; neither waits.
    """
    descriptor = _open_clone()
    request = struct.pack("16sH22x", device.encode(), IFF_TAP | IFF_NO_PI)
    try:
        fcntl.ioctl(descriptor, TUNSETIFF, request)
    except OSError as error:
        os.close(descriptor)
        raise EmptcpError(f"TAP device '{device}' can't be made: {error.strerror}") from None
    return descriptor


def _open_clone() -> int:
    try:
        return os.open(CLONE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise EmptcpError(
            f"the lab's link process can't open {CLONE}: {error.strerror}",
            fix="Load the kernel module 'tun', or 'sch_netem' so that the link process isn't needed.",
        ) from None
