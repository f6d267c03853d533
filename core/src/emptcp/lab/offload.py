# SPDX-License-Identifier: Apache-2.0
"""Turns a device's offloads off, so that packets on the lab's links look as they do on a wire, or on again.

A veth pair passes checksums on uncomputed and packets of 64 KiB unsplit: on it a wrong checksum goes
unnoticed. Done by the ioctl, because not every machine has ethtool.
"""

from __future__ import annotations

import array
import fcntl
import itertools
import socket
import struct
from collections.abc import Sequence

SIOCETHTOOL = 0x8946
# include/uapi/linux/ethtool.h
SET_TX_CHECKSUM = 0x17
SET_TSO = 0x1F
SET_GSO = 0x24
SET_GRO = 0x2C
# TSO needs the checksum offload, so it goes first.
ALL = (SET_TSO, SET_GSO, SET_GRO, SET_TX_CHECKSUM)


def turn_off(devices: Sequence[str]) -> None:
    """Turn all offloads of devices in the calling thread's namespace off. Raises OSError when refused."""
    _turn(devices, ALL, 0)


def turn_on(devices: Sequence[str]) -> None:
    """Turn them on: packets pass merged, as in a host whose network card cuts them."""
    _turn(devices, ALL[::-1], 1)


def _turn(devices: Sequence[str], commands: Sequence[int], value: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for device, command in itertools.product(devices, commands):
            _set(any_socket, device, command, value)


def _set(any_socket: socket.socket, device: str, command: int, value: int) -> None:
    request = array.array("B", struct.pack("=II", command, value))
    address, _ = request.buffer_info()
    fcntl.ioctl(any_socket, SIOCETHTOOL, struct.pack("16sP16x", device.encode(), address))
