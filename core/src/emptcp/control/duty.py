# SPDX-License-Identifier: Apache-2.0
"""What the resident process does with what it hears: hand events to plugins, attach policies again."""

from __future__ import annotations

import json
import os
import struct
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

from emptcp.chain.connections import Following
from emptcp.chain.trips import Trip
from emptcp.control.guard import Guard
from emptcp.control.notify import READY, ServiceManager
from emptcp.errors import EmptcpError
from emptcp.plugins.occasions import Ends, StageEvent

if TYPE_CHECKING:
    from emptcp.chain.pins import Pins
    from emptcp.chain.session import Outcome
    from emptcp.chain.tables import Entry
    from emptcp.control.closed import Keeper
    from emptcp.control.files import Files
    from emptcp.control.resident import Waker
    from emptcp.control.runtime import Runtime
    from emptcp.control.upkeep import Upkeep
    from emptcp.hooks.namespaces import Namespace
    from emptcp.plugins.catalog import Catalog
    from emptcp.plugins.manager import Manager

# struct emptcp_event of emptcp/event.h, which the event's own bytes follow
_EVENT = struct.Struct("=QIHBB36s32sI")
_KEY = struct.Struct("!16s16sHH")
_HOOKS = ("ingress", "egress", "socket")

CORE = "core"
ENDED = "core_ended"
"""The source of core's own record: a controller was ended."""

Owners = Mapping[str, str]
"""Fragment -> the plugin that it belongs to, :data:`CORE` for one of core's own."""

Traces = tuple[tuple[int, int] | None, ...]


class Duty:
    """The work of ``emptcp run``. ``say`` gets what an operator wants to know, ``report`` what was done."""

    def __init__(
        self,
        say: Callable[[str], None],
        report: Callable[[Outcome], None],
        guard: Guard | None = None,
        runtime: Runtime | None = None,
        keeper: Keeper | None = None,
        files: Files | None = None,
        service_manager: ServiceManager | None = None,
        upkeep: Upkeep | None = None,
    ) -> None:
        self._say = say
        self._report = report
        self._seen: Traces = ()
        self._manager: Manager | None = None
        self._owners: Owners = {}
        self._followed = Following()
        self._guard = guard
        self._runtime = runtime
        self._keeper = keeper
        self._files = files
        self._service_manager = service_manager or ServiceManager()
        self._upkeep = upkeep
        self._catalog: Catalog | None = None

    def refresh(self) -> None:
        """Load the enabled plugins, again when some were installed, removed, enabled or disabled.

        A module that was imported once stays as it was: an upgraded plugin takes a new start.
        """
        now = _traces()
        if now == self._seen:
            return
        self._seen = now
        from emptcp.plugins.catalog import Catalog
        from emptcp.plugins.manager import Manager

        try:
            self._catalog = Catalog.of_enabled()
            self._owners = owners(self._catalog)
            self._manager = Manager.of_enabled()
            if self._guard is not None:
                self._guard.know(self._catalog)
        except EmptcpError as error:  # half an installation, say: go on with what there was
            self._say(str(error))

    def sweep(self) -> None:
        """Once a second, apply files that changed, and bring sockets to what actors want of them.

        Let stages look at the subflows, keep the connections that ended, and let the guard look.
        """
        if self._files is not None:
            self._files.look()
        from emptcp.chain import pins, sockets

        tree = pins.find()
        if tree is not None:
            with self._going_on():
                sockets.run_everywhere(tree)
            with self._going_on():
                self._follow_sockets(tree)
            with self._going_on():
                self._look_after(tree)
        self._keep_ended()
        self._guarded()

    def _look_after(self, tree: Pins) -> None:
        if self._upkeep is not None and self._catalog is not None and self._manager is not None:
            self._upkeep.look(tree, self._catalog, self._manager)

    def _keep_ended(self) -> None:
        if self._keeper is not None:
            with self._going_on():
                self._keeper.look(self.namespaces())

    def reload(self) -> None:
        """Apply all files again."""
        self._service_manager.reloading()
        if self._files is not None:
            self._say("reading all files again")
            self._files.load()
        self._service_manager.tell(READY)

    def wakers(self) -> list[Waker]:
        """Wake the loop when controllers have set something."""
        return [self] if self._runtime is not None else []

    def fileno(self) -> int:
        """What is readable then."""
        assert self._runtime is not None
        return self._runtime.fileno()

    def woken(self) -> list[bytes]:
        """Let the actors' plugins do to live sockets what controllers have set.

        Returns a record for each controller that was ended.
        """
        from emptcp.chain import pins
        from emptcp.control.telling import tell

        records, tree = [], pins.find()
        assert self._runtime is not None
        for why, name, changes in self._runtime.take():
            if why:
                records.append(ended(name.table, name.controller, why))
            if tree is not None and self._catalog is not None and self._manager is not None:
                with self._going_on():
                    tell(tree, self._catalog, self._manager, name, changes)
        return records

    def _guarded(self) -> None:
        trips: list[Trip] = []
        if self._guard is not None:
            with self._going_on():
                trips = self._guard.look()
        for trip in trips:
            self._say(f"{trip}; on again by: {trip.fix}")

    def _see_keys(self, event: StageEvent) -> None:
        """Work out the tokens of a connection that began."""
        from emptcp.chain import connections, flows, pins

        tree = pins.find()
        if tree is None or event.endpoints is None:
            return
        for cookie in connections.followed(tree):
            if cookie & 0xFFFFFFFF == event.netns:
                with self._going_on():
                    self._followed.of(tree, cookie).see_keys(flows.key(*event.endpoints))

    def _follow_sockets(self, tree: Pins) -> None:
        """Tell programs of the connections that were there before them."""
        from emptcp.chain import connections
        from emptcp.hooks import namespaces
        from emptcp.mptcp.sockets import subflows

        cookies = list(connections.followed(tree))
        self._followed.keep(cookies)
        for cookie in cookies:
            try:
                namespace = namespaces.by_cookie(cookie)
            except EmptcpError:  # it went
                continue
            new = self._followed.is_new(cookie)
            known = self._followed.of(tree, cookie)
            if new:
                known.see_all()
            known.see_sockets(subflows(namespace))

    def begin(self) -> None:
        """Put right what changed while nobody was there, and tell the plugins what runs."""
        self.refresh()
        self._reattach()
        if self._files is not None:
            self._files.load()
        with self._going_on():
            from emptcp.chain import apply

            for warning in apply.tell_running():
                self._say(f"warning: {warning}")
        self._keep_ended()  # those that end from here on

    def namespaces(self) -> Iterator[Namespace]:
        """Yield the namespaces that tables name and that exist."""
        from emptcp.chain import tables
        from emptcp.hooks import namespaces

        for netns in sorted({netns for entry in tables.entries() for netns in _netns(entry)}):
            try:
                yield namespaces.resolve(netns)
            except EmptcpError:  # it may come back, and is looked for again
                continue

    def event(self, record: bytes) -> None:
        """Hand a record of the ring buffer to the plugins, or act on one of core's own."""
        event = decode(record, self._owners)
        if event is None:
            return
        if event.plugin == CORE:
            self._see_keys(event)
        elif self._manager is not None:
            self._manager.hook.emptcp_event(event=event)

    def appeared(self, namespace: Namespace, device: str) -> None:
        """Attach what belongs on a device that came, or came back."""
        self._say(f"device {device} appeared in {namespace}")
        self._reattach()

    def watched(self, namespace: Namespace) -> None:
        """Attach what belongs on devices that came before anybody looked."""
        self._reattach()

    def _reattach(self) -> None:
        with self._going_on():
            from emptcp.chain import apply

            for outcome in apply.reattach():
                if outcome.changed or outcome.warnings:
                    self._report(outcome)

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        """Say what goes wrong: the next time it may go well."""
        from emptcp.pybpf import BpfError

        try:
            yield
        except (EmptcpError, BpfError, OSError) as error:
            self._say(str(error))


