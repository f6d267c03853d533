# SPDX-License-Identifier: Apache-2.0
"""What is asked of an expression of which only some selectors tell by a packet's ends: never too little."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emptcp.chain.reach import asked
from emptcp.policy import model
from emptcp.policy.text import expression_text
from emptcp.policy.when import parse

KNOWN, UNKNOWN = ("k", "l"), ("u", "v")
LEAVES = st.sampled_from([model.Select(model.StageSpec("selector", name)) for name in KNOWN + UNKNOWN])
EXPRESSIONS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        inner.map(model.Not),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: model.And(tuple(parts))),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: model.Or(tuple(parts))),
    ),
    max_leaves=8,
)


def decides(leaf: model.Select | model.InSet) -> bool:
    return isinstance(leaf, model.Select) and leaf.stage.name in KNOWN


def value(expression: model.Expression, names: Mapping[str, bool]) -> bool:
    if isinstance(expression, model.And):
        return all(value(child, names) for child in expression.children)
    if isinstance(expression, model.Or):
        return any(value(child, names) for child in expression.children)
    if isinstance(expression, model.Not):
        return not value(expression.child, names)
    assert isinstance(expression, model.Select)
    return names[expression.stage.name]


@given(EXPRESSIONS, st.tuples(st.booleans(), st.booleans()))
def test_whatever_can_match_matches_what_is_asked(when: model.Expression, known: tuple[bool, bool]) -> None:
    names = dict(zip(KNOWN, known, strict=True))
    can = any(
        value(when, names | dict(zip(UNKNOWN, unknown, strict=True)))
        for unknown in product((False, True), repeat=2)
    )
    found = asked(when, decides)
    assert not can or found is None or value(found, names)


@given(EXPRESSIONS)
def test_where_all_selectors_tell_the_answer_is_the_expressions_own(when: model.Expression) -> None:
    found = asked(when, lambda leaf: True)
    assert found is not None
    for values in product((False, True), repeat=4):
        names = dict(zip(KNOWN + UNKNOWN, values, strict=True))
        assert value(found, names) == value(when, names)


@pytest.mark.parametrize(
    ("when", "wanted"),
    [
        ("k() and u()", "k()"),
        ("k() or u()", None),
        ("not (k() or u())", "not k()"),
        ("not (k() and u())", None),
        ("not u()", None),
        ("u() and k() and (l() or v()) and not v()", "k()"),
    ],
)
def test_unknown_selectors_are_left_out_where_they_can_be(when: str, wanted: str | None) -> None:
    found = asked(parse(when), decides)
    assert (expression_text(found) if found is not None else None) == wanted


def test_a_policy_for_all_packets_can_touch_any_subflow() -> None:
    assert asked(None, decides) is None
