# SPDX-License-Identifier: Apache-2.0
"""The chain context says what the plan says, in the entries of the paper's Fig. 4."""

from __future__ import annotations

import dataclasses
import struct

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from emptcp.chain import context, layout
from emptcp.chain.context import Entry
from emptcp.chain.plan import END, BoundChain, BoundPolicy, FragmentRef, Plan, Stage, plan
from emptcp.errors import EmptcpError
from emptcp.policy import model


def stage(name: str, kind: str, packed: bytes = b"") -> Stage:
    return Stage(name, kind, name, name, FragmentRef("t", "t.bpf.o", name), packed)


CHAINS = ("one", "two", "three")


@st.composite
def ends(draw: st.DrawFn, prefix: str, later: tuple[str, ...], least: int) -> tuple[tuple[Stage, ...], str]:
    """Actors, some of which choose among the chains behind, and where their chain goes at its end."""
    goto = draw(st.sampled_from(["", *later]))
    actors = []
    for n in range(draw(st.integers(0 if goto else least, 3))):
        chosen = draw(st.lists(st.sampled_from(later), unique=True)) if later else []
        chains = tuple((CHAINS.index(name) + 1, name) for name in chosen)
        actors.append(dataclasses.replace(stage(f"{prefix}a{n}", "actor"), chains=chains))
    return tuple(actors), goto


@st.composite
def chains(draw: st.DrawFn) -> dict[str, BoundChain]:
    found = {}
    for number, name in enumerate(CHAINS):
        found[name] = BoundChain(name, *draw(ends(name, CHAINS[number + 1 :], 1)))
    return found


def reachable(actors: tuple[Stage, ...], goto: str, known: dict[str, BoundChain]) -> tuple[BoundChain, ...]:
    names = {goto, *(name for actor in actors for _, name in actor.chains)} - {""}
    for name in CHAINS:
        if name in names:
            names |= {one.name for one in reachable(known[name].actors, known[name].goto, known)}
    return tuple(known[name] for name in CHAINS if name in names)


@st.composite
def policies(draw: st.DrawFn) -> list[BoundPolicy]:
    found = []
    known = draw(chains())
    for number in range(draw(st.integers(1, 4))):
        names = [f"p{number}s{n}" for n in range(draw(st.integers(0, 4)))]
        expression: model.Expression | None = None
        for name in names:
            node: model.Expression = model.Select(model.StageSpec("selector", name))
            node = model.Not(node) if draw(st.booleans()) else node
            joiner = draw(st.sampled_from([model.And, model.Or]))
            expression = node if expression is None else joiner((expression, node))
        actors, goto = draw(ends(f"p{number}", CHAINS, 1))
        selectors = tuple(stage(name, "selector") for name in names)
        led = reachable(actors, goto, known)
        found.append(BoundPolicy("t", f"p{number}", expression, selectors, actors, goto=goto, chains=led))
    return found


Answers = dict[str, int]
"""Actor -> the chain that it chooses, 0: none, RETURN: it ends its policy."""

RETURN = 99


def by_plan(made: Plan, matches: dict[str, bool], answers: Answers) -> list[str]:
    """The stages that run, by the plan's edges."""
    ran: list[str] = []
    for policy in made.policies:
        index = policy.first
        while index != END:
            step = made.steps[index]
            ran.append(step.stage.name)
            answer = answers.get(step.stage.name, 0)
            if answer == RETURN:
                break
            index = step.if_match if matches.get(step.stage.name, True) else step.if_not
            index = dict(step.gotos).get(answer, index)
    return ran


def skipped(built: context.Context, place: int, at: Stage, matches: dict[str, bool], answer: int) -> int:
    entry, left = built.entries[place], built.about[place] >> 24
    if at.kind == "goto":
        return entry.value
    if at.kind == "selector":
        skip = entry.skip if matches[at.name] == entry.skip_on_match else 0
        return left if skip == context.TO_END else skip
    if answer == RETURN:
        return left
    chosen = built.distances[built.rows[place] + answer] if built.rows else 0
    return chosen - 1 if chosen else left if entry.skip_on_match else 0


def by_context(made: Plan, built: context.Context, matches: dict[str, bool], answers: Answers) -> list[str]:
    """The stages that run, by the entries alone, as the programs walk them."""
    ran: list[str] = []
    place, calls = 0, built.entries[0].next
    while calls != context.LAST:
        place += 1
        step = made.steps[place - 1]
        assert calls == place - 1
        ran.append(step.stage.name)
        place += skipped(built, place, step.stage, matches, answers.get(step.stage.name, 0))
        calls = built.entries[place].next
    return ran


@given(policies(), st.data())
def test_walking_the_entries_runs_the_stages_that_the_plan_runs(
    made: list[BoundPolicy], data: st.DataObject
) -> None:
    planned = plan("ingress", made)
    assume(context.depth(planned) <= context.MOST_CALLS)
    names = [step.stage.name for step in planned.steps if step.stage.kind == "selector"]
    matches = {name: data.draw(st.booleans()) for name in names}
    actors = {step.stage.name for step in planned.steps if step.stage.kind == "actor"}
    choices = st.sampled_from([0, 1, 2, 3, RETURN])
    answers = {name: data.draw(choices) for name in sorted(actors)}
    count = len(planned.steps)
    built = context.build(planned, lambda step: step.index, [None] * count, list(range(1, count + 1)))
    # Programs don't look up a number that no row has.
    for name, answer in answers.items():
        if answer != RETURN and answer >= context.width(planned):
            answers[name] = 0
    assert by_context(planned, built, matches, answers) == by_plan(planned, matches, answers)
    assert len(by_plan(planned, matches, answers)) <= context.depth(planned)


@given(st.integers(0, 255), st.integers(0, 2), st.booleans(), st.integers(0, 31), st.integers(0, 0xFFFF))
def test_an_entry_is_four_bytes_in_the_order_of_the_picture(
    following: int, kind: int, on_match: bool, skip: int, value: int
) -> None:
    entry = Entry(following, kind, on_match, skip, value)
    assert Entry.decode(entry.encode()) == entry
    first, _, last = struct.unpack("<BBH", struct.pack("<I", entry.encode()))
    assert (first, last) == (following, value)


def test_small_parameters_travel_in_the_entry_and_larger_ones_are_pointed_to() -> None:
    slot = layout.Slot(64, 4)
    assert context.parameters(struct.pack("<I", 0xFFFF), slot) == (context.IMMEDIATE, 0xFFFF)
    assert context.parameters(struct.pack("<I", 0x10000), slot) == (context.ADDRESS, 8)
    assert context.parameters(bytes(24), layout.Slot(72, 24)) == (context.ADDRESS, 9)
    assert context.parameters(b"", None) == (context.NOTHING, 0)
    small = Entry(7, context.IMMEDIATE, True, 3, 1).encode()
    assert (
        context.with_parameters(small, struct.pack("<I", 1 << 20), slot)
        == Entry(7, context.ADDRESS, True, 3, 8).encode()
    )


def test_a_chain_that_needs_more_tail_calls_than_a_kernel_makes_is_refused() -> None:
    actors = tuple(stage(f"a{n}", "actor") for n in range(context.MOST_CALLS + 1))
    long = plan("egress", [BoundPolicy("t", "p", None, (), actors)])
    with pytest.raises(EmptcpError, match="34 stages at egress"):
        context.build(long, lambda step: 0, [None] * 34, list(range(34)))
