# SPDX-License-Identifier: Apache-2.0
"""Change one selector of an expression: by its place among the leaves, from 0 and from left to right."""

from __future__ import annotations

from emptcp.policy import model

Place = tuple[int, ...]


def replaced(expression: model.Expression, number: int, by: model.Expression) -> model.Expression:
    """Return the expression with another one in place of a leaf."""
    changed = _change(expression, _way(expression, number), by)
    assert changed is not None
    return changed


def without(expression: model.Expression, number: int) -> model.Expression | None:
    """Return the expression without a leaf, and the ``not`` before it; ``None`` when nothing is left."""
    return _change(expression, _unit(expression, number), None)


def joined(
    expression: model.Expression, number: int | None, word: str, new: model.Expression, *, before: bool
) -> model.Expression:
    """Return the expression with ``new`` joined to a leaf, with its ``not``, or to the whole (``None``).

    ``word`` is ``and`` or ``or``.
    """
    way = () if number is None else _unit(expression, number)
    beside = _at(expression, way)
    pair = (new, beside) if before else (beside, new)
    node = model.conjunction(*pair) if word == "and" else model.disjunction(*pair)
    changed = _change(expression, way, node)
    assert changed is not None
    return changed


def _children(node: model.Expression) -> tuple[model.Expression, ...]:
    if isinstance(node, model.And | model.Or):
        return node.children
    return (node.child,) if isinstance(node, model.Not) else ()


def _way(expression: model.Expression, number: int) -> Place:
    """Return the way from the root to a leaf, as places among children."""
    for place, child in enumerate(_children(expression)):
        count = sum(1 for _ in model.leaves(child))
        if number < count:
            return (place, *_way(child, number))
        number -= count
    return ()


def _unit(expression: model.Expression, number: int) -> Place:
    """Return the way to a leaf, or to the ``not`` that stands before it alone."""
    way = _way(expression, number)
    while way and isinstance(_at(expression, way[:-1]), model.Not):
        way = way[:-1]
    return way


def _at(expression: model.Expression, way: Place) -> model.Expression:
    return _at(_children(expression)[way[0]], way[1:]) if way else expression


def _change(node: model.Expression, way: Place, by: model.Expression | None) -> model.Expression | None:
    """Put ``by`` where the way leads; ``None`` takes out what is there, and what is empty then."""
    if not way:
        return by
    changed = [
        _change(child, way[1:], by) if place == way[0] else child
        for place, child in enumerate(_children(node))
    ]
    left = [child for child in changed if child is not None]
    if isinstance(node, model.Not):
        return model.Not(left[0]) if left else None
    if len(left) < 2:
        return left[0] if left else None
    return model.conjunction(*left) if isinstance(node, model.And) else model.disjunction(*left)
