# SPDX-License-Identifier: Apache-2.0
"""Packets of a subflow that turn bad, one after the other, on one of the devices by which it passes."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field

from emptcp.plugins.occasions import Endpoint

IN_A_ROW = 3
"""Bad packets that tell. One alone may have been damaged elsewhere, or be allowed."""

MEMORY = 10.0
"""Seconds for which a packet is remembered. Later a subflow's ports may be another connection's."""

MOST = 4096
"""Subflows that are remembered, each direction for itself; the one seen least recently gives way."""

Ends = tuple[Endpoint, Endpoint]


@dataclass
class Seen:
    """When there was a good packet last, at any place, and by place how many bad ones in a row."""

    good: float | None = None
    bad: Counter[Hashable] = field(default_factory=Counter)
    came_bad: float | None = None


class Streaks:
    """What lately passed of each subflow."""

    def __init__(self) -> None:
        self._seen: OrderedDict[Ends, Seen] = OrderedDict()

    def good(self, now: float, place: Hashable, ends: Ends) -> None:
        """Take notice of a good packet at ``now`` (seconds)."""
        seen = self.of(ends)
        seen.good, seen.bad[place] = now, 0

    def of(self, ends: Ends) -> Seen:
        """Return what is remembered of a subflow, and remember it."""
        seen = self._seen.setdefault(ends, Seen())
        self._seen.move_to_end(ends)
        if len(self._seen) > MOST:
            self._seen.popitem(last=False)
        return seen


def lately(now: float, when: float | None) -> bool:
    """Return whether something was within the memory."""
    return when is not None and now - when <= MEMORY


def is_told(seen: Seen, place: Hashable) -> bool:
    """Count a bad packet; return whether it is the one that tells, once in a row."""
    seen.bad[place] += 1
    return seen.bad[place] == IN_A_ROW
