# SPDX-License-Identifier: Apache-2.0
"""How `emptcp apply` watches over what it applied, and what it says meanwhile (on stderr)."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from emptcp.errors import EmptcpError, quoted

if TYPE_CHECKING:
    from emptcp.chain.trips import Trip
    from emptcp.control.watch import Watch
    from emptcp.policy.model import Table

USUAL = 30.0
"""Seconds where nobody says otherwise."""
ENVIRONMENT = "EMPTCP_GUARD_WINDOW"
"""Names the seconds in place of :data:`USUAL`, for scripts that apply many files."""
LONGEST = 86400


def of(table: Table, arguments: argparse.Namespace) -> float:
    """Return how many seconds to watch: as the option says, else the file, else the environment.

    While a change is on probation, half of that time at most: it has to be confirmed yet.
    """
    if arguments.dry_run:
        return 0.0
    if arguments.guard_window is not None:
        return float(arguments.guard_window)
    window = _usual() if table.guard_window is None else table.guard_window / 1e9
    return window if arguments.confirm is None else min(window, arguments.confirm / 2)


def seconds(text: str) -> float:
    """Read a window: 0, or 1 to :data:`LONGEST` seconds."""
    try:
        window = float(text)
    except ValueError:
        window = -1
    if window != 0 and not 1 <= window <= LONGEST:
        raise argparse.ArgumentTypeError(f"'{text}' is no time from 1 to {LONGEST} seconds, nor 0")
    return window


def _usual() -> float:
    try:
        return seconds(os.environ.get(ENVIRONMENT) or str(USUAL))
    except argparse.ArgumentTypeError as error:
        raise EmptcpError(f"the variable {ENVIRONMENT}: {error}", fix="Write seconds, or unset it.") from None


def watched(table: Table, netns: str, window: float, apply: Callable[[], None]) -> int:
    """Apply, and watch for ``window`` seconds; return how the command ends: 1 where the guard tripped."""
    from emptcp.chain import instance
    from emptcp.chain.pins import run_folder

    process = instance.guarding(run_folder())
    if process is not None:
        apply()
        _hand_over(table, process)
        return 0
    with ExitStack() as stack:
        watch = _begin(stack, table, netns)
        apply()
        sys.stdout.flush()
        return 0 if watch is None else _over(watch, table, window)


def _hand_over(table: Table, process: int) -> None:
    from emptcp.control.watch import is_guarded

    if is_guarded(table):
        _say(f"'emptcp run', process {process}, guards table {quoted(table.name)}")


def _begin(stack: ExitStack, table: Table, netns: str) -> Watch | None:
    """Begin before anything is applied, which goes on where packets can't be heard."""
    from emptcp.control.watch import Watch

    try:
        return stack.enter_context(Watch(table, netns))
    except OSError as error:
        _say(f"table {quoted(table.name)} is not watched: {error}")
        return None


def _over(watch: Watch, table: Table, window: float) -> int:
    progress = _Progress(table.name)
    try:
        trips = watch.over(window, progress.show)
    except KeyboardInterrupt:
        progress.end()
        _say(f"not watched any longer; table {quoted(table.name)} stays in force")
        return 0
    progress.end()
    for trip in trips:
        _tell(trip)
    return int(bool(trips))


def _tell(trip: Trip) -> None:
    _say(f"{trip}\nOn again by: {trip.fix}")


def _say(text: str) -> None:
    print(f"emptcp: {text}", file=sys.stderr)


class _Progress:
    """A line on a terminal that tells how long it goes on; elsewhere nothing."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._shown = False

    def show(self, left: float) -> None:
        """Say how many seconds are left."""
        if sys.stderr.isatty():
            self._shown = True
            text = f"watching over table {quoted(self._table)}: {left:.0f} s left; Ctrl-C ends that alone"
            print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Take the line away."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
