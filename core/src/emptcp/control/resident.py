# SPDX-License-Identifier: Apache-2.0
"""The resident process's loop: wait for events, devices and signals, and hand them on."""

from __future__ import annotations

import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Protocol

from emptcp.control.broadcast import Broadcast
from emptcp.control.devices import DeviceWatch
from emptcp.control.ring import EventRing
from emptcp.errors import EmptcpError

if TYPE_CHECKING:
    from emptcp.hooks.namespaces import Namespace

REFRESH = 0.9
"""Seconds from the begin of one sweep to that of the next, whatever wakes the loop meanwhile.

Within a second a newly applied table is noticed, and a socket that no event told of.
"""

_STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})
_SIGNALS = (*_STOP_SIGNALS, signal.SIGHUP)


class Waker(Protocol):
    """Something that is readable when it has something to do."""

    def fileno(self) -> int:
        """What is waited for."""
        ...

    def woken(self) -> Iterable[bytes]:
        """Do what there is to do, and return records to tell of."""
        ...


class Work(Protocol):
    """What the loop hands on to. What a method raises ends the loop."""

    def refresh(self) -> None:
        """Take notice of what changed meanwhile; called before each wait."""
        ...

    def sweep(self) -> None:
        """Do what is due from time to time; called about once a second (:data:`REFRESH`)."""
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

    def watched(self, namespace: Namespace) -> None:
        """Act on a namespace that got policies meanwhile: a device may have come before it was watched."""
        ...

    def reload(self) -> None:
        """Read again what was given as files; called on SIGHUP."""
        ...

    def wakers(self) -> Iterable[Waker]:
        """Return what else may wake the loop, the same all the time."""
        ...


class StopSignals:
    """Turns SIGTERM, SIGINT and SIGHUP into a readable socket, inside a ``with`` block of the main thread."""

    def __init__(self) -> None:
        self.hung_up = False
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)

    def fileno(self) -> int:
        """The socket that is readable once a signal has come."""
        return self._reader.fileno()

    def came(self) -> bool:
        """Take what came and tell whether it is time to stop: others, such as SIGALRM, wake it too.

        ``hung_up`` tells then whether there was a SIGHUP.
        """
        came = self._reader.recv(4096)
        self.hung_up = signal.SIGHUP in came
        return not _STOP_SIGNALS.isdisjoint(came)

    def __enter__(self) -> StopSignals:
        self._before = [(number, signal.signal(number, _nothing)) for number in _SIGNALS]
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
    """Waits and hands on until ``stop`` (something readable) is readable.

    Its lock on the ring buffer and the socket that others hear of events by are in ``folder``.
    """

    def __init__(self, work: Work, folder: Path) -> None:
        self._work = work
        self._selector = selectors.DefaultSelector()
        self._watches: dict[int, DeviceWatch] = {}
        self._ring = EventRing(folder, self._hear)
        self._ring_fd: int | None = None
        self._begun = False
        self._due = 0.0
        self._broadcast = Broadcast(folder)

    def run(self, stop: StopSignals, begin: Callable[[], None] = lambda: None) -> None:
        """Work until a signal comes; then close everything and return.

        ``begin`` is called once everything is listened to: what changes after that is not missed.
        """
        self._selector.register(stop, selectors.EVENT_READ)
        self._selector.register(self._broadcast, selectors.EVENT_READ)
        for waker in self._work.wakers():
            self._selector.register(waker, selectors.EVENT_READ, waker)
        try:
            self._refresh()
            begin()
            self._begun = True
            while self._wait(stop):
                self._refresh()
                self._sweep()
        finally:
            self._close()

    def _wait(self, stop: StopSignals) -> bool:
        """Handle what comes until the next sweep is due; return False when it is time to stop."""
        until_due = max(0.0, self._due - time.monotonic())
        ready = [key for key, _mask in self._selector.select(until_due)]
        if any(key.fileobj is stop for key in ready):  # first of all: the rest may take a while
            if stop.came():
                return False
            if stop.hung_up:
                self._work.reload()
        for key in ready:
            if key.fileobj is stop:
                continue
            if key.fileobj is self._broadcast:
                self._broadcast.accept()
            elif isinstance(key.data, DeviceWatch):
                for name in key.data.read():
                    self._work.appeared(key.data.namespace, name)
            elif key.data is not None:
                records = list(key.data.woken())
                self._broadcast.accept()  # who came first shall hear it
                for record in records:
                    self._broadcast.send(record)
            else:
                self._ring.poll()
        return True

    def _sweep(self) -> None:
        now = time.monotonic()
        if now >= self._due:
            self._due = now + REFRESH
            self._work.sweep()

    def _hear(self, record: bytes) -> None:
        self._broadcast.send(record)
        self._work.event(record)

    def _refresh(self) -> None:
        self._work.refresh()
        self._open_ring()
        wanted = {namespace.cookie: namespace for namespace in self._work.namespaces()}
        for cookie in self._watches.keys() - wanted.keys():
            self._end(cookie)
        for cookie in wanted.keys() - self._watches.keys():
            self._begin(wanted[cookie])

    def _open_ring(self) -> None:
        before = self._ring_fd
        if before is not None:
            self._selector.unregister(before)
        self._ring.refresh()
        self._ring_fd = self._ring.fd
        if self._ring_fd is not None:
            self._selector.register(self._ring_fd, selectors.EVENT_READ)

    def _begin(self, namespace: Namespace) -> None:
        try:
            watch = DeviceWatch(namespace)
        except EmptcpError:  # it went since it was found; should it come back, it is found again
            return
        self._watches[namespace.cookie] = watch
        self._selector.register(watch, selectors.EVENT_READ, watch)
        if self._begun:
            self._work.watched(namespace)

    def _end(self, cookie: int) -> None:
        watch = self._watches.pop(cookie)
        self._selector.unregister(watch)
        watch.close()

    def _close(self) -> None:
        for cookie in list(self._watches):
            self._end(cookie)
        self._ring.close()
        self._broadcast.close()
        self._selector.close()
