# SPDX-License-Identifier: Apache-2.0
"""What rewriting can do to connections, as the kernel's counters tell it, and when it is more than before.

A host whose client meets a server without MPTCP counts fallbacks too (``MPCapableFallbackSYNACK``): those
say nothing, and are not among these.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Mapping

WRONG_CHECKSUMS = "TcpInCsumErrors"
"""What the kernel counts of packets that came for its sockets; it says neither whose nor by which device."""

HARM = (
    WRONG_CHECKSUMS,
    "MPTcpExtDataCsumErr",
    "MPTcpExtDSSCorruptionFallback",
    "MPTcpExtDSSCorruptionReset",
    "MPTcpExtDssFallback",
    "MPTcpExtMPCapableDataFallback",
    "MPTcpExtMPFailRx",
    "MPTcpExtMPFailTx",
)
"""Counters of a network namespace, named as nstat does. A kernel that lacks one counts nothing there."""

FALLBACKS = ("MPTcpExtDSSCorruptionFallback", "MPTcpExtDssFallback", "MPTcpExtMPCapableDataFallback")
"""Those of :data:`HARM` that tell of a connection which went on as plain TCP."""

CROWD = 3
"""How often a count must rise within seconds to tell by itself. It has no ends: one may be anybody's."""

SURE = frozenset({"MPTcpExtDSSCorruptionReset"})
"""Counts that tell at once: neither a packet nor a socket would tell of it otherwise."""

MEMORY = 60.0
"""Seconds that the rate before is taken from."""


class Rates:
    """The counters of one namespace as they grow."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, Mapping[str, int]]] = deque()

    def beyond(self, now: float, counters: Mapping[str, int]) -> dict[str, int]:
        """Take a reading at ``now`` (seconds); return what rose since the last one beyond the rate before.

        The first reading is where counting begins, and nothing rises by it.
        """
        reading = {name: counters.get(name, 0) for name in HARM}
        found = self._risen(now, reading)
        self._seen.append((now, reading))
        while now - self._seen[0][0] > MEMORY and len(self._seen) > 1:
            self._seen.popleft()
        return found

    def _risen(self, now: float, reading: Mapping[str, int]) -> dict[str, int]:
        if not self._seen:
            return {}
        (began, first), (until, last) = self._seen[0], self._seen[-1]
        share = (now - until) / (until - began) if until > began else 0.0
        risen = {name: reading[name] - last[name] for name in HARM}
        return {
            name: rise for name, rise in risen.items() if is_beyond(rise, (last[name] - first[name]) * share)
        }


class Crowd:
    """Counts that nothing else explains, until there are so many that they tell.

    What one connection suffers is heard with its ends, or its socket tells. What is left are connections that
    were gone before anybody looked, and wrong checksums of what comes in.
    """

    def __init__(self, within: float) -> None:
        self._within = within
        self._last: dict[str, float] = {}
        self._so_far: Counter[str] = Counter()
        self._explained: dict[str, float] = {}

    def explain(self, now: float, name: str) -> None:
        """Let a count tell nothing for some seconds: whose doing it is is known, and more is under way."""
        self._explained[name] = now + self._within
        self._so_far[name] = 0

    def add(self, now: float, risen: Mapping[str, int]) -> Counter[str]:
        """Take what rose at ``now`` (seconds); return what tells, with how often it rose."""
        told: Counter[str] = Counter()
        for name, rise in risen.items():
            if now < self._explained.get(name, now):
                continue
            if now - self._last.get(name, now) > self._within:
                self._so_far[name] = 0
            self._last[name] = now
            self._so_far[name] += rise
            if name in SURE or self._so_far[name] >= CROWD:
                told[name] = self._so_far[name]
        return told


def is_beyond(rise: int, expected: float) -> bool:
    """Return whether so much more than expected is no chance: three deviations of what comes at random."""
    return rise > expected + 3 * math.sqrt(max(expected, 0.0))
