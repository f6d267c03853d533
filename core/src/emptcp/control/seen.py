# SPDX-License-Identifier: Apache-2.0
"""What :mod:`emptcp.control.view` found of subflows and connections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from emptcp.chain.running import Running
    from emptcp.chain.trial import Tried
    from emptcp.control.subflow import ConnectionSubflow
    from emptcp.mptcp.sockets import Subflow
    from emptcp.plugins.occasions import Action, ConnectionEntry, Ends, FlowEntry

Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Rates:
    """What a subflow carried since the look before, in bytes per second."""

    sent: float
    received: float


@dataclass(frozen=True)
class Passes:
    """A program that a subflow's packets pass, and what it would do to some: an ACK and one with data.

    On a host in between ``direction`` tells which end's packets they are, by its number; else -1.
    """

    running: Running
    tried: Sequence[Sequence[Tried]]
    direction: int = -1

    @property
    def policies(self) -> list[tuple[str, str]]:
        """Table and name of the policies whose chains run for any of these."""
        return list(dict.fromkeys((one.table, one.policy) for each in self.tried for one in each if one.ran))


@dataclass(frozen=True)
class Seen:
    """A subflow: ``ends`` this host's first where it has the socket, ``ours`` which of the entry's that is.

    ``kernel`` is what its socket says, ``entry`` what programs keep of it, ``metrics`` what plugins measured.
    ``backup_by`` is who made it backup for this host: ``controller NAME``, ``policy NAME``, ``kernel`` (the
    local endpoint), ``peer``, or empty.
    """

    ends: Ends
    kernel: ConnectionSubflow | None = None
    socket: Subflow | None = None
    entry: FlowEntry | None = None
    ours: int | None = None
    device: int = 0
    path: str = ""
    rates: Rates | None = None
    metrics: Metrics = field(default_factory=dict)
    actions: tuple[Action, ...] = ()
    policies: tuple[tuple[str, str], ...] = ()
    backup_by: str = ""

    @property
    def token(self) -> int:
        """The token of our end; on a hop that of an end, where programs were told of it; 0: unknown."""
        tokens = self.entry.tokens if self.entry is not None else ()
        return next((one for one in (self.kernel.token if self.kernel else 0, *tokens) if one), 0)


@dataclass(frozen=True)
class Look:
    """All subflows at one moment, by token and ends, and what plugins say of connections as a whole."""

    subflows: list[Seen]
    connections: list[tuple[ConnectionEntry, Metrics]]
    records: bytes = b""
