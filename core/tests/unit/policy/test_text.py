# SPDX-License-Identifier: Apache-2.0
"""Model to text and back: nothing is lost on the way."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from emptcp.policy import file, model, text, when
from emptcp.policy.check import check, nesting
from emptcp.policy.requirement import Requirement
from emptcp.policy.tokens import RESERVED

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True).filter(lambda name: name not in RESERVED)
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
WRITTEN = st.sampled_from(
    ["true", "True", "10mbit", "fd00::/8", "::", "a b", "it's", "\\", '"', "", "-1", "not"]
)
SCALARS = st.builds(model.Scalar, st.one_of(ANY_TEXT, WRITTEN))
KEYS = st.sampled_from(["subflow", "connection"])
ARGUMENTS = st.one_of(
    SCALARS,
    st.builds(model.Listing, st.lists(SCALARS, max_size=3).map(tuple)),
    st.builds(model.FromMap, KEYS, st.just("rates")),
)
KEYWORDS = st.lists(st.builds(model.Keyword, NAMES, ARGUMENTS), max_size=3, unique_by=lambda one: one.name)
QUALIFIED = st.builds("{}{}".format, st.sampled_from(["", "emptcp-actor-record:", "a.b_C-1:"]), NAMES)


def stages(kind: str) -> st.SearchStrategy[model.StageSpec]:
    """Return stages of a kind, without labels."""
    positional = st.lists(ARGUMENTS, max_size=3).map(tuple)
    return st.builds(model.StageSpec, st.just(kind), QUALIFIED, positional, KEYWORDS.map(tuple))


LEAVES = st.one_of(
    st.builds(model.Select, stages("selector")), st.builds(model.InSet, st.just("subflow"), st.just("bulk"))
)
EXPRESSIONS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=3).map(lambda children: model.conjunction(*children)),
        st.lists(inner, min_size=2, max_size=3).map(lambda children: model.disjunction(*children)),
        st.builds(model.Not, inner),
    ),
    max_leaves=8,
)
CHAINS = st.builds(
    lambda body, end: (*body, *end),
    st.lists(stages("actor"), min_size=1, max_size=3),
    st.sampled_from([(), (model.Goto("slow"),)]),
)
DEVICES = st.lists(st.from_regex(r"[a-z0-9*?.\[\]!\"'\\-]{1,15}", fullmatch=True), min_size=1, max_size=3)


def distinct_labels(number: int, policy: model.Policy) -> model.Policy:
    """Return the policy with its own name, and with labels on its actors."""
    labelled = (
        replace(step, label=f"l{at}") if isinstance(step, model.StageSpec) else step
        for at, step in enumerate(policy.do)
    )
    return replace(policy, name=f"{number} {policy.name}", do=tuple(labelled))


POLICIES = st.lists(
    st.builds(
        model.Policy,
        name=st.text(st.characters(categories=["L", "N", "P", "S"]), max_size=20),
        table=st.just("t"),
        hooks=st.sampled_from([("ingress",), ("egress",), ("egress", "ingress")]),
        devices=DEVICES.map(lambda names: tuple(name for name in names if name not in (".", "..")) or ("x",)),
        when=st.none() | EXPRESSIONS,
        do=CHAINS,
        netns=st.none() | ANY_TEXT,
        backend=st.sampled_from(model.BACKENDS),
        optional=st.booleans(),
        unsafe=st.booleans(),
    ),
    max_size=3,
).map(lambda policies: tuple(distinct_labels(n, policy) for n, policy in enumerate(policies)))
SIZES, TIMES = st.integers(1, 1 << 24), st.integers(0, 10**18)
ENTRIES = st.lists(ANY_TEXT, max_size=3).map(tuple)
PAIRS = st.dictionaries(ANY_TEXT, ANY_TEXT, max_size=3).map(lambda pairs: tuple(pairs.items()))
OWN = st.builds(
    model.Keyword,
    ANY_TEXT,
    st.one_of(SCALARS, st.builds(model.Listing, st.lists(SCALARS, max_size=2).map(tuple))),
)
CONTROLLERS = st.builds(
    model.Controller,
    name=NAMES,
    use=ANY_TEXT,
    when=st.none() | EXPRESSIONS,
    paths=st.sampled_from([(), ("p",)]),
    parameters=st.lists(OWN, max_size=2, unique_by=lambda one: one.name).map(tuple),
    netns=st.none() | ANY_TEXT,
    interval=st.sampled_from(["", "100ms", "1h"]),
    steers=st.sampled_from(model.STEERED),
    on_failure=st.sampled_from(model.ON_FAILURE),
)
PATHS = st.builds(
    model.Path,
    st.just("p"),
    st.sampled_from([(), ("wwan*", "eth0")]),
    st.sampled_from(["", "10.0.0.1", "fd00::1"]),
    ENTRIES,
    st.sampled_from(["", "20mbit", "5kbps"]),
    st.sampled_from(["", "3"]),
    st.sampled_from(["", "5g", "17"]),
)
TABLES = st.builds(
    lambda policies, exact, requires, window, slow, one_set, one_map, path, controllers: model.Table(
        "t",
        policies,
        (model.Chain("slow", slow),),
        (one_set,),
        (one_map,),
        controllers,
        (path,),
        exact=exact,
        requires=requires,
        guard_window=window,
    ),
    POLICIES,
    st.booleans(),
    st.sampled_from([(), (Requirement("a-b"),), (Requirement("a", ">=1,<2"), Requirement("b.c", "==1.*"))]),
    st.none() | st.just(0) | st.integers(10**9, 86400 * 10**9),
    st.lists(stages("actor"), min_size=1, max_size=2).map(tuple),
    st.builds(
        model.Set, st.just("bulk"), st.just("subflow"), SIZES, TIMES, st.booleans(), st.none() | ENTRIES
    ),
    st.builds(
        model.Map, st.just("rates"), KEYS, st.just("rate"), SIZES, TIMES, st.booleans(), st.none() | PAIRS
    ),
    PATHS,
    st.lists(CONTROLLERS, max_size=2, unique_by=lambda one: one.name).map(tuple),
)


@given(TABLES)
@settings(max_examples=50, deadline=None)
def test_a_table_survives_being_written_and_read(table: model.Table) -> None:
    check(table)
    assert file.loads(text.table_text(table)) == table


@given(EXPRESSIONS)
def test_an_expression_is_written_with_as_many_parentheses_as_it_needs(expression: model.Expression) -> None:
    written = text.expression_text(expression)
    assert when.parse(written) == expression
    assert nesting(expression) <= 64


@given(stages("actor"))
def test_a_stage_is_written_as_it_is_read(stage: model.StageSpec) -> None:
    labelled = replace(stage, label="slow")
    assert when.parse_stage(text.stage_text(labelled)) == labelled


@given(ANY_TEXT)
def test_a_string_of_toml_holds_any_text(content: str) -> None:
    assert file.document.parse(f"k = {text.toml_string(content)}").text("k") == content