def _traces() -> Traces:
    """Return what changes when plugins are installed, removed, enabled or disabled: the times of folders."""
    from emptcp.plugins.whereabouts import state_file

    return tuple(_trace(path) for path in (state_file(), *sys.path))


def _trace(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _netns(entry: Entry) -> Iterator[str]:
    """Yield the namespaces of a table's policies; empty is the one this process is in."""
    from emptcp.policy import file

    try:
        policies = file.loads(entry.text, entry.source or entry.table).policies
    except EmptcpError:  # told of when tables are brought to where they belong, and by `doctor`
        return
    for policy in policies:
        yield policy.netns if policy.netns is not None else entry.netns


def owners(catalog: Catalog) -> Owners:
    """Return whose each fragment is that may send events."""
    return {**dict(_fragments(catalog)), "core_connection": CORE, ENDED: CORE}


def _fragments(catalog: Catalog) -> Iterator[tuple[str, str]]:
    for stage in catalog:
        yield stage.declaration.fragment, stage.plugin
        for companion in stage.declaration.companions:
            yield companion.fragment, stage.plugin


def ended(table: str, controller: str, why: str) -> bytes:
    """Return the record that tells of a controller that was ended; its bytes are JSON."""
    data = json.dumps({"table": table, "controller": controller, "why": why}).encode()
    return _EVENT.pack(time.monotonic_ns(), 0, len(data), 0, 0, bytes(_KEY.size), ENDED.encode(), 0) + data


def decode(record: bytes, owners: Owners) -> StageEvent | None:
    """Return the event of a ring buffer's record; None for one that is too short or of no known fragment."""
    if len(record) < _EVENT.size:
        return None
    time, kind, length, hook, direction, key, source, netns = _EVENT.unpack_from(record)
    name = source.rstrip(b"\0").decode(errors="replace")
    if name not in owners:
        return None
    return StageEvent(
        owners[name],
        name,
        kind,
        time,
        _HOOKS[hook] if hook < len(_HOOKS) else str(hook),
        record[_EVENT.size : _EVENT.size + length],
        _ends(key),
        direction,
        netns,
    )


@lru_cache(maxsize=4096)
def _ends(key: bytes) -> Ends:
    """Return a subflow's two ends; making their addresses takes longer than all else of an event."""
    first, second, first_port, second_port = _KEY.unpack(key)
    return (_address(first), first_port), (_address(second), second_port)


def _address(packed: bytes) -> IPv4Address | IPv6Address:
    whole = IPv6Address(packed)
    return whole.ipv4_mapped or whole
