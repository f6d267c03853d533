# SPDX-License-Identifier: Apache-2.0
"""The controllers of all running tables: a thread of ``emptcp run`` that lets each tick in its time.

The thread waits for nobody: each controller has a process of its own, and what its settings do to live
sockets, which may take a while, is left to the main thread (:mod:`emptcp.control.telling`).
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from queue import SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING

from emptcp.chain import controllers, pins, tables
from emptcp.chain.session import recorded
from emptcp.control.charge import Charge, Name, Wanted
from emptcp.control.settings import Changed
from emptcp.errors import EmptcpError
from emptcp.hooks import namespaces
from emptcp.mptcp.sockets import SubflowReader
from emptcp.plugins import digest
from emptcp.plugins.catalog import Catalog
from emptcp.pybpf import BpfError

if TYPE_CHECKING:
    from emptcp.chain.tables import Entry
    from emptcp.plugins.controllers import BoundController

REFRESH = 1.0
"""Seconds after which a newly applied table is noticed."""

FRESH = 0.01
"""Seconds for which what the kernel said serves the next controller, too."""

Task = tuple[str, Name, list[Changed]]
"""What the main thread has to do: a reason (empty, or why a controller was ended), whose, its settings."""


class Runtime:
    """Runs controllers from :meth:`start` to the end of a ``with`` block; ``say`` is called in its thread.

    ``tasks`` has what the main thread is to do, and ``fileno`` is readable when there is something.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._said: set[str] = set()
        self.tasks: SimpleQueue[Task] = SimpleQueue()
        self._wake, self._woken = socket.socketpair()
        self._stopping, self._stop = socket.socketpair()
        self._wake.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="controllers")
        self._charges: dict[Name, Charge] = {}
        self._ended: dict[Name, Wanted] = {}
        self._selector = selectors.DefaultSelector()
        self._reader: SubflowReader | None = None
        self._records: dict[int, tuple[float, bytes]] = {}
        self._seen: object = None
        self._refreshed = 0.0

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def __enter__(self) -> Runtime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all controllers; what they set stays."""
        self._stop.send(b"x")
        if self._thread.is_alive():
            self._thread.join()
        for end in (self._wake, self._woken, self._stopping, self._stop):
            end.close()

    def fileno(self) -> int:
        """What is readable when there are tasks."""
        return self._woken.fileno()

    def take(self) -> list[Task]:
        """Return the tasks that wait, one for each controller; see :func:`merged`."""
        self._woken.recv(4096)
        waiting = []
        while not self.tasks.empty():
            waiting.append(self.tasks.get())
        return merged(waiting)

    # The thread

    def _run(self) -> None:
        self._selector.register(self._stopping, selectors.EVENT_READ)
        try:
            while not self._wait():
                self._going_on(self._refresh)
                now = time.monotonic()
                for charge in list(self._charges.values()):
                    if now >= charge.process.due:
                        self._tick(charge, now)
        finally:
            for charge in self._charges.values():
                charge.close()
            if self._reader is not None:
                self._reader.close()
            self._selector.close()

    def _wait(self) -> bool:
        """Hear answers until the next tick is due; return whether it is time to stop."""
        due = min((one.process.due for one in self._charges.values()), default=float("inf"))
        until = min(due, self._refreshed + REFRESH) - time.monotonic()
        for key, _mask in self._selector.select(max(0.0, until)):
            if key.fileobj is self._stopping:
                return True
            self._hear(key.data)
        return False

    def _tick(self, charge: Charge, now: float) -> None:
        process = charge.process
        process.schedule(now)
        if not process.idle:
            if why := process.overdue(now):
                self._end(charge, why)
            return
        try:
            charge.ask(now, self._of_kernel(charge.wanted, now))
        except (OSError, EmptcpError, BpfError) as error:
            self._say(f"{charge.name}: {error}")

    def _of_kernel(self, wanted: Wanted, now: float) -> bytes:
        """Return the records of a namespace, read at most once for controllers that tick together.

        Who is at a hop looks by itself, since that takes the plugins' code.
        """
        if wanted.at_hop:
            return b""
        cookie = wanted.namespace.cookie
        at, records = self._records.get(cookie, (0.0, b""))
        if now - at > FRESH:
            self._reader = self._reader or SubflowReader()
            records = self._reader.records(wanted.namespace)
            self._records[cookie] = now, records
        return records

    def _hear(self, charge: Charge) -> None:
        began = charge.process.ready
        answer = charge.process.hear(time.monotonic())
        if charge.process.ready and not began:
            self._say(f"{charge.name} ticks every {charge.process.interval:g} s")
        if answer is None:
            self._end(charge, "its process ended")
            return
        if answer.error:
            self._say(f"{charge.name}: {answer.error}")
        if charge.process.failed:
            self._end(charge, answer.error)
            return
        try:
            self._hand_over("", charge.name, charge.put_in_force(answer))
        except (ValueError, EmptcpError, BpfError) as error:
            self._say(f"{charge.name}: {error}")

    def _end(self, charge: Charge, why: str) -> None:
        """End a controller that fails; it is started again when its table or its plugin changes."""
        spec = charge.wanted.bound.spec
        gone = charge.withdraw() if spec.on_failure == "withdraw" else []
        self._drop(charge)
        self._ended[charge.name] = charge.wanted
        kept = "taken back" if spec.on_failure == "withdraw" else "kept"
        self._say(
            f"{charge.name} was ended: {why}; its settings are {kept}; again by: emptcp apply, after a change"
        )
        self._hand_over(why, charge.name, gone)

    def _hand_over(self, why: str, name: Name, changes: list[Changed]) -> None:
        if why or changes:
            self.tasks.put((why, name, changes))
            with suppress(BlockingIOError):  # the main thread has been woken often enough
                self._wake.send(b"x")

    def _refresh(self) -> None:
        """Start what belongs to the tables of now, and end what belongs to none."""
        now = time.monotonic()
        if now - self._refreshed < REFRESH:
            return
        self._refreshed = now
        entries = [entry for entry in tables.entries() if "[[controller]]" in entry.text]
        seen = (entries, _trace())
        if seen == self._seen and self._charges.keys() | self._ended.keys() >= self._names(entries):
            return
        if seen != self._seen:
            self._said.clear()
        catalog = Catalog.of_enabled() if entries else None
        wanted = {one.name: one for one in self._wanted(entries, catalog)} if catalog is not None else {}
        for name, charge in list(self._charges.items()):
            if wanted.get(name) != charge.wanted:
                self._drop(charge)
        self._ended = {name: one for name, one in self._ended.items() if wanted.get(name) == one}
        for name, one in wanted.items():
            if name not in self._charges and name not in self._ended and catalog is not None:
                self._going_on(lambda one=one: self._start(one, catalog))  # type: ignore[misc]
        self._seen = seen

    def _names(self, entries: list[Entry]) -> set[Name]:
        return {Name(entry.table, one.name) for entry in entries for one in recorded(entry).controllers}

    def _wanted(self, entries: list[Entry], catalog: Catalog) -> Iterator[Wanted]:
        for entry in entries:
            try:
                table = recorded(entry)
                for bound in controllers.bound(table, catalog):
                    netns = bound.spec.netns if bound.spec.netns is not None else entry.netns
                    yield Wanted.of(table, bound, namespaces.resolve(netns), _release(bound))
            except EmptcpError as error:
                self._say_once(f"table '{entry.table}': {error}")

    def _start(self, wanted: Wanted, catalog: Catalog) -> None:
        tree = pins.find()
        if tree is None:
            return
        packages = _packages(wanted.bound)
        charge = Charge(tree, wanted, catalog, packages, time.monotonic())
        self._charges[charge.name] = charge
        self._selector.register(charge.process, selectors.EVENT_READ, charge)
        self._say(f"{charge.name} runs as process {charge.process.pid}")

    def _drop(self, charge: Charge) -> None:
        self._selector.unregister(charge.process)
        del self._charges[charge.name]
        charge.close()

    def _say_once(self, line: str) -> None:
        """Say what was not said since tables or plugins changed: what fails is tried again each second."""
        if line not in self._said:
            self._said.add(line)
            self._say(line)

    def _going_on(self, action: Callable[[], None]) -> None:
        """Say what goes wrong: the next time it may go well."""
        try:
            action()
        except (EmptcpError, BpfError, OSError) as error:
            self._say_once(str(error))


def merged(tasks: Iterable[Task]) -> list[Task]:
    """Return one task for each controller, with the last value of each setting and why it was ended."""
    reasons: dict[Name, str] = {}
    settings: dict[Name, dict[tuple[bytes, str], Changed]] = {}
    for why, name, changes in tasks:
        reasons[name] = why or reasons.get(name, "")
        settings.setdefault(name, {}).update({(one.key, one.target): one for one in changes})
    return [(reasons[name], name, list(of.values())) for name, of in settings.items()]


def _trace() -> tuple[int, ...]:
    """Return what changes when plugins are enabled or disabled."""
    from emptcp.plugins.whereabouts import state_file

    try:
        found = os.stat(state_file())
    except OSError:
        return ()
    return found.st_ino, found.st_mtime_ns


def _release(bound: BoundController) -> str:
    from importlib import metadata

    return metadata.version(bound.type.distribution)


def _packages(bound: BoundController) -> list[str]:
    from emptcp.plugins import state

    plugin = next(one for one in state.judged() if one.name == bound.type.plugin and one.usable)
    return sorted(digest.top_level(plugin))
