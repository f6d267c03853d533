# SPDX-License-Identifier: Apache-2.0
"""`emptcp top`: connections, paths and stages, live in the terminal."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emptcp.chain.counters import Counters
    from emptcp.chain.pins import Location
    from emptcp.chain.running import Running
    from emptcp.cli.connections import Watch
    from emptcp.control.seen import Seen

_SHOWN = (
    *("TOKEN", "LOCAL", "REMOTE", "STATE", "PATH", "BACKUP", "RTT", "SENDING", "RECEIVING"),
    *("POLICIES", "LAST ACTION"),
)
"""Columns of `connections` that are shown."""

_STAGES = ("STAGE", "POLICY", "WHERE", "PACKETS/S", "RATE", "MATCHED/S", "DROPPED/S", "UNTOUCHED/S")


def register(groups: Any) -> None:
    """Add the command to the parser's subcommands."""
    from emptcp.cli import live

    parser = groups.add_parser(
        "top",
        help="show connections, paths and stages live",
        description="Shows what each path and each subflow carries, and what each stage is given and does, "
        "since the look before; the busiest first. Ends on q or Ctrl-C. Where the output is no terminal it "
        "prints that once.",
    )
    parser.add_argument("--netns", default="", metavar="NAME", help="the network namespace")
    parser.add_argument(
        "--interval", type=live.interval, default=1.0, metavar="SECONDS", help="time between two looks (1)"
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from emptcp.cli import live
    from emptcp.cli.connections import Watch

    with Watch(arguments.netns) as watch:
        top = _Top(watch)
        top.lines()
        time.sleep(min(arguments.interval, 1.0))  # rates take two looks
        if sys.stdout.isatty():
            return live.redraw(top.lines, arguments.interval)
        print("\n".join(top.lines()))
        return 0


class _Top:
    """What is shown, look by look."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._before: dict[Location, dict[str, Counters]] = {}
        self._looked = time.monotonic()

    def lines(self) -> list[str]:
        """Look now, and return what to show."""
        from emptcp.cli.columns import aligned
        from emptcp.cli.connections import HEADER, cells

        found = sorted(self._watch.view.look().subflows, key=_busy, reverse=True)
        places = [HEADER.index(name) for name in _SHOWN]
        rows = [[row[place] for place in places] for row in map(cells, found)]
        tokens = {one.token for one in found if one.token}
        where = self._watch.view.namespace
        head = f"{time.strftime('%H:%M:%S')}  {where}: {len(tokens)} connections, {len(found)} subflows"
        return [
            head,
            "",
            *aligned([("PATH", "SUBFLOWS", "BACKUP", "RTT", "SENDING", "RECEIVING"), *_paths(found)]),
            "",
            *aligned([_SHOWN, *rows]),
            "",
            *aligned([_STAGES, *self._stages()]),
        ]

    def _stages(self) -> list[tuple[str, ...]]:
        """Return the namespace's stages with what they were given since the look before."""
        from emptcp.chain import running

        now = time.monotonic()
        passed, self._looked = now - self._looked, now
        rows: list[tuple[str, ...]] = []
        counted = {}
        with running.everything() as everything:
            for location, one in everything.items():
                if location.cookie == self._watch.view.namespace.cookie:
                    counts = counted[location] = one.counts()
                    before = self._before.get(location, counts)
                    rows += _of_program(one, counts, before, passed)
        self._before = counted
        return rows


def _of_program(
    one: Running, counts: dict[str, Counters], before: dict[str, Counters], seconds: float
) -> Iterator[tuple[str, ...]]:
    from emptcp.cli import amounts

    where = f"{one.description.hook} of {one.description.device}"
    for home in one.description.homes:
        for stage in home.stages:
            key = f"{home.home}/{stage.id}"
            since = counts[key] - before[key] if key in before else counts[key]
            yield (
                stage.text,
                home.name,
                where,
                _often(since.packets, seconds),
                amounts.rate(since.bytes / seconds),
                _often(since.matches, seconds) if stage.kind == "selector" else "",
                _often(since.drops, seconds),
                _often(sum(since.reasons.values()), seconds),
            )


def _often(count: int, seconds: float) -> str:
    return f"{count / seconds:.0f}" if count else ""


def _paths(found: Iterable[Seen]) -> Iterator[tuple[str, ...]]:
    """Yield what each path carries; subflows of none that a table names stand under ``-``."""
    from emptcp.cli import amounts

    by_path: dict[str, list[Seen]] = {}
    for one in found:
        if one.kernel is not None:
            by_path.setdefault(one.path or "-", []).append(one)
    for path, subflows in sorted(by_path.items()):
        times = [one.kernel.rtt for one in subflows if one.kernel is not None and one.kernel.rtt]
        rates = [one.rates for one in subflows if one.rates is not None]
        yield (
            path,
            str(len(subflows)),
            str(sum(bool(one.backup_by) for one in subflows)),
            amounts.milliseconds(sum(times) / len(times) if times else 0.0),
            amounts.rate(sum(one.sent for one in rates)),
            amounts.rate(sum(one.received for one in rates)),
        )


def _busy(one: Seen) -> tuple[float, int, str]:
    return (one.rates.sent + one.rates.received if one.rates else -1.0), one.token, str(one.ends)
