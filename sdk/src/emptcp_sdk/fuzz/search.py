# SPDX-License-Identifier: Apache-2.0
"""The loop: new packets and broken ones; what behaved as nothing before is kept, to be broken further."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from random import Random, SystemRandom

from emptcp_sdk.fuzz.mutations import mutated
from emptcp_sdk.fuzz.packets import Packet, packet

CORPUS = 20_000
"""Packets kept at most; more take the place of any."""


def seconds(default: float) -> float:
    """Return how long to search: ``EMPTCP_FUZZ_SECONDS``, or a default."""
    return float(os.environ.get("EMPTCP_FUZZ_SECONDS") or default)


def seed() -> int:
    """Return where to begin: ``EMPTCP_FUZZ_SEED``; the same on every run of CI; else anywhere."""
    told = os.environ.get("EMPTCP_FUZZ_SEED")
    if told:
        return int(told)
    return 1 if os.environ.get("CI") else SystemRandom().randrange(2**32)


@dataclass
class Search:
    """One search and what it saw.

    try_packet: runs a packet with whatever arguments it draws, and returns what it saw, as values that are
        equal if the program behaved alike.
    """

    try_packet: Callable[[Packet, Random], list[Hashable]]
    seed: int = field(default_factory=seed)
    corpus: list[Packet] = field(default_factory=list)
    seen: set[Hashable] = field(default_factory=set)
    packets: int = 0

    def __post_init__(self) -> None:
        self._random = Random(self.seed)

    def run(self, duration: float, at_least: int = 200) -> None:
        """Search on for so many seconds, and through so many packets."""
        end, enough = time.monotonic() + duration, self.packets + at_least
        while self.packets < enough or time.monotonic() < end:
            self._turn(self._random)

    def _turn(self, random: Random) -> None:
        if self.corpus and random.random() < 0.7:
            one = mutated(random, random.choice(self.corpus))
        else:
            one = packet(random)
        before = len(self.seen)
        self.seen.update(self.try_packet(one, random))
        self.packets += 1
        if len(self.seen) == before:
            return
        if len(self.corpus) < CORPUS:
            self.corpus.append(one)
        else:
            self.corpus[random.randrange(CORPUS)] = one
