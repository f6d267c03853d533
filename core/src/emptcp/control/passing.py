# SPDX-License-Identifier: Apache-2.0
"""The MPTCP subflows that pass a host without their sockets, as records like those of the socket iterator.

What they say is what the actors ``record`` and ``get_subflow`` keep: see
:func:`emptcp.chain.controllers.watch`. What only a socket knows is 0.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path as File
from typing import TYPE_CHECKING, Any

# Not where they are needed: a first tick must not wait for them, and whoever is at a hop needs them.
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from emptcp.chain import flows, pins
from emptcp.control.selection import Selection
from emptcp.hooks import namespaces
from emptcp.mptcp.measured import Measured
from emptcp.mptcp.sockets import RECORD
from emptcp.plugins.catalog import Catalog
from emptcp.plugins.manager import Manager

if TYPE_CHECKING:
    from emptcp.control.assignment import Hop
    from emptcp.control.path import Path
    from emptcp.plugins.occasions import Address, ConnectionEntry, FlowEntry

QUIET = 10.0
"""Seconds after which a subflow of which nothing was seen counts as closed: nobody tells."""

_AF_INET, _AF_INET6, _ESTABLISHED = 2, 10, 1
_SENT = 8
"""The column of proc_net_dev(5)."""
_BLANK = Measured(
    bytes(16), bytes(16), 0, 0, 0, _ESTABLISHED, *(0,) * 16, bytes(8), bytes(8), *(0,) * 13
)  # fmt: skip
_LARGEST = 0xFFFFFFFF

Metrics = Mapping[str, float]


class Passing:
    """Looks at one network namespace, again and again; ``paths`` are those by which subflows leave."""

    def __init__(self, hop: Hop, paths: Sequence[Path]) -> None:
        self._namespace = hop.namespace
        self._links = {device: path.name for path in paths for device in path.devices}
        self._manager = Manager.of_enabled()
        tree = pins.find()
        assert tree is not None  # its table is in force
        self._tree = tree
        self._selection = Selection(tree, hop.table, hop.policy, Catalog.of_enabled())
        self._sides: dict[Address, bool] = {}
        self._counts: dict[bytes, tuple[float, float]] = {}
        self._load: dict[str, float] = {}
        self._sent = namespaces.call(self._namespace, _sent)
        self._looked = self._loaded = time.monotonic()

    def records(self) -> bytes:
        """Return the records of the subflows that are selected, without those of unknown connections."""
        now, before = time.monotonic(), self._looked
        self._looked = now
        entries = flows.entries(self._tree, self._namespace.cookie)
        self._find_sides(end[0] for entry in entries for end in entry.endpoints)
        metrics = dict(zip((one.key for one in entries), self._metrics(entries), strict=True))
        found = [
            _record(connection, entry, self._local(entry), metrics[entry.key], carried, now - before)
            for connection in flows.connections(entries)
            for entry in connection.subflows
            if (carried := self._carried(entry, metrics[entry.key], now)) is not None
        ]
        self._counts = {key: self._counts[key] for key in metrics if key in self._counts}
        return self._selection.of(b"".join(found))

    def load(self) -> dict[str, float]:
        """Return what leaves by each path's device, in bytes per second over about a second, by the path."""
        now, before, self._sent = time.monotonic(), self._sent, namespaces.call(self._namespace, _sent)
        seconds, self._loaded = max(now - self._loaded, 1e-3), now
        for device, path in self._links.items():
            if device in before and device in self._sent:
                rate = (self._sent[device] - before[device]) / seconds
                old = self._load.get(path, rate)
                self._load[path] = old + (rate - old) * min(1.0, seconds)
        return dict(self._load)

    def _metrics(self, entries: Sequence[FlowEntry]) -> list[dict[str, float]]:
        merged: list[dict[str, float]] = [{} for _ in entries]
        for answer in self._manager.hook.emptcp_metrics(entries=entries) if entries else ():
            for one, told in zip(merged, answer, strict=False):
                one.update(told)
        return merged

    def _carried(self, entry: FlowEntry, metrics: Metrics, now: float) -> float | None:
        """Return the bytes that passed since the look before, ``None`` where it was quiet for too long."""
        total = metrics.get("bytes_0", 0.0) + metrics.get("bytes_1", 0.0)
        last, at = self._counts.get(entry.key, (total, now))
        if total != last:
            at = now
        self._counts[entry.key] = total, at
        return max(0.0, total - last) if now - at < QUIET else None

    def _local(self, entry: FlowEntry) -> int:
        """Return which end is on the guests' side: the one to which no path leads."""
        first, second = (self._sides[end[0]] for end in entry.endpoints)
        return int(first and not second)

    def _find_sides(self, addresses: Iterable[Address]) -> None:
        """Ask the routes by which device each new address is reached: by one of a path, or not."""
        fresh = {one for one in addresses if one not in self._sides}
        if fresh:
            devices = namespaces.call(self._namespace, lambda: dict(_routes(fresh)))
            self._sides |= {one: devices[one] in self._links for one in fresh}


def _record(
    connection: ConnectionEntry,
    entry: FlowEntry,
    local: int,
    metrics: Metrics,
    carried: float,
    seconds: float,
) -> bytes:
    ours, theirs = entry.endpoints[local], entry.endpoints[1 - local]
    tokens = connection.tokens[:: -1 if connection.end(entry) ^ local else 1]
    sent = metrics.get(f"bytes_{local}", 0)
    # It is read from another map, a moment later, and packets pass meanwhile: no more than was sent before.
    acked = min(metrics.get(f"size_{local}", 0), sent)
    return RECORD.pack(
        *_BLANK._replace(
            local=ours[0].packed.ljust(16, b"\0"),
            remote=theirs[0].packed.ljust(16, b"\0"),
            family=_AF_INET if ours[0].version == 4 else _AF_INET6,
            local_port=ours[1],
            remote_port=theirs[1],
            token=next(filter(None, tokens)),
            srtt=_whole(metrics.get("rtt_last", 0.0) * 8e6),
            min_rtt=_whole(metrics["rtt_min"] * 1e6) if "rtt_min" in metrics else _LARGEST,
            bytes_sent=round(sent),
            bytes_acked=round(acked),
            bytes_received=round(metrics.get(f"bytes_{1 - local}", 0)),
            retransmissions=_whole(metrics.get(f"retransmitted_{local}", 0)),
            rate_delivered=_whole(carried),
            rate_interval=_whole(seconds * 1e6),
        )
    )


def _whole(number: float) -> int:
    return min(round(number), _LARGEST)


def _sent() -> dict[str, int]:
    """Return the bytes that each device of the calling thread's namespace has sent."""
    lines = File("/proc/thread-self/net/dev").read_text().splitlines()[2:]
    split = (line.partition(":") for line in lines)
    return {name.strip(): int(numbers.split()[_SENT]) for name, _, numbers in split}


def _routes(addresses: Iterable[Address]) -> Iterator[tuple[Address, str]]:
    with IPRoute() as routes:
        for one in addresses:
            try:
                answer: Any = routes.route("get", dst=str(one))[0]
                yield one, socket.if_indextoname(answer.get_attr("RTA_OIF"))
            except (NetlinkError, OSError, TypeError):  # there is no route
                yield one, ""
