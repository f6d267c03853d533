# SPDX-License-Identifier: Apache-2.0
"""Changes of one selector of an expression, against what the expressions mean."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emptcp.policy import expressions, model, when

NAMES = [f"s{n}" for n in range(8)]


@st.composite
def trees(draw: st.DrawFn) -> model.Expression:
    numbers = itertools.count()

    def build(depth: int) -> model.Expression:
        kind = draw(st.sampled_from(["leaf", "leaf", "not", "and", "or"] if depth < 3 else ["leaf"]))
        if kind == "leaf" or next(numbers) > 4:
            return model.Select(model.StageSpec("selector", f"x{next(numbers)}"))
        if kind == "not":
            return model.Not(build(depth + 1))
        children = [build(depth + 1), build(depth + 1)]
        return model.conjunction(*children) if kind == "and" else model.disjunction(*children)

    return named(build(0), iter(NAMES * 9))


def named(node: model.Expression, names: object) -> model.Expression:
    """Return the tree with leaves s0, s1 .. from left to right."""
    if isinstance(node, model.And | model.Or):
        return type(node)(tuple(named(child, names) for child in node.children))
    if isinstance(node, model.Not):
        return model.Not(named(node.child, names))
    return model.Select(model.StageSpec("selector", next(names)))  # type: ignore[call-overload]


def value(node: model.Expression | None, truth: dict[str, bool]) -> bool:
    if node is None:
        return True
    if isinstance(node, model.And):
        return all(value(child, truth) for child in node.children)
    if isinstance(node, model.Or):
        return any(value(child, truth) for child in node.children)
    if isinstance(node, model.Not):
        return not value(node.child, truth)
    assert isinstance(node, model.Select)
    return truth[node.stage.name]


def names(node: model.Expression | None) -> list[str]:
    return [spec.name for spec in model.selectors(node)]


NEW = model.Select(model.StageSpec("selector", "new"))


@given(trees(), st.data())
def test_another_selector_takes_exactly_the_place_of_one(tree: model.Expression, data: st.DataObject) -> None:
    known = names(tree)
    number = data.draw(st.integers(0, len(known) - 1))
    changed = expressions.replaced(tree, number, NEW)
    assert names(changed) == [*known[:number], "new", *known[number + 1 :]]
    truth = {name: data.draw(st.booleans()) for name in NAMES}
    unique = dict(truth, new=truth[known[number]])
    if known.count(known[number]) == 1:
        assert value(changed, unique) == value(tree, truth)


@given(trees(), st.data())
def test_a_selector_that_is_taken_out_leaves_the_others_as_they_were(
    tree: model.Expression, data: st.DataObject
) -> None:
    known = names(tree)
    number = data.draw(st.integers(0, len(known) - 1))
    changed = expressions.without(tree, number)
    assert names(changed) == known[:number] + known[number + 1 :]
    assert (changed is None) == (len(known) == 1)


@given(trees(), st.sampled_from(["and", "or"]), st.booleans(), st.data())
def test_what_is_joined_to_the_whole_means_what_it_says(
    tree: model.Expression, word: str, before: bool, data: st.DataObject
) -> None:
    changed = expressions.joined(tree, None, word, NEW, before=before)
    truth = {name: data.draw(st.booleans()) for name in [*NAMES, "new"]}
    both = (value(tree, truth), truth["new"])
    assert value(changed, truth) == (all(both) if word == "and" else any(both))
    assert names(changed) == (["new", *names(tree)] if before else [*names(tree), "new"])


@pytest.mark.parametrize(
    ("written", "number", "left"),
    [
        ("a and b", 0, "b"),
        ("a and not b", 1, "a"),
        ("a and not (b or c)", 1, "a and not c"),
        ("(a or b) and c", 2, "a or b"),
        ("a or b and c or d", 1, "a or c or d"),
        ("not (not a) or b", 0, "b"),
    ],
)
def test_a_not_goes_with_its_selector(written: str, number: int, left: str) -> None:
    changed = expressions.without(when.parse(written), number)
    assert changed is not None
    assert changed == when.parse(left)


@pytest.mark.parametrize(
    ("written", "number", "word", "before", "joined"),
    [
        ("a and b", 1, "or", False, "a and (b or new)"),
        ("a or b", 0, "and", True, "new and a or b"),
        ("not a", 0, "and", False, "not a and new"),
        ("not (a or b)", 1, "or", True, "not (a or new or b)"),
        ("a and b", 0, "and", False, "a and new and b"),
    ],
)
def test_a_selector_is_joined_beside_another_with_its_not(
    written: str, number: int, word: str, before: bool, joined: str
) -> None:
    changed = expressions.joined(when.parse(written), number, word, when.parse("new"), before=before)
    assert changed == when.parse(joined)
