# SPDX-License-Identifier: Apache-2.0
"""The policy files that ``emptcp run`` was given: applied at its start, and again when they change.

A file that can't be applied is told in a sentence, and what is in force stays. It is tried again from time to
time: its device may come. A file that goes takes nothing out of force.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from emptcp.chain import apply
from emptcp.errors import EmptcpError
from emptcp.policy import file
from emptcp.pybpf import BpfError

if TYPE_CHECKING:
    from emptcp.chain.session import Outcome

AGAIN = 5.0
"""Seconds after which a file that could not be applied is tried again."""

PATTERN = "*.toml"
"""The files of a folder that are meant."""

Trace = tuple[int, int, int]


@dataclass
class _Known:
    """What became of one file: as it was read last, the table that it is, why it could not be applied."""

    trace: Trace | None = None
    table: str = ""
    failed: str = ""
    tried: float = 0.0


class Files:
    """Files, and folders with such files. ``say`` gets sentences, ``report`` what was done.

    Raises :class:`EmptcpError` for one that is not there.
    """

    def __init__(
        self,
        names: Iterable[str],
        netns: str,
        say: Callable[[str], None],
        report: Callable[[Outcome], None],
    ) -> None:
        self._names = [Path(name) for name in names]
        self._netns, self._say, self._report = netns, say, report
        self._known: dict[Path, _Known] = {}
        for path in self._names:
            if not path.exists():
                raise EmptcpError(
                    f"there is no policy file or folder '{path}'", fix="Mend the name, or make it."
                )

    @property
    def tables(self) -> list[str]:
        """The tables that the files are, in the order in which they were applied."""
        return list(dict.fromkeys(one.table for one in self._known.values() if one.table))

    def load(self) -> None:
        """Apply all files, those that did not change too: what runs may be something else by now."""
        for path in self._paths():
            self._apply(path)

    def look(self) -> None:
        """Apply the files that changed since they were read, and those whose time to be tried again came."""
        now = time.monotonic()
        for path in self._paths():
            known = self._known.get(path)
            if known is None or known.trace != _trace(path) or (known.failed and now - known.tried > AGAIN):
                self._apply(path)

    def _paths(self) -> Iterator[Path]:
        for path in self._names:
            if path.is_dir():
                yield from sorted(path.glob(PATTERN))
            elif path.exists():
                yield path

    def _apply(self, path: Path) -> None:
        known = self._known.setdefault(path, _Known())
        # Before it is read: what is written meanwhile is seen at the next look.
        known.trace, known.tried = _trace(path), time.monotonic()
        try:
            outcome = self._applied(path, known)
        except (EmptcpError, BpfError, OSError) as error:
            self._fail(path, known, error)
            return
        known.failed = ""
        if outcome.changed or outcome.warnings:
            self._report(outcome)

    def _applied(self, path: Path, known: _Known) -> Outcome:
        table = file.load(path)
        owners = {one.table: other for other, one in self._known.items() if other != path and one.table}
        if table.name in owners:
            raise EmptcpError(
                f"'{path}' is of table '{table.name}', which '{owners[table.name]}' owns already",
                fix="Give one of them another name.",
            )
        outcome = apply.apply(table, self._netns)
        known.table = table.name
        return outcome

    def _fail(self, path: Path, known: _Known, error: Exception) -> None:
        why = " ".join(str(error).split())
        if why != known.failed:
            self._say(f"'{path}' is not applied, and what is in force stays: {why}")
        known.failed = why


def _trace(path: Path) -> Trace | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
