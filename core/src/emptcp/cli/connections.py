# SPDX-License-Identifier: Apache-2.0
"""`emptcp connections`: MPTCP connections, their subflows, and what plugins measured on each."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emptcp.mptcp.sockets import Subflow
    from emptcp.plugins.occasions import Endpoint, FlowEntry

SCHEMA = 1
_UNITS = {"rtt": (1e3, "ms")}


@dataclass(frozen=True)
class _Row:
    """A subflow: what the socket says (on an end host), what plugins say (where policies run)."""

    endpoints: tuple[Endpoint, Endpoint]
    socket: Subflow | None
    metrics: Mapping[str, float]

    @property
    def token(self) -> str:
        return f"{self.socket.token:08x}" if self.socket is not None else ""


def register(groups: Any) -> None:
    """Add the command to the parser's subcommands."""
    parser = groups.add_parser(
        "connections",
        help="print MPTCP connections, their subflows and metrics",
        description="Prints the MPTCP subflows of this host's sockets and those that policies saw passing, "
        "with what plugins measured. A connection is told by its token.",
    )
    parser.add_argument("--netns", default="", metavar="NAME", help="the network namespace")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    rows = _rows(arguments.netns)
    if arguments.json:
        print(json.dumps({"schema": SCHEMA, "subflows": [_json(row) for row in rows]}))
        return 0
    from emptcp.cli.columns import aligned

    header = ("TOKEN", "LOCAL", "REMOTE", "BACKUP", "RTT", "METRICS")
    print("\n".join(aligned([header, *(_cells(row) for row in rows)])))
    return 0


def _rows(netns: str) -> list[_Row]:
    from emptcp.chain import flows, pins
    from emptcp.hooks import namespaces
    from emptcp.mptcp.sockets import subflows
    from emptcp.plugins.manager import Manager

    namespace = namespaces.resolve(netns)
    sockets = {_key((s.local, s.local_port), (s.remote, s.remote_port)): s for s in subflows(namespace)}
    tree = pins.find()
    entries = flows.entries(tree, namespace.cookie) if tree is not None else []
    metrics = _metrics(Manager.of_enabled(), entries)
    rows = []
    for entry, found in zip(entries, metrics, strict=True):
        socket = sockets.pop(_key(*entry.endpoints), None)
        rows.append(_Row(_from_here(entry.endpoints, socket), socket, found))
    rows += [_Row(((s.local, s.local_port), (s.remote, s.remote_port)), s, {}) for s in sockets.values()]
    return sorted(rows, key=lambda row: (row.token, str(row.endpoints)))


def _metrics(manager: Any, entries: Sequence[FlowEntry]) -> list[dict[str, float]]:
    """Merge what the plugins tell of each entry."""
    merged: list[dict[str, float]] = [{} for _ in entries]
    for answer in manager.hook.emptcp_metrics(entries=entries) if entries else ():
        for row, found in zip(merged, answer, strict=False):
            row.update(found)
    return merged


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
    metrics = ", ".join(f"{name} {_number(name, value)}" for name, value in row.metrics.items())
    return row.token, *ends, backup, rtt, metrics


def _number(name: str, value: float) -> str:
    scale, unit = _UNITS.get(name.partition("_")[0], (1, ""))
    return f"{value * scale:.1f} {unit}" if unit else f"{value:g}"


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
