# SPDX-License-Identifier: Apache-2.0
"""A connection without a kernel, for controllers' unit tests: it advances by ticks and notes what is set.

The controller sees the very objects that it gets within ``emptcp run``, made from records as the kernel's
program writes them. What moves is simple, and known: see :class:`SimulatedConnection`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from emptcp.control.connection import Connection, Connections
from emptcp.control.path import Path
from emptcp.mptcp.sockets import BACKUP, RECORD, SNDBUF_LIMITED

if TYPE_CHECKING:
    from emptcp.control.controller import Controller
    from emptcp.control.subflow import ConnectionSubflow

MSS = 1460
_AF_INET, _ESTABLISHED = 2, 1
_DEVICE = 7


@dataclass
class SimulatedSubflow:
    """What a subflow's path is like: ``rtt`` in seconds, ``rate`` (what it carries) in bytes per second.

    ``cwnd`` is in bytes; without it the window is what the path holds, ten segments at least. May be changed
    between ticks. ``backup`` is the bit before the controller. ``path`` is the path of the policy file.
    """

    rtt: float
    rate: float
    cwnd: int = 0
    deviation: float = 0.0
    backup: bool = False
    path: Path | None = None
    sent: int = 0

    @property
    def window(self) -> int:
        """The congestion window in segments."""
        return max(1, self.cwnd // MSS) if self.cwnd else max(10, round(self.rate * self.rtt / MSS))


@dataclass(frozen=True)
class Setting:
    """What a controller set in a tick (the first is 1): ``value`` is ``None`` where it took it back.

    ``subflow`` is its name, and that of the path where ``setter`` is ``block``; ``steer`` has the number of
    the path.
    """

    tick: int
    subflow: str
    setter: str
    value: bool | float | None


class SimulatedConnection:
    """One connection with named subflows; each has the path of its name, unless it names another.

    In a tick the application's data (:meth:`write`) moves: first on the subflow with the least round-trip
    time, as much as its path and its rate allow, then on the next. One that is backup carries data only when
    all are. What was sent is acknowledged by the next tick. With ``blocked``, as the manifest of a path
    manager says it, the first subflow alone is there, and another one comes up in the tick after its path
    was allowed. ``links`` are the paths to which subflows can be steered, where they are not the subflows'
    own; that a subflow was steered changes nothing of how its data moves.
    """

    def __init__(
        self,
        subflows: Mapping[str, SimulatedSubflow],
        queued: int = 0,
        *,
        blocked: bool = False,
        links: Sequence[Path] = (),
    ) -> None:
        self.subflows = dict(subflows)
        self.queued = queued
        self.window = 1 << 20
        """The receive window that the other end tells, in bytes; what moves does not go by it."""
        self.sndbuf_limited = False
        """Whether the application waits for room in the send buffer; what moves does not go by it either."""
        self.settings: list[Setting] = []
        """All that was set, in order."""
        self._now = 0.0
        self._ticks = 0
        self._backup = {name: one.backup for name, one in self.subflows.items()}
        self._limits: dict[str, float] = {}
        self._ports = {name: 4001 + index for index, name in enumerate(self.subflows)}
        for name, one in self.subflows.items():
            one.path = one.path or Path(name)
        self._open = set(list(self.subflows)[:1] if blocked else self.subflows)
        doors = {path.name: blocked for path in self.paths}
        self._connections = Connections(path_of=self._path_of, doors=doors, links=links or self.paths)
        self._live: Connection | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """The paths, to give to the controller."""
        return tuple(dict.fromkeys(one.path for one in self.subflows.values() if one.path is not None))

    @property
    def connection(self) -> Connection:
        """The connection as the controller saw it in the last tick, or sees it now."""
        return self._live if self._live is not None else self._see()

    def __getitem__(self, name: str) -> ConnectionSubflow:
        return next(one for one in self.connection.subflows if one.local[1] == self._ports[name])

    def write(self, size: int) -> None:
        """Let the application write ``size`` bytes."""
        self.queued += size

    def close(self, name: str) -> None:
        """End a subflow."""
        del self.subflows[name]
        self._open.discard(name)

    def run(self, controller: Controller, ticks: int = 1, write: int = 0) -> None:
        """Let a controller tick; before each tick the application writes ``write`` bytes, and data moves."""
        for _ in range(ticks):
            self.write(write)
            self._move(controller.interval)
            self._ticks += 1
            controller.tick([self._see()])
            self._note()

    def _see(self) -> Connection:
        (self._live,) = self._connections.see(self._records(), self._now)
        return self._live

    def _note(self) -> None:
        names = {one.key: name for name in self._live_names() for one in [self[name]]}
        for key, setter, value in self._connections.changes():
            if key == self.connection.key:
                self._note_path(setter, value is not None)
            if key not in names:
                continue
            name = names[key]
            if setter == "backup":
                self._backup[name] = bool(value) if value is not None else self.subflows[name].backup
            elif setter == "rate":
                self._limits.pop(name, None)
                self._limits |= {name: value} if value is not None else {}
            said = bool(value) if setter == "backup" and value is not None else value
            self.settings.append(Setting(self._ticks, name, setter, said))
        self._connections.settle()

    def _note_path(self, target: str, is_set: bool) -> None:
        word, _, path = target.partition(" ")
        if path:
            self.settings.append(Setting(self._ticks, path, "block", is_set == (word == "block")))

    def _live_names(self) -> list[str]:
        return [name for name in self.subflows if name in self._open]

    def _let_in(self) -> None:
        """Bring up the subflows whose paths are not blocked."""
        blocked = self._live.blocked if self._live is not None else {one.name for one in self.paths}
        self._open |= {
            name for name, one in self.subflows.items() if one.path is None or one.path.name not in blocked
        }

    def _move(self, seconds: float) -> None:
        self._now += seconds
        self._let_in()
        there = self._live_names()
        active = [name for name in there if not self._backup[name]] or there
        for name in sorted(active, key=lambda name: self.subflows[name].rtt):
            one = self.subflows[name]
            moved = min(self.queued, round(min(one.rate, self._limits.get(name, one.rate)) * seconds))
            one.sent += moved
            self.queued -= moved

    def _records(self) -> bytes:
        return b"".join(self._record(name, self.subflows[name]) for name in self._live_names())

    def _record(self, name: str, one: SimulatedSubflow) -> bytes:
        number = self._ports[name] - 4000
        local, remote = (IPv4Address(f"10.{number}.0.{host}").packed for host in (1, 2))
        flags = (BACKUP if self._backup[name] else 0) | (SNDBUF_LIMITED if self.sndbuf_limited else 0)
        head = (local, remote, _AF_INET, self._ports[name], 443, _ESTABLISHED, flags, 1, number, number)
        sequence = one.sent % (1 << 32)
        moving = (sequence, sequence, self.window, sequence, 0, 0, 1 << 20)
        rtt, rate = round(one.rtt * 1e6), round(one.rate)
        delivered = max(1, round(one.rate / MSS))
        return RECORD.pack(
            *head,
            *moving,
            *(rtt * 8, 0, _DEVICE, 7, 7, bytes(8), bytes(8)),
            *(rate, one.sent, one.sent, 0, self.queued, 0),
            *(rtt, round(one.deviation * 4e6), one.window, MSS, 0, delivered, 1_000_000),
        )

    def _path_of(self, subflow: ConnectionSubflow) -> Path | None:
        names = {port: name for name, port in self._ports.items()}
        known = self.subflows.get(names[subflow.local[1]])
        return known.path if known is not None else None
