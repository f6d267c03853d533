# SPDX-License-Identifier: Apache-2.0
"""What `emptcp monitor` prints: the kernel's MPTCP events, those of plugins' fragments, and what was lost."""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from emptcp.chain import trips
from emptcp.control import broadcast
from emptcp.control.duty import CORE, ENDED, Owners, decode
from emptcp.control.ring import EventRing
from emptcp.errors import EmptcpError
from emptcp.plugins.occasions import StageEvent

if TYPE_CHECKING:
    from emptcp.hooks.namespaces import Namespace
    from emptcp.mptcp.events import Event, EventReader
    from emptcp.plugins.manager import Manager

LOST = "LOST"
REFRESH = 1.0
"""Seconds after which it is looked again who reads the ring buffer, and how many events were lost."""


@dataclass(frozen=True)
class Line:
    """One event. ``source`` is ``kernel``, ``emptcp`` or a plugin; ``time`` is in seconds since 1970.

    ``about`` is what it tells, in order: numbers, texts, truth values, addresses.
    """

    time: float
    event: str
    source: str
    netns: str
    about: Mapping[str, Any]


class Monitor:
    """Events of some network namespaces as they come. A context manager.

    Those of plugins come from `emptcp run`, or are read here while there is none: only one process can.
    """

    def __init__(
        self,
        folder: Path,
        spaces: Sequence[Namespace],
        owners: Owners,
        manager: Manager,
        secrets: bool = False,
    ) -> None:
        from emptcp.mptcp.events import EventReader

        self._folder = folder
        self._owners = owners
        self._manager = manager
        self._secrets = secrets
        self._lines: list[Line] = []
        self._spaces = {space.cookie & 0xFFFFFFFF: space.name for space in spaces}
        self._kernel: dict[int, tuple[EventReader, str]] = {}
        with ExitStack() as undo:
            for space in spaces:
                reader = undo.enter_context(EventReader(space))
                self._kernel[reader.fileno()] = reader, space.name
            self._stack = undo.pop_all()
        self._ring = EventRing(folder, self._hear)
        self._subscription: socket.socket | None = None
        self._lost = self._count_lost()
        self._trips = trips.read()

    def read(self, timeout: float) -> list[Line]:
        """Return the events of the next ``timeout`` seconds, at once when there are some."""
        self._lines = []
        self._connect()
        waiting = select.poll()
        for descriptor in self._descriptors():
            waiting.register(descriptor, select.POLLIN)
        for descriptor, _ in waiting.poll(min(timeout, REFRESH) * 1000):
            self._take(descriptor)
        self._tell_lost()
        self._tell_trips()
        return self._lines

    def close(self) -> None:
        """End all subscriptions."""
        self._ring.close()
        if self._subscription is not None:
            self._subscription.close()
        self._stack.close()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _connect(self) -> None:
        """Hear of events by `emptcp run` where there is one; else read them, unless another monitor does."""
        if self._subscription is None:
            self._subscription = broadcast.subscribe(self._folder)
        if self._subscription is not None:
            self._ring.close()
            return
        self._ring.refresh()
        if not self._ring.mine:
            raise EmptcpError(
                "another `emptcp monitor` reads the events, and no `emptcp run` is there to tell both",
                fix="Start one first, for instance: emptcp run &",
            )

    def _descriptors(self) -> Iterator[int]:
        yield from self._kernel
        if self._subscription is not None:
            yield self._subscription.fileno()
        elif self._ring.fd is not None:
            yield self._ring.fd

    def _take(self, descriptor: int) -> None:
        if descriptor in self._kernel:
            reader, netns = self._kernel[descriptor]
            self._lines += [of_kernel(event, netns) for event in reader.read()]
        elif self._subscription is not None:
            self._receive(self._subscription)
        else:
            self._ring.poll()

    def _receive(self, subscription: socket.socket) -> None:
        message = subscription.recv(1 << 16)
        if not message:  # `emptcp run` ended
            subscription.close()
            self._subscription = None
        elif count := broadcast.lost(message):
            self._lines.append(_lost(count))
        else:
            self._hear(message)

    def _hear(self, record: bytes) -> None:
        event = decode(record, self._owners)
        if event is not None and event.source == ENDED:  # of no namespace
            self._lines.append(self._line(event, "CONTROLLER_ENDED", "emptcp", json.loads(event.data)))
            return
        if event is None or event.netns not in self._spaces:
            return
        if event.plugin != CORE:
            self._lines.append(self._of_plugin(event))

    def _of_plugin(self, event: StageEvent) -> Line:
        told = self._manager.hook.emptcp_describe(event=event, secrets=self._secrets)
        about = dict(told) if told else {"event": event.source, "type": event.type, "data": event.data.hex()}
        name = str(about.pop("event", event.source))
        return self._line(event, name, event.plugin, about)

    def _line(self, event: StageEvent, name: str, source: str, about: Mapping[str, Any]) -> Line:
        # The kernel's clock began when it did; what it reads now tells when that was.
        began = time.time() - time.monotonic()
        netns = self._spaces.get(event.netns, "")
        return Line(began + event.time / 1e9, name, source, netns, about)

    def _tell_lost(self) -> None:
        count = self._count_lost()
        if count > self._lost:
            self._lines.append(_lost(count - self._lost))
        self._lost = count

    def _tell_trips(self) -> None:
        """Tell what a guard switched off: that of `emptcp run`, or of an `emptcp apply`."""
        now = trips.read()
        new = [trip for trip in now if trip not in self._trips]
        self._trips = now
        for trip in new:
            if trip.cookie & 0xFFFFFFFF in self._spaces:
                about = {"table": trip.table, "policy": trip.policy, **trip.seen}
                self._lines.append(Line(trip.time, "GUARD_TRIPPED", "emptcp", trip.netns, about))

    def _count_lost(self) -> int:
        """Return how many events the ring buffer had no room for, on all processors."""
        from emptcp import pybpf
        from emptcp.chain import pins

        tree = pins.find()
        if tree is None or not tree.lost().exists():
            return 0
        with pybpf.Map.from_pin(tree.lost()) as counter:
            return sum(int.from_bytes(one, "little") for one in counter.lookup_percpu(bytes(4)) or [])


def _lost(count: int) -> Line:
    return Line(time.time(), LOST, "emptcp", "", {"count": count})


def of_kernel(event: Event, netns: str) -> Line:
    """Return the line of an event of the kernel's path manager, with the names of ``ip mptcp monitor``."""
    told = {field.name: getattr(event, field.name) for field in fields(event) if field.name != "name"}
    about = {_KERNEL_NAMES.get(name, name): value for name, value in told.items() if value is not None}
    return Line(time.time(), event.name, "kernel", netns, about)


_KERNEL_NAMES = {
    "local": "saddr",
    "local_port": "sport",
    "remote": "daddr",
    "remote_port": "dport",
    "local_id": "locid",
    "remote_id": "remid",
    "device": "ifindex",
}


def matching(
    names: Iterable[str] = (), sources: Iterable[str] = (), token: int | None = None
) -> Callable[[Line], bool]:
    """Return a filter: by names of events, by sources, by a connection's token; empty: all."""
    wanted, of = frozenset(names), frozenset(sources)

    def matches(line: Line) -> bool:
        tokens = [value for name, value in line.about.items() if is_token(name)]
        return (
            (not wanted or line.event in wanted)
            and (not of or line.source in of)
            and (token is None or token in tokens)
        )

    return matches


def is_token(name: str) -> bool:
    """Return whether what has this name is a connection's token."""
    return name == "token" or name.endswith("_token")
