# SPDX-License-Identifier: Apache-2.0
"""`emptcp connections`: MPTCP connections, their subflows, and what plugins measured on each."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emptcp.mptcp.sockets import Subflow
    from emptcp.plugins.occasions import ConnectionEntry, Endpoint, FlowEntry

SCHEMA = 1
_UNITS = {"rtt": (1e3, "ms")}

Metrics = Mapping[str, float]


@dataclass(frozen=True)
class _Row:
    """A subflow: what the socket says (on an end host), what plugins say (where policies run)."""

    endpoints: tuple[Endpoint, Endpoint]
    socket: Subflow | None
    metrics: Metrics
    entry: FlowEntry | None = None

    @property
    def token(self) -> str:
        """The token of our end; on a hop that of an end, where programs were told of connections."""
        tokens = self.entry.tokens if self.entry is not None else ()
        known = (self.socket.token if self.socket is not None else 0, *tokens)
        return next((_token(token) for token in known if token), "")


def register(groups: Any) -> None:
    """Add the command to the parser's subcommands."""
    parser = groups.add_parser(
        "connections",
        help="print MPTCP connections, their subflows and metrics",
        description="Prints the MPTCP subflows of this host's sockets and those that policies saw passing, "
        "with what plugins measured, and then what they measured of connections as a whole. A connection is "
        "told by its token.",
    )
    parser.add_argument("--netns", default="", metavar="NAME", help="the network namespace")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from emptcp.plugins.manager import Manager

    manager = Manager.of_enabled()
    rows = _rows(arguments.netns, manager)
    connections = _connections(rows)
    hook = manager.hook.emptcp_connection_metrics
    metrics = _merged(hook(connections=connections) if connections else [], len(connections))
    whole = list(zip(connections, metrics, strict=True))
    if arguments.json:
        told = {
            "subflows": [_json(row) for row in rows],
            "connections": [_connection_json(*one) for one in whole],
        }
        print(json.dumps({"schema": SCHEMA, **told}))
        return 0
    from emptcp.cli.columns import aligned

    header = ("TOKEN", "LOCAL", "REMOTE", "BACKUP", "RTT", "METRICS")
    print("\n".join(aligned([header, *(_cells(row) for row in rows)])))
    if shown := [_connection_cells(*one) for one in whole if one[1]]:
        print("\n".join(["", *aligned([("CONNECTION", "SUBFLOWS", "METRICS"), *shown])]))
    return 0


def _rows(netns: str, manager: Any) -> list[_Row]:
    from emptcp.chain import flows, pins
    from emptcp.hooks import namespaces
    from emptcp.mptcp.sockets import subflows

    namespace = namespaces.resolve(netns)
    sockets = {_key((s.local, s.local_port), (s.remote, s.remote_port)): s for s in subflows(namespace)}
    tree = pins.find()
    entries = flows.entries(tree, namespace.cookie) if tree is not None else []
    metrics = _merged(manager.hook.emptcp_metrics(entries=entries) if entries else [], len(entries))
    rows = []
    for entry, found in zip(entries, metrics, strict=True):
        socket = sockets.pop(_key(*entry.endpoints), None)
        known = _with_tokens(entry, socket)
        rows.append(_Row(_from_here(entry.endpoints, socket), socket, found, known))
    rows += [_Row(((s.local, s.local_port), (s.remote, s.remote_port)), s, {}) for s in sockets.values()]
    return sorted(rows, key=lambda row: (row.token, str(row.endpoints)))


def _connections(rows: Sequence[_Row]) -> list[ConnectionEntry]:
    """Return the connections of the subflows that programs saw, as far as tokens tell."""
    from emptcp.chain import flows

    ours = {row.socket.token for row in rows if row.socket is not None}
    return flows.connections([row.entry for row in rows if row.entry is not None], ours)


def _merged(answers: Iterable[Sequence[Metrics]], count: int) -> list[dict[str, float]]:
    """Merge what the plugins tell of each subflow or connection."""
    merged: list[dict[str, float]] = [{} for _ in range(count)]
    for answer in answers:
        for row, found in zip(merged, answer, strict=False):
            row.update(found)
    return merged


def _with_tokens(entry: FlowEntry, socket: Subflow | None) -> FlowEntry:
    """Return the entry with the tokens that our socket knows."""
    if socket is None:
        return entry
    tokens = socket.token, socket.remote_token
    turned = entry.endpoints[0] != (socket.local, socket.local_port)
    return replace(entry, tokens=(tokens[1], tokens[0]) if turned else tokens)


def _key(one: Endpoint, other: Endpoint) -> frozenset[Endpoint]:
    return frozenset((one, other))


def _from_here(ends: tuple[Endpoint, Endpoint], socket: Subflow | None) -> tuple[Endpoint, Endpoint]:
    """Return the endpoints, the local one first where that is known."""
    if socket is not None and ends[0] != (socket.local, socket.local_port):
        return ends[1], ends[0]
    return ends


def _cells(row: _Row) -> Sequence[str]:
    socket = row.socket
    ends = [
        f"[{address}]:{port}" if ":" in str(address) else f"{address}:{port}"
        for address, port in row.endpoints
    ]
    backup = ("yes" if socket.backup or socket.request_backup else "no") if socket is not None else ""
    rtt = f"{socket.rtt_us / 1000:.1f} ms" if socket is not None and socket.rtt_us else ""
    return row.token, *ends, backup, rtt, _numbers(row.metrics)


def _connection_cells(one: ConnectionEntry, metrics: Metrics) -> Sequence[str]:
    return _token(next(filter(None, one.tokens))), str(len(one.subflows)), _numbers(metrics)


def _token(token: int) -> str:
    return f"{token:08x}"


def _numbers(metrics: Metrics) -> str:
    return ", ".join(f"{name} {_number(name, value)}" for name, value in metrics.items())


def _number(name: str, value: float) -> str:
    scale, unit = _UNITS.get(name.partition("_")[0], (1, ""))
    if unit:
        return f"{value * scale:.1f} {unit}"
    return f"{value:g}" if abs(value) < 1000 else f"{value:.0f}"


def _json(row: _Row) -> dict[str, Any]:
    socket = row.socket
    return {
        "endpoints": [[str(address), port] for address, port in row.endpoints],
        "token": row.token or None,
        "backup": socket.backup if socket is not None else None,
        "request_backup": socket.request_backup if socket is not None else None,
        "rtt": socket.rtt_us / 1e6 if socket is not None and socket.rtt_us else None,
        "metrics": dict(row.metrics),
    }


def _connection_json(one: ConnectionEntry, metrics: Metrics) -> dict[str, Any]:
    ends = [[[str(address), port] for address, port in each.endpoints] for each in one.subflows]
    return {
        "tokens": [_token(token) if token else None for token in one.tokens],
        "subflows": [
            each[::-1] if one.end(entry) else each for each, entry in zip(ends, one.subflows, strict=True)
        ],
        "metrics": dict(metrics),
    }
