# SPDX-License-Identifier: Apache-2.0
"""The plan's edges say what the expression says."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emptcp.chain.counters import CHUNK_STAGES
from emptcp.chain.plan import (
    END,
    PARSE_KEY,
    PARSE_PLAIN,
    BoundPolicy,
    FragmentRef,
    Plan,
    Stage,
    companions_for,
    plan,
)
from emptcp.errors import EmptcpError
from emptcp.policy import model


def stage(name: str, kind: str = "selector", **more: object) -> Stage:
    fragment = more.pop("fragment", None) or FragmentRef(name, f"{name}.bpf.o", name)
    return Stage(name, kind, name, f"{name}()", fragment, b"", **more)  # type: ignore[arg-type]


def leaf(number: int) -> model.Select:
    return model.Select(model.StageSpec("selector", f"s{number}"))


@st.composite
def expressions(draw: st.DrawFn) -> model.Expression:
    tree = draw(
        st.recursive(
            st.just("leaf"),
            lambda inner: st.one_of(
                st.tuples(st.just("not"), inner),
                st.tuples(st.sampled_from(["and", "or"]), st.lists(inner, min_size=2, max_size=4)),
            ),
            max_leaves=12,
        )
    )
    numbers = iter(range(100))

    def build(node: object) -> model.Expression:
        if node == "leaf":
            return leaf(next(numbers))
        kind, rest = node  # type: ignore[misc]
        if kind == "not":
            return model.Not(build(rest))
        children = tuple(build(child) for child in rest)  # type: ignore[union-attr]
        return model.And(children) if kind == "and" else model.Or(children)

    return build(tree)


def evaluate(expression: model.Expression, truth: dict[str, bool], asked: list[str]) -> bool:
    """The meaning of an expression, with Python's own short circuit."""
    if isinstance(expression, model.And):
        return all(evaluate(child, truth, asked) for child in expression.children)
    if isinstance(expression, model.Or):
        return any(evaluate(child, truth, asked) for child in expression.children)
    if isinstance(expression, model.Not):
        return not evaluate(expression.child, truth, asked)
    assert isinstance(expression, model.Select)
    asked.append(expression.stage.name)
    return truth[expression.stage.name]


def walk(made: Plan, policy: int, truth: dict[str, bool]) -> tuple[bool, list[str], list[str]]:
    """Follow a policy's edges; return whether it matched, which selectors ran and which actors."""
    asked, acted = [], []
    index = made.policies[policy].first
    while index != END:
        step = made.steps[index]
        if step.stage.kind == "actor":
            acted.append(step.stage.name)
            index = step.if_match
        else:
            asked.append(step.stage.name)
            index = step.if_match if truth[step.stage.name] else step.if_not
    return bool(acted), asked, acted


@given(expressions(), st.data())
def test_edges_run_the_same_selectors_as_the_expression_and_agree_on_the_match(
    expression: model.Expression, data: st.DataObject
) -> None:
    names = [spec.name for spec in model.selectors(expression)]
    truth = {name: data.draw(st.booleans()) for name in names}
    before = BoundPolicy("t", "p0", None, (), (stage("x", "actor"),))
    policy = BoundPolicy(
        "t", "p1", expression, tuple(map(stage, names)), (stage("a", "actor"), stage("b", "actor"))
    )
    made = plan("ingress", [before, policy, before])
    expected: list[str] = []
    matches = evaluate(expression, truth, expected)
    matched, asked, acted = walk(made, 1, truth)
    assert (matched, asked) == (matches, expected)
    assert acted == (["a", "b"] if matches else [])


def test_a_policy_without_an_expression_runs_its_chain_on_every_packet() -> None:
    made = plan("egress", [BoundPolicy("t", "p", None, (), (stage("a", "actor"), stage("b", "actor")))])
    assert walk(made, 0, {}) == (True, [], ["a", "b"])
    assert made.policies[0].first == 0
    assert made.policies[0].last == 1


def test_a_policy_with_more_stages_than_share_a_chunk_is_refused() -> None:
    many = tuple(stage(f"a{n}", "actor") for n in range(CHUNK_STAGES + 1))
    with pytest.raises(EmptcpError, match=f"{CHUNK_STAGES + 1} stages"):
        plan("ingress", [BoundPolicy("t", "p", None, (), many)])


def test_the_key_is_parsed_only_for_those_who_read_it_or_keep_state() -> None:
    plain = BoundPolicy("t", "p", None, (), (stage("a", "actor"),))
    reader = BoundPolicy("t", "p", None, (), (stage("a", "actor", reads=frozenset({"key"})),))
    keeper = BoundPolicy(
        "t", "p", None, (), (stage("a", "actor", fragment=FragmentRef("a", "a.o", "a", 16)),)
    )
    assert plan("ingress", [plain]).needs == 0
    assert plan("ingress", [reader]).needs == PARSE_KEY
    kept = plan("ingress", [keeper])
    assert kept.needs == PARSE_KEY | PARSE_PLAIN
    assert kept.flow


def test_packets_without_mptcp_are_parsed_only_for_a_policy_that_wants_them() -> None:
    asks = stage("s", "selector", plain_tcp=True)
    when = model.Select(model.StageSpec("selector", "s"))
    asking = BoundPolicy("t", "p", when, (asks,), (stage("a", "actor"),))
    other = BoundPolicy("t", "q", None, (), (stage("a", "actor"),))
    assert plan("ingress", [other]).needs == 0
    assert plan("ingress", [other, asking]).needs == PARSE_PLAIN


def test_a_companion_has_the_key_that_it_reads_on_a_hook_without_stages() -> None:
    note = FragmentRef("a", "a.bpf.o", "note")
    assert plan("egress", [], [note]).needs == 0
    assert plan("egress", [], [replace(note, key=True)]).needs == PARSE_KEY


def test_a_companion_is_wanted_once_and_only_on_its_hook() -> None:
    note = FragmentRef("record", "record.bpf.o", "note", 64)
    actor = stage("record", "actor", companions=(("egress", note),))
    policies = [BoundPolicy("t", name, None, (), (actor, actor)) for name in "ab"]
    assert companions_for("egress", policies) == (note,)
    assert companions_for("ingress", policies) == ()
    made = plan("egress", [], [note])
    assert made.fragments == (note,)
    assert made.flow
