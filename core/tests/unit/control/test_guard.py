# SPDX-License-Identifier: Apache-2.0
"""Which packets the guard takes an actor to have worked on."""

from __future__ import annotations

from emptcp.chain.counters import Counters
from emptcp.control.guard import worked_on

COUNTS = Counters(packets=10, skipped=1, reasons={"no_option": 4})


def test_what_emptcps_own_actors_left_alone_does_not_count() -> None:
    assert worked_on(COUNTS, believed=True) == 5


def test_a_stranger_may_have_changed_what_it_gives_a_reason_for() -> None:
    """As one that takes off two options does, where a packet has only one of them."""
    assert worked_on(COUNTS, believed=False) == 9
