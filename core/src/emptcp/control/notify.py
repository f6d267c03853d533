# SPDX-License-Identifier: Apache-2.0
"""Tell the service manager how far the process is, by the datagrams of ``sd_notify(3)``."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress

READY, STOPPING = "READY=1", "STOPPING=1"


class ServiceManager:
    """Whoever started this process and wants to be told; nobody where ``NOTIFY_SOCKET`` is not set.

    The variable is taken out of the environment: processes that this one starts have nothing to tell.
    """

    def __init__(self) -> None:
        self._address = os.environ.pop("NOTIFY_SOCKET", "")

    def tell(self, *words: str) -> None:
        """Send words as ``sd_notify`` has them. A manager that does not listen is none of our concern."""
        if not self._address:
            return
        address = f"\0{self._address[1:]}" if self._address[0] == "@" else self._address
        with (
            suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as made,
        ):
            made.sendto("\n".join(words).encode(), address)

    def reloading(self) -> None:
        """Tell that files are read again; :data:`READY` tells the end."""
        self.tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
