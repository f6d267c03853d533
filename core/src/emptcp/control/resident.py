# SPDX-License-Identifier: Apache-2.0
"""The resident process's loop: wait for events, devices and signals, and hand them on."""

from __future__ import annotations

import selectors
import signal
import socket
from collections.abc import Iterable
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Protocol

from emptcp.control.devices import DeviceWatch
from emptcp.errors import EmptcpError

if TYPE_CHECKING:
    from emptcp.hooks.namespaces import Namespace
    from emptcp.pybpf import Map, RingBuffer

REFRESH = 1.0
"""Seconds after which a newly applied table is noticed, and a socket that no event told of."""

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Work(Protocol):
    """What the loop hands on to. What a method raises ends the loop."""

    def refresh(self) -> None:
        """Take notice of what changed meanwhile; called before each wait."""
        ...

    def sweep(self) -> None:
        """Do what is due from time to time; called after each wait."""
        ...

    def events(self) -> Map | None:
        """Return an owner of the ring buffer of events, or None while nothing is applied."""
        ...

    def namespaces(self) -> Iterable[Namespace]:
        """Return the network namespaces that have policies now."""
        ...

    def event(self, record: bytes) -> None:
        """Act on one record of the ring buffer."""
        ...

    def appeared(self, namespace: Namespace, device: str) -> None:
        """Act on a device that is there again, or for the first time."""
        ...


class StopSignals:
    """Turns SIGTERM and SIGINT into a readable socket, inside a ``with`` block of the main thread."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)

    def fileno(self) -> int:
        """The socket that is readable once a signal has come."""
        return self._reader.fileno()

    def __enter__(self) -> StopSignals:
        self._before = [(number, signal.signal(number, _nothing)) for number in _STOP_SIGNALS]
        self._wakeup = signal.set_wakeup_fd(self._writer.fileno())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before:
            signal.signal(number, handler)
        self._reader.close()
        self._writer.close()


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """Let the wake-up descriptor tell: Python would otherwise end the process in the middle of something."""


class Resident:
    """Waits and hands on until ``stop`` (something readable) is readable."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._selector = selectors.DefaultSelector()
        self._watches: dict[int, DeviceWatch] = {}
        self._ring: RingBuffer | None = None
        self._ring_id = 0

    def run(self, stop: StopSignals) -> None:
        """Work until a signal comes; then close everything and return."""
        self._selector.register(stop, selectors.EVENT_READ)
        try:
            self._refresh()
            while self._wait(stop):
                self._refresh()
                self._work.sweep()
        finally:
            self._close()

    def _wait(self, stop: StopSignals) -> bool:
        """Handle what comes within the refresh time; return False when it is time to stop."""
        for key, _mask in self._selector.select(REFRESH):
            if key.fileobj is stop:
                return False
            if isinstance(key.data, DeviceWatch):
                for name in key.data.read():
                    self._work.appeared(key.data.namespace, name)
            elif self._ring is not None:
                self._ring.poll(0)
        return True

    def _refresh(self) -> None:
        self._work.refresh()
        self._open_ring()
        wanted = {namespace.cookie: namespace for namespace in self._work.namespaces()}
        for cookie in self._watches.keys() - wanted.keys():
            self._end(cookie)
        for cookie in wanted.keys() - self._watches.keys():
            self._begin(wanted[cookie])

    def _open_ring(self) -> None:
        """Read the ring buffer of now: it ends with the last table and is made anew by the next."""
        source = self._work.events()
        if source is None:
            self._close_ring()
            return
        with source:
            if source.id != self._ring_id:
                self._close_ring()
                self._read(source)

    def _read(self, source: Map) -> None:
        from emptcp import pybpf

        self._ring = pybpf.RingBuffer(source, self._work.event)
        self._ring_id = source.id
        self._selector.register(self._ring.fd, selectors.EVENT_READ)

    def _close_ring(self) -> None:
        if self._ring is not None:
            self._selector.unregister(self._ring.fd)
            self._ring.close()
            self._ring, self._ring_id = None, 0

    def _begin(self, namespace: Namespace) -> None:
        try:
            watch = DeviceWatch(namespace)
        except EmptcpError:  # it went since it was found; should it come back, it is found again
            return
        self._watches[namespace.cookie] = watch
        self._selector.register(watch, selectors.EVENT_READ, watch)

    def _end(self, cookie: int) -> None:
        watch = self._watches.pop(cookie)
        self._selector.unregister(watch)
        watch.close()

    def _close(self) -> None:
        for cookie in list(self._watches):
            self._end(cookie)
        self._close_ring()
        self._selector.close()
