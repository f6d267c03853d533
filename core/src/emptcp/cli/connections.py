# SPDX-License-Identifier: Apache-2.0
"""`emptcp connections`: MPTCP connections, their subflows, what is done to them, and what was measured."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emptcp.control.closed import ClosedConnection, Endings
    from emptcp.control.seen import Look, Metrics, Seen
    from emptcp.plugins.occasions import ConnectionEntry, Endpoint

SCHEMA = 1
"""Number of the JSON's schema: fields are added without raising it, never changed or taken away."""

SHOWN = 10
"""Closed connections that are printed, the last ones; JSON has all that are kept."""

HEADER = (
    *("TOKEN", "LOCAL", "REMOTE", "STATE", "PATH", "BACKUP", "RTT", "SENDING", "RECEIVING", "PACING"),
    *("SENT", "RECEIVED", "POLICIES", "LAST ACTION", "METRICS"),
)


def register(groups: Any) -> None:
    """Add the command to the parser's subcommands."""
    from emptcp.cli import live

    parser = groups.add_parser(
        "connections",
        help="print MPTCP connections, their subflows and metrics",
        description="Prints the MPTCP subflows of this host's sockets and those that policies saw passing, "
        "with their paths, rates and bytes, who made them backup, which policies select them, what these did "
        "last, and what plugins measured; then the connections that ended, as far as `emptcp run` kept them. "
        "A connection is told by its token.",
    )
    parser.add_argument("--netns", default="", metavar="NAME", help="the network namespace")
    parser.add_argument(
        "--watch",
        nargs="?",
        type=live.interval,
        const=1.0,
        metavar="SECONDS",
        help="look again each second, or so many, until Ctrl-C or q; with rates measured between two looks",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, with --watch a line for each look")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from emptcp.cli import live

    with Watch(arguments.netns, endings=arguments.watch is not None) as watch:
        if arguments.watch is None:
            _print(watch, arguments.json)
            return 0
        if not arguments.json:
            return live.redraw(lambda: list(lines(*watch.look())), arguments.watch)
        try:
            while True:
                _print(watch, True)
                time.sleep(arguments.watch)
        except KeyboardInterrupt:
            return 0


def _print(watch: Watch, as_json: bool) -> None:
    look, closed = watch.look()
    print(json.dumps(as_data(look, closed)) if as_json else "\n".join(lines(look, closed)), flush=True)


class Watch:
    """Looks at a namespace's connections; with ``endings`` it notices those that end in between.

    A context manager.
    """

    def __init__(self, netns: str, *, endings: bool = False) -> None:
        from emptcp.control import closed, view

        with ExitStack() as opened:
            self.view = opened.enter_context(view.at(netns))
            self._endings: Endings | None = None
            if endings:
                self._endings = opened.enter_context(closing(closed.Endings(self.view.namespace)))
            self._opened = opened.pop_all()
        self._closed: list[ClosedConnection] = []

    def look(self) -> tuple[Look, list[ClosedConnection]]:
        """Look now; return the connections that ended, too, as far as somebody kept them."""
        from emptcp.control import closed

        look = self.view.look()
        ended = self._endings.look(look.records) if self._endings is not None else []
        self._closed = [*self._closed, *ended][-closed.MOST :]
        cookie = self.view.namespace.cookie
        kept = [one for one in closed.kept_connections() if one.cookie == cookie]
        known = {_identity(one) for one in kept}
        found = [*kept, *(one for one in self._closed if _identity(one) not in known)]
        return look, sorted(found, key=lambda one: one.ended)

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._opened.close()


def _identity(one: ClosedConnection) -> tuple[object, ...]:
    return one.token, frozenset((subflow.local, subflow.remote) for subflow in one.subflows)


# For the eye


def lines(look: Look, closed: Sequence[ClosedConnection]) -> Iterator[str]:
    """Yield the tables of a look: subflows, metrics of connections, and what ended."""
    from emptcp.cli.columns import aligned

    yield from aligned([HEADER, *map(cells, look.subflows)])
    if shown := [(one, found) for one, found in look.connections if found]:
        yield ""
        yield from aligned([("CONNECTION", "SUBFLOWS", "METRICS"), *(_whole(*pair) for pair in shown)])
    if closed:
        ended = (row for one in closed[-SHOWN:] for row in _closed_cells(one))
        yield ""
        yield from aligned([("CLOSED", "TOKEN", "LOCAL", "REMOTE", "SENT", "RECEIVED"), *ended])


def cells(one: Seen) -> tuple[str, ...]:
    """Return a subflow's cells, in the order of :data:`HEADER`."""
    from emptcp.cli import amounts

    kernel, ends = one.kernel, [amounts.endpoint(end) for end in one.ends]
    after = [", ".join(name for _, name in one.policies), "; ".join(map(_action, actions(one)))]
    after.append(amounts.metrics(one.metrics))
    if kernel is None:
        return (amounts.token(one.token), *ends, *[""] * 9, *after)
    return (
        amounts.token(one.token),
        *ends,
        kernel.state,
        one.path,
        f"yes, {one.backup_by}" if one.backup_by else "no",
        amounts.milliseconds(kernel.rtt),
        amounts.rate(one.rates.sent if one.rates else kernel.delivery_rate or None),
        amounts.rate(one.rates.received if one.rates else None),
        amounts.rate(kernel.pacing_rate),
        amounts.size(kernel.acked),
        amounts.size(kernel.received),
        *after,
    )


def _whole(one: ConnectionEntry, metrics: Metrics) -> tuple[str, ...]:
    from emptcp.cli import amounts

    known = next(filter(None, one.tokens))
    return amounts.token(known), str(len(one.subflows)), amounts.metrics(metrics)


def actions(one: Seen) -> list[dict[str, str]]:
    """Return what actors did last: whose sending it changes is ``us`` or ``peer``, on a hop an address."""
    found = []
    for action in one.actions:
        if one.ours is not None:
            whose = "us" if action.end == one.ours else "peer"
        else:
            whose = str(one.entry.endpoints[action.end][0]) if one.entry is not None else ""
        found.append({"actor": action.actor, "what": action.text, "whose": whose})
    return found


def _action(one: dict[str, str]) -> str:
    return f"{one['actor']}: {one['what']} ({one['whose']})"


def _closed_cells(one: ClosedConnection) -> Iterator[tuple[str, ...]]:
    from emptcp.cli import amounts

    when = time.strftime("%H:%M:%S", time.localtime(one.ended))
    for subflow in one.subflows:
        ends = (_text_end(subflow.local), _text_end(subflow.remote))
        counts = amounts.size(subflow.acked), amounts.size(subflow.received)
        yield when, amounts.token(one.token), *ends, *counts


def _text_end(end: tuple[str, int]) -> str:
    return f"[{end[0]}]:{end[1]}" if ":" in end[0] else f"{end[0]}:{end[1]}"


# For programs


def as_data(look: Look, closed: Sequence[ClosedConnection]) -> dict[str, Any]:
    """Return a look as one JSON object. Times are in seconds, rates in bytes per second."""
    return {
        "schema": SCHEMA,
        "time": time.time(),
        "subflows": [_subflow(one) for one in look.subflows],
        "connections": [_connection(*one) for one in look.connections],
        "closed": [_closed(one) for one in closed],
    }


def _subflow(one: Seen) -> dict[str, Any]:
    from emptcp.cli import amounts

    return {
        "endpoints": [_end(end) for end in one.ends],
        "token": amounts.token(one.token) or None,
        "path": one.path or None,
        **_of_kernel(one),
        "backup_by": one.backup_by or None,
        "measured": {"sent": one.rates.sent, "received": one.rates.received} if one.rates else None,
        "policies": [{"table": table, "policy": policy} for table, policy in one.policies],
        "last_actions": actions(one),
        "metrics": dict(one.metrics),
    }


def _of_kernel(one: Seen) -> dict[str, Any]:
    """Return what the socket says; null everywhere on a host without it."""
    known = one.kernel
    return {
        "state": known and known.state,
        "backup": known and known.is_told_backup,
        "request_backup": known and known.requests_backup,
        "rtt": (known and known.rtt) or None,
        "min_rtt": (known and known.min_rtt) or None,
        "cwnd": known and known.cwnd,
        "pacing_rate": known and known.pacing_rate,
        "delivery_rate": (known and known.delivery_rate) or None,
        "sent": known and known.sent,
        "acked": known and known.acked,
        "received": known and known.received,
        "unacked": known and known.unacked,
        "not_sent": known and known.not_sent,
        "retransmissions": known and known.retransmissions,
    }


def _connection(one: ConnectionEntry, metrics: Metrics) -> dict[str, Any]:
    from emptcp.cli import amounts

    ends = [[_end(end) for end in each.endpoints] for each in one.subflows]
    return {
        "tokens": [amounts.token(token) or None for token in one.tokens],
        "subflows": [
            each[::-1] if one.end(entry) else each for each, entry in zip(ends, one.subflows, strict=True)
        ],
        "metrics": dict(metrics),
    }


def _closed(one: ClosedConnection) -> dict[str, Any]:
    from emptcp.cli import amounts

    subflows = [
        {
            "endpoints": [list(each.local), list(each.remote)],
            "sent": each.sent,
            "acked": each.acked,
            "received": each.received,
            "final": each.final,
        }
        for each in one.subflows
    ]
    return {"token": amounts.token(one.token) or None, "ended": one.ended, "subflows": subflows}


def _end(end: Endpoint) -> list[Any]:
    return [str(end[0]), end[1]]
