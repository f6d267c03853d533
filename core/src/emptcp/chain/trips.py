# SPDX-License-Identifier: Apache-2.0
"""What the guard switched off, as a file of the run folder tells it: a line of JSON for each time.

Every guard appends to it, that of ``emptcp run`` and that of an ``emptcp apply``; ``list``, ``doctor`` and
``monitor`` read. A table's lines go with the table.
"""

from __future__ import annotations

import fcntl
import json
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import IO

from emptcp.chain.pins import make_run_folder, run_folder
from emptcp.errors import quoted

MOST = 1000
"""Lines that are kept, the newest."""

_FILE = "guard.jsonl"


@dataclass(frozen=True)
class Trip:
    """A policy that was switched off: where, when (seconds since 1970), and what was seen how often."""

    table: str
    policy: str
    netns: str
    cookie: int
    time: float
    seen: Mapping[str, int]

    @property
    def fix(self) -> str:
        """The command that switches it on again."""
        return f"emptcp on {shlex.quote(self.table)} {shlex.quote(self.policy)}"

    def __str__(self) -> str:
        where = f" in {self.netns}" if self.netns else ""
        policy = f"policy {quoted(self.policy)} of table {quoted(self.table)}"
        return f"the guard switched off {policy}: {shown(self.seen)}{where}"


@dataclass(frozen=True)
class Count:
    """What the guard counted for a policy: how often it switched it off, when last, and what it saw."""

    trips: int = 0
    last: float | None = None
    seen: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        when = datetime.fromtimestamp(self.last or 0).strftime("%Y-%m-%d %H:%M:%S")
        often = f"{self.trips} times, last" if self.trips > 1 else "once,"
        return f"switched off {often} {when}: {shown(self.seen)}"


def shown(seen: Mapping[str, int]) -> str:
    """Return what was seen, in words."""
    return ", ".join(f"{name} {count}" for name, count in sorted(seen.items()))


def note(trip: Trip) -> None:
    """Write that a policy was switched off."""
    with _locked() as file:
        kept = [*_lines(file), trip][-MOST:]
        _rewrite(file, kept)


def forget(table: str) -> None:
    """Forget what is told of a table."""
    if (run_folder() / _FILE).exists():
        with _locked() as file:
            _rewrite(file, [trip for trip in _lines(file) if trip.table != table])


def read() -> list[Trip]:
    """Return what was switched off, the oldest first."""
    try:
        with open(run_folder() / _FILE, encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            return list(_lines(file))
    except FileNotFoundError:
        return []


def counts() -> defaultdict[tuple[str, str], Count]:
    """Return what was counted for each policy, by the names of its table and its own."""
    found: defaultdict[tuple[str, str], Count] = defaultdict(Count)
    for trip in read():
        name = trip.table, trip.policy
        before = found[name]
        seen = Counter(before.seen) + Counter(trip.seen)
        found[name] = Count(before.trips + 1, trip.time, dict(seen))
    return found


@contextmanager
def _locked() -> Iterator[IO[str]]:
    with open(make_run_folder() / _FILE, "a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _lines(file: IO[str]) -> Iterator[Trip]:
    """Yield what the lines tell; one that a crash left unfinished tells nothing."""
    file.seek(0)
    for line in file:
        try:
            yield Trip(**json.loads(line))
        except (ValueError, TypeError):
            continue


def _rewrite(file: IO[str], trips: Iterable[Trip]) -> None:
    file.truncate(0)
    file.writelines(f"{json.dumps(asdict(trip))}\n" for trip in trips)
    file.flush()
