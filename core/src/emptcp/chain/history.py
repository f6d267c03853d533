# SPDX-License-Identifier: Apache-2.0
"""What tables said before their last changes, so that changes can be rolled back.

Each change of a table is a numbered file in the run folder with the table's entry before and after; the
last :data:`KEPT` are kept. A damaged file is passed over: that change can't be rolled back any more.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from emptcp.chain.pins import run_folder
from emptcp.chain.tables import Entry, write
from emptcp.errors import EmptcpError

KEPT = 32


@dataclass(frozen=True)
class Change:
    """A table's change: its entry before (``None``: there was none) and after (``text`` empty: removed)."""

    number: int
    time: float
    before: Entry | None
    after: Entry

    @property
    def undone(self) -> Entry:
        """The entry that takes the change back."""
        return self.before or Entry(self.after.table, "", self.after.netns, self.after.source)


def note(before: Entry | None, after: Entry) -> Change:
    """Keep a change; the oldest ones are forgotten."""
    numbers = _numbers()
    number = numbers[-1] + 1 if numbers else 1
    change = Change(number, time.time(), before, after)
    write(_path(number), asdict(change))
    for old in numbers[: max(0, len(numbers) + 1 - KEPT)]:
        _path(old).unlink(missing_ok=True)
    return change


def everything() -> list[Change]:
    """Return the changes that are kept, oldest first."""
    changes = (_change(_path(number)) for number in _numbers())
    return [change for change in changes if change is not None]


def last(count: int) -> list[Change]:
    """Return the last changes, oldest first. Raises :class:`EmptcpError` when so many are not kept."""
    changes = everything()
    if not 1 <= count <= len(changes):
        raise EmptcpError(
            f"{count} changes can't be rolled back, {len(changes) or 'none'} are kept",
            fix=f"Give a number from 1 to {len(changes)}." if changes else "Apply a file first.",
        )
    return changes[-count:]


def forget(changes: Sequence[Change]) -> None:
    """Forget changes that were taken back."""
    for change in changes:
        _path(change.number).unlink(missing_ok=True)


def _folder() -> Path:
    return run_folder() / "history"


def _numbers() -> list[int]:
    return sorted(int(path.stem) for path in _folder().glob("[0-9]*.json"))


def _path(number: int) -> Path:
    return _folder() / f"{number}.json"


def _change(path: Path) -> Change | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        before = Entry(**data["before"]) if data["before"] is not None else None
        return Change(data["number"], data["time"], before, Entry(**data["after"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
