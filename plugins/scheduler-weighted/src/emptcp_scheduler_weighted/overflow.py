# SPDX-License-Identifier: Apache-2.0
"""How many tiers of paths one connection needs: one more when what waits stands, one less when fewer suffice.

A path is full when a queue before it does not go away. Neither its rate tells, which changes and which nobody
may know, nor a queue's length at one moment: each burst makes one. As CoDel does (RFC 8289), only what has
waited for long counts. What the paths carried when they were full is their capacity, and tells later whether
they would suffice again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

ENOUGH = 0.9
"""The part of their capacity that paths may be asked for and still suffice."""
GROWING = 1.25
"""A rate that grew so much within ``patience`` is one that begins: the paths are not full yet."""
LONGEST = 16
"""How often ``hold`` goes into the longest hold."""


@dataclass
class Overflow:
    """``queue``, ``patience`` and ``hold`` in seconds; rates in bytes per second.

    ``level`` is the number of tiers in use.
    """

    queue: float
    patience: float
    hold: float
    level: int = 1
    _capacity: dict[int, float] = field(default_factory=dict)
    _standing: tuple[float, float] | None = None
    _calm: float | None = None
    _left: float = -1e9
    _held: float = 0.0

    def look(self, now: float, waiting: float, rates: list[float]) -> int:
        """Take the seconds for which what waits will last, and each tier's rate; return the level."""
        self.level = max(1, min(self.level, len(rates)))
        self._learn(rates)
        if waiting > self.queue:
            self._calm = None
            self._stands(now, rates)
        else:
            self._standing = None
            self._may_leave(now, rates)
        return self.level

    def _learn(self, rates: list[float]) -> None:
        """Tiers that are left to overflow carry what they can."""
        for level in range(1, self.level):
            self._capacity[level] = max(self._capacity.get(level, 0.0), sum(rates[:level]))

    def _stands(self, now: float, rates: list[float]) -> None:
        rate = sum(rates[: self.level])
        since, before = self._standing or (now, rate)
        self._standing = since, before
        if now - since < self.patience:
            return
        self._standing = None
        if rate <= before * GROWING and self.level < len(rates):
            self._back_off(now)
            self._capacity[self.level] = rate
            self.level += 1

    def _back_off(self, now: float) -> None:
        """Hold the tier for longer when it was left too early just now."""
        too_early = now - self._left < max(self.hold, self._held)
        self._held = min(self._held * 2, self.hold * LONGEST) if too_early else self.hold

    def _may_leave(self, now: float, rates: list[float]) -> None:
        if self.level == 1 or sum(rates[: self.level]) > ENOUGH * self._capacity.get(self.level - 1, 0.0):
            self._calm = None
            return
        self._calm = now if self._calm is None else self._calm
        if now - self._calm >= self._held:
            self.level, self._left, self._calm = self.level - 1, now, None
