# SPDX-License-Identifier: Apache-2.0
"""What hooks are called with: a change to a running stage, a fragment's event, a flow table's entry."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from emptcp.plugins.catalog import BoundStage
    from emptcp.policy.model import Policy

Address = IPv4Address | IPv6Address
Endpoint = tuple[Address, int]
Ends = tuple[Endpoint, Endpoint]


class FlowStates(Protocol):
    """The plugin's slot in a namespace's flow table, by a subflow's two ends in either order."""

    def get(self, one: Endpoint, other: Endpoint) -> bytes | None:
        """Return the slot's bytes, ``None`` for a subflow without an entry."""
        ...

    def put(self, one: Endpoint, other: Endpoint, state: bytes, at: int = 0) -> None:
        """Write the slot from byte ``at`` on, in whole words of 8, making an entry where there is none."""
        ...

    def items(self) -> Iterator[tuple[tuple[Endpoint, Endpoint], bytes]]:
        """Yield the ends and the slot of every MPTCP subflow that programs saw, read in batches."""
        ...


class SubflowSource(Protocol):
    """Tells of the subflows whose sockets a namespace has: an ``emptcp.mptcp.sockets.Snapshot``."""

    def read(self, namespace: Any = None) -> list[Any]:
        """Return them, of the command's own namespace by default."""
        ...


@dataclass(frozen=True)
class Change:
    """What happens to one stage of one policy on one hook: it comes, gets other values, or goes.

    ``stage`` is as it is from now on, or as it was when it goes; ``before`` is as it was when only its values
    change. ``matches`` tells whether the policy's ``when`` selects a frame, by running it in the kernel;
    ``flows`` are the states of the plugin's fragments in the flow table; both can be used until the hook
    returns. ``namespace`` is an ``emptcp.hooks.namespaces.Namespace`` (``None``: the command's own);
    ``devices`` are the names of the devices that the policy matched there. ``number`` is the stage's own, as
    its fragment has it in ``stage_id``: for keys of the plugin's own maps. ``remembered`` has what
    :func:`emptcp.api.selected_subflows` found out, for the next time.
    """

    policy: Policy
    stage: BoundStage
    hook: str
    devices: tuple[str, ...] = ()
    namespace: Any = None
    before: BoundStage | None = None
    matches: Callable[[bytes], bool] = field(default=lambda frame: False, compare=False, repr=False)
    flows: FlowStates | None = field(default=None, compare=False, repr=False)
    number: int = 0
    remembered: dict[Any, bool] = field(default_factory=dict, compare=False, repr=False)

    def value(self, parameter: str, default: Any = None) -> Any:
        """Return what a parameter of the stage is set to, ``default`` when it is not."""
        return self.stage.values.get(parameter, default)


@dataclass(frozen=True)
class StageEvent:
    """A record that a fragment sent (``emptcp/event.h``).

    ``source`` is the fragment, ``type`` its plugin's number, ``data`` its bytes; ``time`` is CLOCK_MONOTONIC
    in nanoseconds. ``endpoints`` are the subflow's two ends; the packet was sent by number ``direction``.
    ``netns`` is the low half of the cookie of the network namespace that it passed.
    """

    plugin: str
    source: str
    type: int
    time: int
    hook: str
    data: bytes = b""
    endpoints: tuple[Endpoint, Endpoint] | None = None
    direction: int = 0
    netns: int = 0


@dataclass(frozen=True)
class FlowEntry:
    """An entry of the flow table. ``state`` holds the bytes of each plugin's slot, by plugin.

    ``since`` is CLOCK_MONOTONIC in nanoseconds of the first packet that was seen. ``key`` is its ``struct
    emptcp_key`` and ``netns`` the low half of the namespace's cookie, as programs have both in ``struct
    emptcp_pkt``: for keys of the plugin's own maps. ``tokens`` are those by which the two ends know the
    connection, 0 where not known.
    """

    endpoints: tuple[Endpoint, Endpoint]
    since: int
    state: Mapping[str, bytes] = field(default_factory=dict)
    key: bytes = b""
    netns: int = 0
    tokens: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Action:
    """What an actor did last to a subflow, as far as it is in force: ``text`` says it in a few words.

    ``end`` is the number of the entry's end (0 or 1) whose sending it changes. ``backup`` is whether that end
    was told to use the subflow as a backup, ``None`` when it is about something else.
    """

    actor: str
    text: str
    end: int
    backup: bool | None = None


@dataclass(frozen=True)
class ConnectionEntry:
    """A connection: the tokens of its two ends, 0 where not known, and its subflows' entries.

    The first token is that of this host's end, where the host has the socket. Of a subflow's two ends either
    may be the first one's: see :meth:`end`.
    """

    tokens: tuple[int, int]
    subflows: tuple[FlowEntry, ...]

    def end(self, subflow: FlowEntry) -> int:
        """Return which of a subflow's ends, 0 or 1, is the one with the connection's first token."""
        first, second = self.tokens
        tokens = subflow.tokens
        return int(first == tokens[1] != 0 or second == tokens[0] != 0)
