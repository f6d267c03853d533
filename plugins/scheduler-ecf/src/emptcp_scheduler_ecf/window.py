# SPDX-License-Identifier: Apache-2.0
"""What one connection's receive window takes when it grows no more."""

from __future__ import annotations

import math
from dataclasses import dataclass

GROWTH = 1.1
"""A window that is larger by less is the same."""
ROUND_TRIPS, SECONDS = 5, 1.0
"""How long it must have been the same: receivers double it once in a round trip, when they need to."""


@dataclass
class Window:
    """The largest window that was seen, and for how long it has not grown though more waited."""

    largest: float = 0.0
    _settled: float = 0.0

    def see(self, window: int, waiting: int, rtt: float, elapsed: float) -> None:
        """Take what is there now; all subflows were in use for ``elapsed`` seconds since the last look."""
        if window > self.largest * GROWTH:
            self.largest, self._settled = window, 0.0
        elif waiting > self.largest:
            self._settled += elapsed / max(SECONDS, ROUND_TRIPS * rtt)

    @property
    def takes(self) -> float:
        """Bytes; infinite while nobody knows."""
        return self.largest if self._settled >= 1 else math.inf
