# SPDX-License-Identifier: Apache-2.0
"""Traffic that takes no notice of anybody: ``python -m emptcp.lab.flood ADDRESS PORT RATE``.

Sends UDP to a port, so many bit/s of whole frames, until it is ended.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import time

from emptcp.lab import process

PAYLOAD = 1400
FRAME = PAYLOAD + 14 + 20 + 8
PAUSE = 0.002
BEHIND = 0.05
"""Seconds of which it makes up what it missed: a machine that stood still shall cause no burst."""


def send(address: str, port: int, rate: float) -> None:
    """Send for ever."""
    payload, each = bytes(PAYLOAD), FRAME * 8 / rate
    due = time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.connect((address, port))
        while True:
            due = max(due, time.monotonic() - BEHIND)
            while due <= time.monotonic():
                with contextlib.suppress(OSError):  # the device's queue is full
                    made.send(payload)
                due += each
            time.sleep(PAUSE)


def main(arguments: list[str]) -> None:
    """``ADDRESS PORT RATE``."""
    process.go_first()
    address, port, rate = arguments
    with contextlib.suppress(KeyboardInterrupt):
        send(address, int(port), float(rate))


if __name__ == "__main__":
    main(sys.argv[1:])
