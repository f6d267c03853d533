# SPDX-License-Identifier: Apache-2.0
"""Holds subflows to their weights: none may deliver more, for its weight, than the one that is behind.

The one that is behind is not limited, so it shows what it can; the others follow it. What the kernel's
scheduler can't send by a limited subflow goes by those that are behind, also while all could carry more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from emptcp.api import ConnectionSubflow
from emptcp_scheduler_weighted.flow import Flows

HEADROOM = 1.05
"""How far one may be ahead of the one that is behind."""
FALL = 0.7
"""To what part of what it delivers a subflow is limited in one tick at most: pauses of others are short."""
LEAST = 0.05
"""The part of the connection's highest rate that is always shared out: else a pause would starve it."""
FINE = 0.05
"""Limits that differ by less are the same."""


def limit(
    used: Sequence[ConnectionSubflow], flows: Flows, weight: Callable[[ConnectionSubflow], int]
) -> None:
    """Set the rates of the subflows in use."""
    alive = [one for one in used if not _stuck(one, flows)]
    if len(alive) < 2:
        for one in used:
            one.rate = None
        return
    total = sum(weight(one) for one in alive)
    behind = min(alive, key=lambda one: flows.of([one]) / weight(one))
    unit = max(HEADROOM * flows.of([behind]) / weight(behind), LEAST * flows.highest / total)
    for one in used:
        wanted = max(weight(one) * unit, FALL * flows.of([one]))
        if one is behind or one not in alive or wanted <= 0:
            one.rate = None
        elif one.rate is None or abs(one.rate - wanted) > FINE * wanted:
            one.rate = wanted


def _stuck(one: ConnectionSubflow, flows: Flows) -> bool:
    """Whether a subflow has data under way of which nothing arrives: it has no say."""
    return bool(one.unacked) and flows.of([one]) < one.mss
