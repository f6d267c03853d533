# SPDX-License-Identifier: Apache-2.0
"""One controller's process as the runtime sees it: started, asked, waited for, ended."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import dataclass

from emptcp.control.assignment import Assignment
from emptcp.control.channel import pair

MISSED = 3
"""Ticks in a row that a controller may miss, by taking too long or by raising, before it is ended."""

PATIENCE = 1.0
"""Seconds that it has in any case: on a busy machine everybody is late."""

PATIENCE_AT_FIRST = 5.0
"""The same for its first tick, in which it meets all connections, and imports what it uses late."""

START = 20.0
"""Seconds in which a controller must be ready: it imports what its author likes."""

LOOK = 0.1
"""Seconds between two looks whether it is ready, where only its class knows its interval."""


@dataclass(frozen=True)
class Answer:
    """What came from a controller: the settings that it wants, or why there are none."""

    settings: bytes = b""
    error: str = ""


class ControllerProcess:
    """A running process. All times are of one clock, in seconds."""

    def __init__(self, assignment: Assignment, now: float) -> None:
        self._channel, theirs = pair()
        descriptors = theirs.descriptors
        # -P: the working directory may hold anything, and this runs as root.
        command = [sys.executable, "-P", "-m", "emptcp.control.worker", *map(str, descriptors)]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=2, pass_fds=descriptors)
        theirs.close()
        self._channel.send({}, pickle.dumps(assignment))
        self.interval = assignment.interval or LOOK
        self.due = now
        self.ready = False
        """Whether it can tick: its imports are done, which may take seconds on a busy machine."""
        self._asked: float | None = now
        self._failed = 0
        self._tick = 0

    def fileno(self) -> int:
        """What is readable when it answered or ended."""
        return self._channel.fileno()

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    @property
    def idle(self) -> bool:
        """Whether it can be asked."""
        return self.ready and self._asked is None

    def ask(self, now: float, records: bytes, places: dict[str, str] | None) -> None:
        """Begin a tick; ``places`` are those of the paths, where they changed.

        Raises :class:`OSError` when the process is gone.
        """
        self._tick += 1
        self._asked = now
        head = {"tick": self._tick}
        self._channel.send(head | ({"places": places} if places is not None else {}), records)

    def schedule(self, now: float) -> None:
        """Set when the next tick is due: ticks that can't be held any more are left out."""
        self.due += self.interval
        if self.due <= now:
            self.due = now + self.interval

    def hear(self, now: float) -> Answer | None:
        """Take what came; ``None`` when the process is gone."""
        try:
            message = self._channel.receive(wait=False)
        except (BlockingIOError, ValueError):
            return Answer()
        if message is None:
            return None
        head, body = message
        self._asked = None
        error = str(head.get("error", ""))
        if not self.ready:
            if error:
                self._failed = MISSED
                return Answer(error=error)
            self.ready, self.due = True, now
            self.interval = max(0.01, float(head["interval"]))
            return Answer()
        self._failed = self._failed + 1 if error else 0
        return Answer(body, error)

    def overdue(self, now: float) -> str:
        """Return why it is to be ended, empty while it is not."""
        waited = now - self._asked if self._asked is not None else 0.0
        if not self.ready:
            return f"it was not ready within {START:g} s" if waited > START else ""
        patience = PATIENCE if self._tick > 1 else PATIENCE_AT_FIRST
        if waited > max(MISSED * self.interval, patience):
            return f"a tick took longer than {waited:.1f} s, and it missed {MISSED} or more"
        return ""

    @property
    def failed(self) -> bool:
        """Whether it raised in so many ticks in a row that it is to be ended."""
        return self._failed >= MISSED

    def end(self) -> None:
        """End the process at once, wait for it, and close the channel; again does nothing."""
        self._process.kill()
        self._process.wait()
        self._channel.close()
