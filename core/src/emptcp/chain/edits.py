# SPDX-License-Identifier: Apache-2.0
"""Changes of a running table, as functions from its model to another: tune, insert, take out.

A stage is named by its label, by its name (``record``, ``record#2``), or by its number from 1, selectors
first, as `emptcp list` prints them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from emptcp.chain import tables
from emptcp.chain.bind import stage_ids
from emptcp.errors import EmptcpError, did_you_mean, quoted
from emptcp.plugins.catalog import Catalog
from emptcp.policy import check, file, model, when

Edit = Callable[[model.Table], model.Table]
_Parsed = TypeVar("_Parsed")


def locate(text: str) -> tuple[str, str]:
    """Return table and policy of ``POLICY`` or ``TABLE/POLICY``.

    Raises :class:`EmptcpError` when no table has it, or several have.
    """
    known = [(entry.table, policy.name) for entry in tables.entries() for policy in _policies(entry)]
    found = [pair for pair in known if text in (pair[1], "/".join(pair))]
    if len(found) == 1:
        return found[0]
    if found:
        places = " and ".join("/".join(pair) for pair in found)
        raise EmptcpError(f"policy {quoted(text)} is in several tables", fix=f"Write one of {places}.")
    near = did_you_mean(text, [name for pair in known for name in (pair[1], "/".join(pair))])
    raise EmptcpError(f"there is no running policy {quoted(text)}", fix=near or "See: emptcp list")


def tune(policy: str, words: Sequence[str]) -> Edit:
    """Return what gives a stage new values (``STAGE key=value ..``), or a policy a new ``when=..``."""
    if words[0].startswith("when="):
        if len(words) > 1:
            raise EmptcpError("the expression must be one word of the shell", fix="Quote it: when='..'")
        expression = _read("when", words[0].removeprefix("when="), when.parse)
        return _on(policy, lambda table, one: _with(table, replace(one, when=expression)))
    if len(words) == 1:
        raise EmptcpError(
            f"there is nothing to change about stage {quoted(words[0])}", fix="Add key=value, as in: on=false"
        )
    stage, *pairs = words
    return _on(policy, lambda table, one: _tuned(table, one, stage, [_keyword(pair) for pair in pairs]))


def insert(policy: str, actor: str, at: int) -> Edit:
    """Return what puts an actor at place ``at`` (from 1; 0: the end) of a policy's chain."""
    spec = when.parse_stage(actor)

    def edit(table: model.Table, one: model.Policy) -> model.Table:
        count = len(one.do)
        if not 0 <= at <= count + 1:
            raise EmptcpError(
                f"policy {quoted(policy)} has {count} actors, so none can come to place {at}",
                fix=f"Choose a place from 1 to {count + 1}.",
            )
        place = at - 1 if at else count
        return _with(table, replace(one, do=(*one.do[:place], spec, *one.do[place:])))

    return _on(policy, edit)


def take_out(policy: str, stage: str) -> Edit:
    """Return what takes an actor out of a policy's chain."""

    def edit(table: model.Table, one: model.Policy) -> model.Table:
        number = _number(table, one, stage)
        if number < len(list(model.leaves(one.when))):
            raise EmptcpError(
                f"{quoted(stage)} is a selector of policy {quoted(policy)}, not an actor",
                fix=f"Change the expression: emptcp tune {policy} when='..'",
            )
        return _replaced(table, one, number, None)

    return _on(policy, edit)


def _on(policy: str, edit: Callable[[model.Table, model.Policy], model.Table]) -> Edit:
    def change(table: model.Table) -> model.Table:
        one = next(found for found in table.policies if found.name == policy)
        changed = edit(table, one)
        check.check(changed)
        return changed

    return change


def _with(table: model.Table, policy: model.Policy) -> model.Table:
    policies = (policy if one.name == policy.name else one for one in table.policies)
    return replace(table, policies=tuple(policies))


