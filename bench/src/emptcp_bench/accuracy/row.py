# SPDX-License-Identifier: Apache-2.0
"""One thing that was asked of an actor, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Row:
    """``measured`` has a number for each round, in ``unit``; ``least`` and ``most`` are what is allowed."""

    actor: str
    asked: str
    measured: tuple[float, ...]
    unit: str
    least: float | None = None
    most: float | None = None

    @property
    def median(self) -> float:
        """The median over the rounds."""
        return median(self.measured)

    @property
    def held(self) -> bool:
        """Whether the median is within what is allowed."""
        return (self.least is None or self.median >= self.least) and (
            self.most is None or self.median <= self.most
        )

    @property
    def allowed(self) -> str:
        """What is allowed, in words."""
        if self.least is None:
            return f"at most {self.most:g}"
        return f"at least {self.least:g}" if self.most is None else f"{self.least:g} to {self.most:g}"

    @property
    def spread(self) -> str:
        """Median, least and most in words."""
        return f"{self.median:.2f} {self.unit} ({min(self.measured):.2f} to {max(self.measured):.2f})"

    @property
    def told(self) -> str:
        """The spread, and what is allowed where that is missed."""
        return self.spread if self.held else f"{self.spread}, missed: {self.allowed}"
