# SPDX-License-Identifier: Apache-2.0
"""Connections that have ended, with what their subflows carried in all.

While somebody looks each second, that are connections of the subflow iterator that are not there any more,
with the counts that the kernel gave for each socket when it freed it. ``emptcp run`` keeps the last ones in
a file of the run folder, where ``emptcp connections`` reads them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Any

from emptcp.chain import tables
from emptcp.chain.pins import run_folder
from emptcp.control.subflow import ConnectionSubflow
from emptcp.errors import EmptcpError
from emptcp.mptcp.destroyed import DestroyedReader
from emptcp.mptcp.events import EventReader
from emptcp.mptcp.measured import measured
from emptcp.mptcp.sockets import SubflowReader
from emptcp.pybpf import features

if TYPE_CHECKING:
    from emptcp.hooks.namespaces import Namespace
    from emptcp.mptcp.destroyed import Destroyed
    from emptcp.mptcp.events import Event
    from emptcp.mptcp.measured import Measured
    from emptcp.plugins.occasions import Address, Endpoint, Ends

MOST = 100
"""Connections that are kept, the last ones."""

PATIENCE = 2.0
"""Seconds that the final counts of a connection out of sight are waited for."""

Plain = tuple[tuple[str, int], tuple[str, int]]

_BEGINS = ("CREATED", "ESTABLISHED", "SF_ESTABLISHED")


@dataclass(frozen=True)
class ClosedSubflow:
    """A subflow that ended; addresses and ports as text and number, bytes as the kernel counts them."""

    local: tuple[str, int]
    remote: tuple[str, int]
    sent: int = 0
    acked: int = 0
    received: int = 0
    final: bool = False
    """Whether the counts are those of the socket's end; else of the last look at it."""


@dataclass(frozen=True)
class ClosedConnection:
    """A connection that ended: this host's token, the namespace's cookie, when (seconds since 1970)."""

    token: int
    cookie: int
    ended: float
    subflows: tuple[ClosedSubflow, ...]


class Endings:
    """Notices in one namespace which connections end, from look to look, until :meth:`close`."""

    def __init__(self, namespace: Namespace) -> None:
        self._cookie = namespace.cookie
        self._live: dict[int, dict[Ends, ClosedSubflow]] = {}
        self._unseen_since: dict[int, float] = {}
        self._unmatched: list[Destroyed] = []
        self._known: dict[bytes, tuple[Ends, Plain]] = {}
        self._opened = ExitStack()
        with ExitStack() as opened:
            self._destroyed = opened.enter_context(DestroyedReader(namespace))
            self._events: EventReader | None = None
            with suppress(EmptcpError):  # Linux before 5.12: who comes and goes between two looks is missed
                self._events = opened.enter_context(EventReader(namespace))
            self._opened = opened.pop_all()

    def close(self) -> None:
        """End the subscriptions."""
        self._opened.close()

    def look(self, records: bytes) -> list[ClosedConnection]:
        """Take the iterator's records of now; return the connections that are over.

        The kernel tells of a socket's end from a queue of work, after it is out of the iterator's sight: a
        connection whose ends are not all told is waited for, but not for ever.
        """
        now = self._of_records(records)
        self._take_beginnings()
        for token, subflows in now.items():
            self._live.setdefault(token, {}).update(subflows)
        self._take_ends()
        when, moment = time.time(), time.monotonic()
        unseen = {token: self._unseen_since.get(token, moment) for token in self._live.keys() - now.keys()}
        over = {
            token
            for token, since in unseen.items()
            if moment - since >= PATIENCE or _complete(self._live[token])
        }
        self._unseen_since = {token: since for token, since in unseen.items() if token not in over}
        return [
            ClosedConnection(token, self._cookie, when, tuple(self._live.pop(token).values()))
            for token in sorted(over)
        ]

    def _of_records(self, records: bytes) -> dict[int, dict[Ends, ClosedSubflow]]:
        """Return the subflows of each connection as they are."""
        known, self._known = self._known, {}
        found: dict[int, dict[Ends, ClosedSubflow]] = {}
        for identity, one in measured(records):
            if not one.token:  # what has no connection yet
                continue
            ends, plain = self._known[identity] = known.get(identity) or _named(one)
            counts = one.bytes_sent, one.bytes_acked, one.bytes_received
            found.setdefault(one.token, {})[ends] = ClosedSubflow(*plain, *counts)
        return found

    def _take_beginnings(self) -> None:
        if self._events is not None:
            with suppress(OSError):  # ENOBUFS: they were too many, and some are lost
                for event in self._events.read():
                    self._begin(event)

    def _begin(self, event: Event) -> None:
        """Note a subflow that an event tells of; it may be over before the next look."""
        if event.name not in _BEGINS or not event.token or event.local is None or event.remote is None:
            return
        local, remote = _unmapped(event.local), _unmapped(event.remote)
        ends = (local, event.local_port or 0), (remote, event.remote_port or 0)
        self._live.setdefault(event.token, {}).setdefault(
            ends, ClosedSubflow(_plain(ends[0]), _plain(ends[1]))
        )

    def _take_ends(self) -> None:
        """Note the final counts of sockets that were freed."""
        fresh = self._destroyed.read()
        if not fresh and not self._unmatched:
            return
        owners = {ends: of for of in self._live.values() for ends in of}
        for one in [*self._unmatched, *fresh]:
            ends = one.local, one.remote
            if ends in owners:
                owners[ends][ends] = replace(
                    owners[ends][ends], sent=one.sent, acked=one.acked, received=one.received, final=True
                )
        # Of a connection whose event is on its way: it is asked for once more.
        self._unmatched = [one for one in fresh if (one.local, one.remote) not in owners]