def _tuned(
    table: model.Table, policy: model.Policy, stage: str, keywords: Sequence[model.Keyword]
) -> model.Table:
    number = _number(table, policy, stage)
    spec = stage_ids(table, policy)[number][1]
    if isinstance(spec, model.InSet):
        fix = f"Change the set: emptcp set add {table.name}/{spec.set} ENTRY"
        raise EmptcpError(f"stage {quoted(stage)} has no parameters: it asks a set", fix=fix)
    catalog = Catalog.of_enabled()
    given = {keyword.name: keyword for keyword in _named(spec, catalog)}
    given |= {keyword.name: keyword for keyword in keywords}
    changed = replace(spec, positional=(), keywords=tuple(given.values()))
    catalog.bind(changed)
    return _replaced(table, policy, number, changed)


def _named(spec: model.StageSpec, catalog: Catalog) -> Sequence[model.Keyword]:
    """Return the arguments of a stage, each by its name."""
    if not spec.positional:
        return spec.keywords
    return [model.Keyword(name, value) for name, value in catalog.bind(spec).arguments.items()]


def _keyword(pair: str) -> model.Keyword:
    name, equals, value = pair.partition("=")
    if not equals or not name.isidentifier():
        raise EmptcpError(
            f"{quoted(pair)} is no parameter with a value", fix="Write key=value, as in: on=false"
        )
    return model.Keyword(name, _read(name, value, when.parse_argument))


def _read(name: str, text: str, parse: Callable[[str], _Parsed]) -> _Parsed:
    """Parse a word of the command line; an error tells which one."""
    try:
        return parse(text)
    except EmptcpError as error:
        where = f"{name}=, {error.where}" if error.where else f"{name}="
        raise EmptcpError(error.sentence, fix=error.fix, where=where) from None


def _number(table: model.Table, policy: model.Policy, stage: str) -> int:
    """Return the place, from 0, of a stage named by label, name or number."""
    names = [name for name, _ in stage_ids(table, policy)]
    if stage in names:
        return names.index(stage)
    if stage.isdecimal() and 1 <= int(stage) <= len(names):
        return int(stage) - 1
    near = did_you_mean(stage, names).capitalize()
    raise EmptcpError(
        f"policy {quoted(policy.name)} has no stage {quoted(stage)}",
        fix=near or f"It has: {', '.join(names)}.",
    )


def _replaced(
    table: model.Table, policy: model.Policy, number: int, stage: model.StageSpec | None
) -> model.Table:
    """Put another stage in place of a policy's stage, or (actors) take it out."""
    selectors = len(list(model.leaves(policy.when)))
    if number < selectors:
        assert stage is not None
        assert policy.when is not None
        return _with(table, replace(policy, when=_leaf(policy.when, iter(range(selectors)), number, stage)))
    place = number - selectors
    own = [step for step in policy.do if isinstance(step, model.StageSpec)]
    if place < len(own):
        return _with(table, replace(policy, do=_put(policy.do, place, stage)))
    return _in_chain(table, policy.do[-1], place - len(own), stage)


def _in_chain(table: model.Table, last: model.Step, place: int, stage: model.StageSpec | None) -> model.Table:
    """Change a stage of the named chain that a ``do`` ends in."""
    assert isinstance(last, model.Goto)
    chain = table.chain(last.chain)
    own = [step for step in chain.do if isinstance(step, model.StageSpec)]
    if place >= len(own):
        return _in_chain(table, chain.do[-1], place - len(own), stage)
    changed = replace(chain, do=_put(chain.do, place, stage))
    return replace(table, chains=tuple(changed if one.name == chain.name else one for one in table.chains))


def _put(do: tuple[model.Step, ...], place: int, stage: model.StageSpec | None) -> tuple[model.Step, ...]:
    return (*do[:place], *([stage] if stage is not None else []), *do[place + 1 :])


def _leaf(
    node: model.Expression, numbers: Iterator[int], wanted: int, stage: model.StageSpec
) -> model.Expression:
    """Return the expression with another selector in place of the one with the wanted number."""
    if isinstance(node, model.And | model.Or):
        return replace(node, children=tuple(_leaf(one, numbers, wanted, stage) for one in node.children))
    if isinstance(node, model.Not):
        return model.Not(_leaf(node.child, numbers, wanted, stage))
    return model.Select(stage) if next(numbers) == wanted else node


def _policies(entry: tables.Entry) -> tuple[model.Policy, ...]:
    return file.loads(entry.text, entry.source or entry.table).policies
