# SPDX-License-Identifier: Apache-2.0
"""Why a chain does not run, in words."""

from __future__ import annotations

import pytest

from emptcp.chain.off import Off
from emptcp.chain.trial import Stage, Tried
from emptcp.chain.trips import Count
from emptcp.control.explanation import why_not

NO, YES = (Stage(text, text, answer) for text, answer in (("port(1)", False), ("syn()", True)))


@pytest.mark.parametrize(
    ("tried", "before", "state", "guard", "said"),
    [
        (Tried("t", "p", failed="no plugin 'x'"), (), Off(), Count(), "it can't be tried: no plugin 'x'"),
        (Tried("t", "p", off=True), (), Off(), Count(), "it is off; on again by: emptcp on t 'p'"),
        (
            Tried("t", "p", off=True),
            (),
            Off(tables=frozenset({"t"})),
            Count(1, 1.0, {"fallback": 2}),
            "its table is off; on again by: emptcp on t",
        ),
        (Tried("t", "p", selectors=(NO, YES)), (), Off(), Count(), "port(1) says no, syn() says yes"),
        (
            Tried("t", "p", selectors=(Stage("s", "seq()", False, reasons=("unknown_state",)),)),
            (),
            Off(),
            Count(),
            "seq() says no (unknown_state)",
        ),
        (
            Tried("t", "p", selectors=(Stage("s", "seq()"),)),
            (Tried("u", "first", ran=True, verdict="NEXT"), Tried("u", "q", ran=True, verdict="DROP")),
            Off(),
            Count(),
            "policy 'q' of table u before it ends with DROP",
        ),
        (Tried("t", "p"), (), Off(), Count(), "these packets are none that it looks at"),
    ],
)
def test_the_first_thing_that_stands_in_the_way_is_said(
    tried: Tried, before: tuple[Tried, ...], state: Off, guard: Count, said: str
) -> None:
    assert why_not([tried, tried], [before, before], state, guard) == said


def test_the_guard_says_what_it_saw() -> None:
    said = why_not([Tried("t", "p", off=True)], [()], Off(), Count(2, 1.0, {"fallback": 2}))
    assert said.startswith("the guard switched off 2 times, last ")
    assert said.endswith(": fallback 2; on again by: emptcp on t 'p'")
