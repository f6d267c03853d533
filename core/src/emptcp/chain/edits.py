# SPDX-License-Identifier: Apache-2.0
"""Changes of a running table, as functions from its model to another: tune, insert, replace, take out.

They name what stages stand in: a policy, ``POLICY`` or ``TABLE/POLICY``, or a named chain, ``@CHAIN`` or
``TABLE/@CHAIN``. A stage is named by its label, by its name (``record``, ``record#2``), or by its number from
1, selectors first, as `emptcp list` prints them; a policy's name also reaches the stages of the chains that
it comes to, as ``@chain/record``.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from emptcp.chain import tables
from emptcp.chain.bind import stage_ids, stage_ids_of_chain
from emptcp.errors import EmptcpError, did_you_mean, quoted
from emptcp.plugins.catalog import Catalog
from emptcp.policy import check, expressions, file, model, values, when

Edit = Callable[[model.Table], model.Table]
_Parsed = TypeVar("_Parsed")


def locate(text: str) -> tuple[str, str]:
    """Return the table and the name of a policy or (``@chain``) a named chain.

    Raises :class:`EmptcpError` when no table has it, or several have.
    """
    known = [(entry.table, name) for entry in tables.entries() for name in _homes(entry)]
    found = [pair for pair in known if text in (pair[1], "/".join(pair))]
    if len(found) == 1:
        return found[0]
    what = "chain" if text.rpartition("/")[2].startswith("@") else "policy"
    if found:
        places = " and ".join("/".join(pair) for pair in found)
        raise EmptcpError(f"{what} {quoted(text)} is in several tables", fix=f"Write one of {places}.")
    near = did_you_mean(text, [name for pair in known for name in (pair[1], "/".join(pair))])
    raise EmptcpError(f"there is no running {what} {quoted(text)}", fix=near or "See: emptcp list")


def tune(home: str, words: Sequence[str]) -> Edit:
    """Return what gives a stage new values (``STAGE key=value ..``), or a policy a new ``when=..``.

    An empty expression selects every MPTCP packet.
    """
    if words[0].startswith("when="):
        return _tune_when(home, words)
    if len(words) == 1:
        raise EmptcpError(
            f"there is nothing to change about stage {quoted(words[0])}", fix="Add key=value, as in: on=false"
        )
    stage, *pairs = words
    return _on(home, lambda table: _tuned(table, home, stage, [_keyword(pair) for pair in pairs]))


def insert(home: str, text: str, at: int = 0, before: str = "", after: str = "") -> Edit:
    """Return what puts a stage into a policy or a named chain.

    ``text`` is an actor, or ``and`` or ``or`` and an expression. An actor comes to place ``at`` among the
    actors (from 1; 0: the end), or beside another one; an expression is joined to a selector, or to all.
    """
    word, _, rest = text.partition(" ")
    if word in ("and", "or"):
        return _on(home, lambda table: _joined(table, home, word, rest, at, before, after))
    return _on(home, lambda table: _inserted(table, home, when.parse_stage(text), at, before, after))


def replace_stage(home: str, stage: str, text: str) -> Edit:
    """Return what puts another stage in the place of one: a selector, ``KEY in @SET``, or an actor."""

    def edit(table: model.Table) -> model.Table:
        found = _find(table, home, stage)
        if found.is_selector:
            return _with_when(
                table, found, expressions.replaced(_when(table, found), found.place, when.parse(text))
            )
        return _with_do(table, found, _put(_do(table, found.home), found.place, when.parse_stage(text)))

    return _on(home, edit)


def take_out(home: str, stage: str) -> Edit:
    """Return what takes a selector or an actor out. A ``not`` goes with its selector."""

    def edit(table: model.Table) -> model.Table:
        found = _find(table, home, stage)
        if not found.is_selector:
            return _with_do(table, found, _put(_do(table, found.home), found.place, None))
        rest = expressions.without(_when(table, found), found.place)
        if rest is None:
            raise EmptcpError(
                f"{quoted(stage)} is the only selector of policy {quoted(found.home)}, which would select "
                "every MPTCP packet without it",
                fix=f"If that is meant: emptcp tune {shlex.quote(found.home)} when=",
            )
        return _with_when(table, found, rest)

    return _on(home, edit)


def _on(home: str, edit: Edit) -> Edit:
    def change(table: model.Table) -> model.Table:
        changed = edit(table)
        check.check(changed)
        return changed

    return change


# Stages in their places


@dataclass(frozen=True)
class _Found:
    """A stage in its policy or (``@chain``) named chain; ``place`` is among the selectors or the actors."""

    home: str
    is_selector: bool
    place: int
    spec: model.StageSpec | model.InSet


def _find(table: model.Table, home: str, stage: str) -> _Found:
    """Return where a stage is, named by label, name or number."""
    known = _stages(table, home)
    names = list(known)
    if stage in known:
        return known[stage]
    if stage.isdecimal() and 1 <= int(stage) <= len(names):
        return known[names[int(stage) - 1]]
    near = did_you_mean(stage, names).capitalize()
    raise EmptcpError(
        f"{_title(home)} has no stage {quoted(stage)}",
        fix=near or f"It has: {', '.join(names)}.",
    )


def _stages(table: model.Table, home: str) -> dict[str, _Found]:
    """Return all stages of a policy or a named chain by their names."""
    if home.startswith("@"):
        return _places(home, stage_ids_of_chain(_chain(table, home)), 0)
    policy = _policy(table, home)
    ids = stage_ids(table, policy, Catalog.of_enabled())
    own = [(name, spec) for name, spec in ids if "/" not in name]
    found = _places(home, own, len(list(model.leaves(policy.when))))
    for chain in dict.fromkeys(name.partition("/")[0] for name, _ in ids if "/" in name):
        theirs = _places(chain, stage_ids_of_chain(_chain(table, chain)), 0)
        found |= {f"{chain}/{name}": one for name, one in theirs.items()}
    return found


def _places(
    home: str, ids: Sequence[tuple[str, model.StageSpec | model.InSet]], selectors: int
) -> dict[str, _Found]:
    return {
        name: _Found(home, place < selectors, place if place < selectors else place - selectors, spec)
        for place, (name, spec) in enumerate(ids)
    }


def _title(home: str) -> str:
    return f"chain {quoted(home[1:])}" if home.startswith("@") else f"policy {quoted(home)}"


def _policy(table: model.Table, name: str) -> model.Policy:
    return next(one for one in table.policies if one.name == name)


def _chain(table: model.Table, home: str) -> model.Chain:
    return table.chain(home[1:])


def _do(table: model.Table, home: str) -> tuple[model.Step, ...]:
    return (_chain(table, home) if home.startswith("@") else _policy(table, home)).do


def _when(table: model.Table, found: _Found) -> model.Expression:
    expression = _policy(table, found.home).when
    assert expression is not None
    return expression


def _with(table: model.Table, policy: model.Policy) -> model.Table:
    policies = (policy if one.name == policy.name else one for one in table.policies)
    return replace(table, policies=tuple(policies))


def _with_when(table: model.Table, found: _Found, expression: model.Expression | None) -> model.Table:
    return _with(table, replace(_policy(table, found.home), when=expression))


def _with_do(table: model.Table, found: _Found, do: tuple[model.Step, ...]) -> model.Table:
    return _with_steps(table, found.home, do)


def _with_steps(table: model.Table, home: str, do: tuple[model.Step, ...]) -> model.Table:
    if not do:
        raise EmptcpError(f"{_title(home)} would have no actor left", fix="Remove it as a whole instead.")
    if not home.startswith("@"):
        return _with(table, replace(_policy(table, home), do=do))
    changed = replace(_chain(table, home), do=do)
    return replace(table, chains=tuple(changed if one.name == home[1:] else one for one in table.chains))


def _put(do: tuple[model.Step, ...], place: int, stage: model.StageSpec | None) -> tuple[model.Step, ...]:
    return (*do[:place], *([stage] if stage is not None else []), *do[place + 1 :])


# Changes


def _inserted(
    table: model.Table, home: str, spec: model.StageSpec, at: int, before: str, after: str
) -> model.Table:
    where = home
    if before or after:
        beside = _find(table, home, before or after)
        if beside.is_selector:
            raise EmptcpError(
                f"{quoted(before or after)} is a selector of {_title(home)}, no neighbour for an actor",
                fix="Name an actor, or leave --before and --after out.",
            )
        where, place = beside.home, beside.place + bool(after)
    else:
        count = sum(isinstance(step, model.StageSpec) for step in _do(table, home))
        if not 0 <= at <= count + 1:
            raise EmptcpError(
                f"{_title(home)} has {count} actors, so none can come to place {at}",
                fix=f"Choose a place from 1 to {count + 1}.",
            )
        place = at - 1 if at else count
    do = _do(table, where)
    return _with_steps(table, where, (*do[:place], spec, *do[place:]))


def _joined(
    table: model.Table, home: str, word: str, text: str, at: int, before: str, after: str
) -> model.Table:
    new = when.parse(text)
    if home.startswith("@") or at:
        fix = "Name a policy." if home.startswith("@") else "Use --before or --after for a selector."
        raise EmptcpError(f"{quoted(f'{word} {text}')} has no such place in {_title(home)}", fix=fix)
    policy = _policy(table, home)
    if policy.when is None:
        if word == "or":
            raise EmptcpError(f"{_title(home)} selects every packet already", fix="Use 'and' to narrow it.")
        return _with(table, replace(policy, when=new))
    number = None
    if before or after:
        beside = _find(table, home, before or after)
        if not beside.is_selector:
            raise EmptcpError(
                f"{quoted(before or after)} is an actor of {_title(home)}, and {word!r} joins selectors",
                fix="Name a selector, or leave --before and --after out.",
            )
        number = beside.place
    changed = expressions.joined(policy.when, number, word, new, before=bool(before))
    return _with(table, replace(policy, when=changed))


def _tune_when(home: str, words: Sequence[str]) -> Edit:
    if len(words) > 1:
        raise EmptcpError("the expression must be one word of the shell", fix="Quote it: when='..'")
    if home.startswith("@"):
        raise EmptcpError(f"{_title(home)} selects nothing itself", fix="Tune a policy that goes to it.")
    written = words[0].removeprefix("when=")
    expression = _read("when", written, when.parse) if written.strip() else None
    return _on(home, lambda table: _with(table, replace(_policy(table, home), when=expression)))


def _tuned(table: model.Table, home: str, stage: str, keywords: Sequence[model.Keyword]) -> model.Table:
    found = _find(table, home, stage)
    if isinstance(found.spec, model.InSet):
        fix = f"Change the set: emptcp set add {table.name}/{found.spec.set} ENTRY"
        raise EmptcpError(f"stage {quoted(stage)} has no parameters: it asks a set", fix=fix)
    catalog = Catalog.of_enabled()
    given = {keyword.name: keyword for keyword in _named(found.spec, catalog)}
    given |= {keyword.name: keyword for keyword in keywords}
    changed = replace(found.spec, positional=(), keywords=tuple(given.values()))
    catalog.bind(changed, devices=values.any_device)
    if found.is_selector:
        return _with_when(
            table, found, expressions.replaced(_when(table, found), found.place, model.Select(changed))
        )
    return _with_do(table, found, _put(_do(table, found.home), found.place, changed))


def _named(spec: model.StageSpec, catalog: Catalog) -> Sequence[model.Keyword]:
    """Return the arguments of a stage, each by its name."""
    if not spec.positional:
        return spec.keywords
    bound = catalog.bind(spec, devices=values.any_device)
    return [model.Keyword(name, value) for name, value in bound.arguments.items()]


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


def _homes(entry: tables.Entry) -> list[str]:
    table = file.loads(entry.text, entry.source or entry.table)
    return [*(policy.name for policy in table.policies), *(f"@{chain.name}" for chain in table.chains)]
