# SPDX-License-Identifier: Apache-2.0
"""The ring buffer of events, which one process reads at a time: a record goes to whoever takes it first."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emptcp.pybpf import RingBuffer

LOCK = "events.lock"


class EventRing:
    """Reads the events of all programs, from when no other process does. A lock file tells which one does.

    The ring buffer ends with the last table and is made anew by the next: :meth:`refresh` follows it.
    """

    def __init__(self, folder: Path, callback: Callable[[bytes], None]) -> None:
        """``callback`` is called with each record (``struct emptcp_event``) from within :meth:`poll`."""
        self._path = folder / LOCK
        self._callback = callback
        self._lock: int | None = None
        self._ring: RingBuffer | None = None
        self._ring_id = 0

    @property
    def fd(self) -> int | None:
        """What is readable when there are records, ``None`` while nothing is read."""
        return self._ring.fd if self._ring is not None else None

    @property
    def mine(self) -> bool:
        """Whether this process is the one that reads."""
        return self._lock is not None

    def refresh(self) -> None:
        """Read the ring buffer of now, if there is one and nobody else reads it."""
        from emptcp import pybpf
        from emptcp.chain import pins

        tree = pins.find()
        if not self._take() or tree is None or not tree.events().exists():
            self._end()
            return
        with pybpf.Map.from_pin(tree.events()) as source:
            if source.id != self._ring_id:
                self._end()
                self._ring, self._ring_id = pybpf.RingBuffer(source, self._callback), source.id

    def poll(self) -> None:
        """Hand all records that are there to the callback."""
        if self._ring is not None:
            self._ring.poll(0)

    def close(self) -> None:
        """Stop reading, and let another process read."""
        self._end()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _end(self) -> None:
        if self._ring is not None:
            self._ring.close()
            self._ring, self._ring_id = None, 0

    def _take(self) -> bool:
        if self._lock is not None:
            return True
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._lock = descriptor
        return True
