# SPDX-License-Identifier: Apache-2.0
"""What a controller wants of one thing, a subflow or a connection, and what of that is in force."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

Settings = dict[str, int]
"""What is set -> a whole number (a rate is in bytes per second), without what is as if nothing were set."""


class Wishes:
    """Settings, wanted and in force; they are the same between ticks. ``changed``: they are not now."""

    def __init__(self, in_force: Mapping[str, int] | None = None) -> None:
        self._in_force: Settings = dict(in_force or {})
        self.wanted: Settings = dict(self._in_force)
        self.changed = False

    def want(self, name: str, value: int | None) -> None:
        """Want another value; ``None`` takes the setting back."""
        if value is None:
            self.wanted.pop(name, None)
        else:
            self.wanted[name] = value
        self.changed = self.wanted != self._in_force

    def changes(self) -> Iterator[tuple[str, int | None]]:
        """Yield each setting whose value is to be another one, and that value; ``None`` takes it back."""
        for name in dict.fromkeys((*self._in_force, *self.wanted)):
            value = self.wanted.get(name)
            if value != self._in_force.get(name):
                yield name, value

    @property
    def in_force(self) -> Settings:
        """What is set and in force."""
        return dict(self._in_force)

    def settle(self) -> None:
        """Take what is wanted for being in force."""
        self._in_force, self.changed = dict(self.wanted), False

    def abandon(self) -> None:
        """Forget what was wanted since the last :meth:`settle`."""
        self.wanted, self.changed = dict(self._in_force), False
