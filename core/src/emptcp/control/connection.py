# SPDX-License-Identifier: Apache-2.0
"""The connections that a controller is handed, kept from tick to tick."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from emptcp.chain.controllers import ALLOW, BLOCK
from emptcp.control.path import Path
from emptcp.control.subflow import ConnectionSubflow
from emptcp.control.wishes import Settings, Wishes
from emptcp.mptcp.measured import IDENTITY, each, of_record

Doors = Mapping[str, bool]
"""Path -> whether it is blocked until it is allowed; else it is open until it is blocked."""


class Subflows(tuple[ConnectionSubflow, ...]):
    """The open subflows of a connection, in the order in which they were seen first."""

    __slots__ = ()

    def by_rtt(self) -> Subflows:
        """Return them by round-trip time, the fastest first; those without one come last."""
        return Subflows(sorted(self, key=lambda one: one.rtt or math.inf))

    def on(self, path: str) -> Subflows:
        """Return those that use a path of the policy file."""
        return Subflows(one for one in self if one.path is not None and one.path.name == path)


class Connection:
    """One MPTCP connection. Counts are in bytes, over all subflows, also those that ended under our eyes.

    It is the same object in each tick. ``age`` is in seconds since the controllers' runtime saw it first.
    """

    def __init__(
        self, token: int, now: float, doors: Doors | None = None, settings: Settings | None = None
    ) -> None:
        self.token = token
        self.wishes = Wishes(settings)
        """What is set on it."""
        self._doors = doors or {}
        self.subflows = Subflows()
        self._began = self._now = now
        self._queued = self._outstanding = 0
        self._sndbuf_limited = False
        self._of_ended = [0, 0, 0]

    def see(self, subflows: Sequence[ConnectionSubflow], now: float) -> None:
        """Take its open subflows of now; of the connection the kernel says the same with each."""
        before = self.subflows
        if before != tuple(subflows):
            self.subflows = Subflows(_in_order(before, subflows))
            for one in set(before).difference(subflows):
                for index, count in enumerate((one.sent, one.acked, one.received)):
                    self._of_ended[index] += count
        self._queued, self._outstanding, self._sndbuf_limited = subflows[0].of_connection
        self._now = now

    @property
    def age(self) -> float:
        """Seconds since it was seen first."""
        return self._now - self._began

    @property
    def queued(self) -> int:
        """What the application has written and no subflow was given yet."""
        return self._queued

    @property
    def sndbuf_limited(self) -> bool:
        """Whether the application waits for room in the send buffer: it has more to send than is queued."""
        return self._sndbuf_limited

    @property
    def unacked(self) -> int:
        """What subflows were given and the other end has not acknowledged as data of the connection."""
        return self._outstanding

    @property
    def sent(self) -> int:
        """All that its subflows sent, what was sent again included."""
        return self._of_ended[0] + sum(one.sent for one in self.subflows)

    @property
    def acked(self) -> int:
        """All that was acknowledged on its subflows."""
        return self._of_ended[1] + sum(one.acked for one in self.subflows)

    @property
    def received(self) -> int:
        """All that came in on its subflows."""
        return self._of_ended[2] + sum(one.received for one in self.subflows)

    @property
    def rates(self) -> dict[ConnectionSubflow, float | None]:
        """The paper's vector of rates: what each subflow may send, in bytes per second (``None``: anything).

        Assign a mapping from subflows or names of paths; what it leaves out may send as fast as it can.
        """
        return {one: one.rate for one in self.subflows}

    @rates.setter
    def rates(self, wanted: Mapping[ConnectionSubflow | str, float | None]) -> None:
        for one in self.subflows:
            name = one.path.name if one.path is not None else ""
            one.rate = wanted.get(one, wanted.get(name))

    @property
    def key(self) -> bytes:
        """It as the key ``connection`` of sets and maps has it."""
        return key_of(self.token)

    @property
    def blocked(self) -> frozenset[str]:
        """The paths, by name, on which it may get no further subflow. Those that it has go on."""
        wanted = self.wishes.wanted
        return frozenset(
            path
            for path, closed in self._doors.items()
            if (f"{ALLOW} {path}" not in wanted if closed else f"{BLOCK} {path}" in wanted)
        )

    def block(self, *paths: str | Path) -> None:
        """Let no further subflow come up on these paths.

        Raises :class:`PermissionError` where the manifest does not say that the controller sets ``block``,
        and :class:`ValueError` for a path that the controller was not given.
        """
        self._move(paths, blocked=True)

    def allow(self, *paths: str | Path) -> None:
        """Let further subflows come up on these paths; what waited for it does at once. Raises as `block`."""
        self._move(paths, blocked=False)

    def _move(self, paths: Iterable[str | Path], *, blocked: bool) -> None:
        for path in paths:
            name = path if isinstance(path, str) else path.name
            closed = self._door(name)
            word = ALLOW if closed else BLOCK
            self.wishes.want(f"{word} {name}", 1 if blocked != closed else None)
        some = any(name.startswith(f"{ALLOW} ") for name in self.wishes.wanted)
        self.wishes.want(ALLOW, 1 if some else None)

    def _door(self, path: str) -> bool:
        if not self._doors:
            raise PermissionError("it sets 'block', which its manifest does not say")
        if path not in self._doors:
            raise ValueError(f"it has no path '{path}', only {', '.join(self._doors)}")
        return self._doors[path]

    def __repr__(self) -> str:
        return f"<connection {self.token:08x}, {len(self.subflows)} subflows>"


class Connections:
    """All connections that a controller looks after, brought up to date from the iterator's records.

    ``settings`` are those in force at the beginning, by the key of their subflow or connection; ``path_of``
    tells a subflow's path, and ``links`` are the paths to which subflows can be steered.
    """

    def __init__(
        self,
        settings: Mapping[bytes, Settings] | None = None,
        path_of: Callable[[ConnectionSubflow], Path | None] = lambda subflow: None,
        doors: Doors | None = None,
        links: Sequence[Path] = (),
    ) -> None:
        self.path_of = path_of
        self._links = links
        self._doors = doors or {}
        self._settings = dict(settings or {})
        self._subflows: dict[bytes, ConnectionSubflow] = {}
        self._connections: dict[int, Connection] = {}
        self._gone: list[tuple[bytes, str]] = []

    def see(self, records: bytes, now: float) -> list[Connection]:
        """Take what the kernel says at ``now`` (seconds); return the connections with open subflows."""
        found: dict[int, list[ConnectionSubflow]] = {}
        seen: dict[bytes, ConnectionSubflow] = {}
        for record in each(records):
            identity = record[:IDENTITY]
            subflow = seen[identity] = self._subflow(identity, record)
            if subflow.open:
                found.setdefault(subflow.token, []).append(subflow)
        connections = {token: self._connections.get(token) or self._begin(token, now) for token in found}
        for token, connection in connections.items():
            connection.see(found[token], now)
        self._forget(seen, connections)
        return list(connections.values())

    def _begin(self, token: int, now: float) -> Connection:
        return Connection(token, now, self._doors, self._settings.pop(key_of(token), None))

    def _subflow(self, identity: bytes, record: bytes) -> ConnectionSubflow:
        """Return the subflow of a record; of many most are as they were, and not looked into again."""
        known = self._subflows.get(identity)
        if known is None or known.record != record:
            now = of_record(record)
            if known is None:
                known = ConnectionSubflow(now, self._settings.pop(now.key, None), self._links)
            elif known.token != now.token:  # the same ports once more, for which the settings are in force
                known = ConnectionSubflow(now, known.wishes.in_force, self._links)
            known.see(now, record)
        known.path = self.path_of(known)
        return known

    def _forget(self, seen: dict[bytes, ConnectionSubflow], connections: dict[int, Connection]) -> None:
        """Note the settings of what is gone, also those that were found at the beginning."""
        if self._subflows.keys() <= seen.keys() and self._connections.keys() <= connections.keys():
            gone: dict[bytes, Settings] = {}
        else:
            gone = self._ended(seen, connections)
        self._gone += [(key, name) for key, of in (*gone.items(), *self._settings.items()) for name in of]
        self._settings.clear()
        self._subflows, self._connections = seen, connections

    def _ended(
        self, seen: dict[bytes, ConnectionSubflow], connections: dict[int, Connection]
    ) -> dict[bytes, Settings]:
        keys = {one.key for one in seen.values()}
        gone = {one.key: one.wishes.in_force for one in self._subflows.values() if one.key not in keys}
        ended = self._connections.keys() - connections.keys()
        return gone | {one.key: one.wishes.in_force for one in map(self._connections.__getitem__, ended)}

    def changes(self) -> Iterator[tuple[bytes, str, int | None]]:
        """Yield key, setting and new value of what is to change; ``None`` takes a setting back."""
        yield from ((*gone, None) for gone in self._gone)
        for one in self._changed():
            yield from ((one.key, *change) for change in one.wishes.changes())

    def settle(self) -> None:
        """Take what is wanted for being in force."""
        self._gone.clear()
        for one in self._changed():
            one.wishes.settle()

    def abandon(self) -> None:
        """Forget what was wanted in this tick."""
        for one in self._changed():
            one.wishes.abandon()

    def _changed(self) -> Iterator[ConnectionSubflow | Connection]:
        """Yield what is wanted otherwise than it is in force: in most ticks few of very many."""
        yield from (one for one in self._subflows.values() if one.wishes.changed)
        yield from (one for one in self._connections.values() if one.wishes.changed)


def key_of(token: int) -> bytes:
    """Return a connection as the key ``connection`` of sets and maps has it."""
    return token.to_bytes(4, "little")


def _in_order(known: Subflows, found: Sequence[ConnectionSubflow]) -> list[ConnectionSubflow]:
    """Return subflows with those first that were there before, in their order: the kernel's may change."""
    return [*(one for one in known if one in found), *(one for one in found if one not in known)]