def _complete(subflows: Mapping[Ends, ClosedSubflow]) -> bool:
    return all(one.final for one in subflows.values())


def _named(one: Measured) -> tuple[Ends, Plain]:
    subflow = ConnectionSubflow(one)
    return (subflow.local, subflow.remote), (_plain(subflow.local), _plain(subflow.remote))


def _plain(end: Endpoint) -> tuple[str, int]:
    return str(end[0]), end[1]


def _unmapped(address: Address) -> Address:
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


class Keeper:
    """Keeps the last connections of some namespaces that ended, in the file, until :meth:`close`."""

    def __init__(self) -> None:
        self._reader: SubflowReader | None = None
        self._endings: dict[int, Endings] = {}

    def look(self, spaces: Iterable[Namespace]) -> None:
        """Look which connections ended, and write them. A kernel that can't list subflows tells nothing."""
        if not features.has("bpf_iter_tcp"):
            return
        here = {space.cookie: space for space in spaces}
        for cookie in self._endings.keys() - here.keys():
            self._endings.pop(cookie).close()
        ended: list[ClosedConnection] = []
        for cookie, space in here.items():
            self._reader = self._reader or SubflowReader()
            if cookie not in self._endings:
                self._endings[cookie] = Endings(space)
            ended += self._endings[cookie].look(self._reader.records(space))
        if ended:
            keep(ended)

    def close(self) -> None:
        """End all subscriptions; what is kept stays."""
        for one in self._endings.values():
            one.close()
        if self._reader is not None:
            self._reader.close()
        self._endings.clear()
        self._reader = None


def keep(ended: Iterable[ClosedConnection]) -> None:
    """Add connections to those that are kept."""
    kept = [*kept_connections(), *ended][-MOST:]
    tables.write(run_folder() / "closed.json", {"connections": [asdict(one) for one in kept]})


def kept_connections() -> list[ClosedConnection]:
    """Return the connections that ``emptcp run`` kept, the last one last; none where the file is damaged."""
    try:
        data = json.loads((run_folder() / "closed.json").read_text(encoding="utf-8"))
        return [_read(one) for one in data["connections"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


def _read(data: dict[str, Any]) -> ClosedConnection:
    subflows = (
        ClosedSubflow(**one | {end: tuple(one[end]) for end in ("local", "remote")})
        for one in data["subflows"]
    )
    return ClosedConnection(**data | {"subflows": tuple(subflows)})
