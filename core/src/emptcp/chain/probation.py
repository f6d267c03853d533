# SPDX-License-Identifier: Apache-2.0
"""A change that is taken back unless it is confirmed in time (``emptcp apply --confirm``).

It is noted before anything is changed, with what the table said, and something is set to wait for its end
(:mod:`emptcp.control.probation`). So a command that is cut off in the middle, which is what a probation is
for, does not leave the change in force for good. There is one at a time, and no other change meanwhile.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from emptcp.chain.pins import run_folder
from emptcp.chain.tables import Entry, write
from emptcp.errors import EmptcpError, quoted


@dataclass(frozen=True)
class Probation:
    """A change and its deadline, in seconds of ``CLOCK_BOOTTIME``: setting the clock does not move it."""

    before: Entry | None
    after: Entry
    deadline: float

    @property
    def table(self) -> str:
        """The table that was changed."""
        return self.after.table

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.deadline - _now()

    @property
    def undone(self) -> Entry:
        """The entry that takes the change back."""
        return self.before or Entry(self.table, "", self.after.netns, self.after.source)


def begin(before: Entry | None, after: Entry, seconds: float) -> None:
    """Note a change that is about to be made."""
    write(_path(), asdict(Probation(before, after, _now() + seconds)))


def current() -> Probation | None:
    """Return the change on probation, if there is one. A damaged note counts as none."""
    try:
        data = json.loads(_path().read_text(encoding="utf-8"))
        before = Entry(**data["before"]) if data["before"] is not None else None
        return Probation(before, Entry(**data["after"]), float(data["deadline"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def end() -> None:
    """End the probation, whichever way it went."""
    _path().unlink(missing_ok=True)


def refuse_others() -> None:
    """Raise :class:`EmptcpError` while a change waits to be confirmed."""
    found = current()
    if found is not None:
        raise EmptcpError(
            f"a change of table {quoted(found.table)} waits to be confirmed",
            fix="Run: emptcp confirm, or: emptcp rollback",
        )


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _path() -> Path:
    return run_folder() / "probation.json"
