# SPDX-License-Identifier: Apache-2.0
"""The small language of ``when`` and ``do``."""

from __future__ import annotations

import pytest

from emptcp.errors import EmptcpError
from emptcp.policy import model, when
from emptcp.policy.model import (
    And,
    FromMap,
    Goto,
    InSet,
    Keyword,
    Listing,
    Not,
    Or,
    Scalar,
    Select,
    StageSpec,
)


def select(name: str, *positional: str) -> Select:
    """Return a selector with these values."""
    return Select(StageSpec("selector", name, tuple(map(Scalar, positional))))


A, B, C = select("a"), select("b"), select("c")


def test_and_binds_tighter_than_or_and_not_tightest() -> None:
    assert when.parse("a or not b and c") == Or((A, And((Not(B), C))))


def test_parentheses_change_the_order() -> None:
    assert when.parse("(a or b) and c") == And((Or((A, B)), C))


def test_a_chain_of_the_same_word_is_one_node_however_it_is_grouped() -> None:
    assert when.parse("(a and b) and c") == when.parse("a and (b and c)") == And((A, B, C))


def test_a_key_in_a_set_is_a_leaf() -> None:
    assert when.parse("not subflow in @bulk-1") == Not(InSet("subflow", "bulk-1"))


def test_arguments_are_values_lists_and_map_references() -> None:
    stage = when.parse_stage("slow: x('a b', 10mbit, on=True, what=[rtt, 'by tes'], rate=subflow @rates)")
    assert stage == StageSpec(
        "actor",
        "x",
        (Scalar("a b"), Scalar("10mbit")),
        (
            Keyword("on", Scalar("true")),
            Keyword("what", Listing((Scalar("rtt"), Scalar("by tes")))),
            Keyword("rate", FromMap("subflow", "rates")),
        ),
        "slow",
    )


@pytest.mark.parametrize(
    "value", ["10.0.0.0/8", "fd00::/8", "::", "5%", "wwan*", "-1", "1.5mbit", "eth0.100"]
)
def test_a_value_of_ordinary_characters_needs_no_quotes(value: str) -> None:
    assert when.parse_stage(f"x({value})").positional == (Scalar(value),)
    assert when.parse_stage(f"x(k={value})").keywords == (Keyword("k", Scalar(value)),)


def test_true_is_read_in_both_spellings_but_stays_as_it_is_in_quotes() -> None:
    assert when.parse_stage("x(true, True, 'True')").positional == (
        Scalar("true"),
        Scalar("true"),
        Scalar("True"),
    )


def test_quotes_may_hold_what_would_end_them() -> None:
    stage = when.parse_stage(r"""x('it\'s', "a \"b\" \\", 'c, )')""")
    assert [one.text for one in stage.positional if isinstance(one, Scalar)] == ["it's", 'a "b" \\', "c, )"]


def test_a_name_may_be_qualified_by_its_distribution() -> None:
    stage = when.parse_stage("slow: emptcp-actor-record:record(rtt)")
    assert (stage.label, stage.name) == ("slow", "emptcp-actor-record:record")


def test_a_stage_without_arguments_needs_no_parentheses() -> None:
    assert when.parse_stage("drop") == when.parse_stage("drop()")


def test_goto_names_a_chain() -> None:
    assert when.parse_step("goto slow-lane") == Goto("slow-lane")


def test_64_parentheses_are_read_and_65_are_not() -> None:
    assert when.parse("(" * 64 + "a" + ")" * 64) == A
    with pytest.raises(EmptcpError, match="nested over 64 deep"):
        when.parse("(" * 65 + "a" + ")" * 65)


def test_nesting_counts_not_as_well_and_never_exhausts_the_stack() -> None:
    with pytest.raises(EmptcpError, match="nested over 64 deep"):
        when.parse("not " * 100_000 + "a")


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("", 1, "expected a selector, found the end"),
        ("a and", 6, "expected a selector"),
        ("a b", 3, "expected 'and', 'or' or the end, found 'b'"),
        ("a AND b", 3, "did you mean 'and'"),
        ("a & b", 3, "Write 'and' instead"),
        ("a || b", 3, "Write 'or' instead"),
        ("a == b", 3, "parentheses: name(key=value)"),
        ("a)", 2, "open a parenthesis"),
        ("(a or b", 8, "expected ')' for the parenthesis at column 1"),
        ("a(", 2, "the parenthesis of 'a' is never closed"),
        ("a(1", 2, "the parenthesis of 'a' is never closed"),
        ("a(1 2)", 5, "expected ',' or ')' in the arguments of 'a'"),
        ("a(1,)", 5, "expected a value, found ')'"),
        ("a(b=1, 2)", 8, "follows a named one"),
        ("a(b=1, b=2)", 8, "parameter 'b' is given twice"),
        ("a('x)", 3, "the quote ' is never closed"),
        (r"a('x\n')", 5, "backslash"),
        ("a([1, [2]])", 7, "expected a value"),
        ("a.b(1)", 1, "'a.b' can't be a selector"),
        ("1a", 1, "can't be a selector"),
        ("not in @x", 5, "expected a selector"),
        ("lambda x: y", 8, "expected 'and', 'or' or the end"),
        ("__import__('os').system('x')", 17, "expected 'and', 'or' or the end"),
        ("a in bulk", 6, "Write KEY in @SET"),
        ("a in @", 7, "expected the name of a set"),
        ("-:a", 1, "no name of a distribution"),
        ("a\nand\n  §", "line 3, column 3", "has no meaning here"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_what_to_write(text: str, column: int | str, words: str) -> None:
    with pytest.raises(EmptcpError) as caught:
        when.parse(text)
    assert words in str(caught.value)
    assert caught.value.where == (column if isinstance(column, str) else f"column {column}")


def test_two_actors_in_one_entry_are_refused() -> None:
    with pytest.raises(EmptcpError, match="one actor per entry"):
        when.parse_step("a() b()")


def test_every_part_of_a_stage_knows_its_place() -> None:
    expression = when.parse("a and b(x=1)")
    assert isinstance(expression, And)
    stage = model.selectors(expression)[1]
    assert str(stage.where) == "column 7"
    assert str(stage.keywords[0].where) == "column 9"
    assert str(stage.keywords[0].value.where) == "column 11"
