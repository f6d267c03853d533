# SPDX-License-Identifier: Apache-2.0
"""What must hold between the parts of one table, whether it came from a file or from Python.

Every function raises :class:`EmptcpError` at the first thing that does not hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TypeVar

from emptcp.errors import EmptcpError, did_you_mean, quoted
from emptcp.policy import model, values
from emptcp.policy.place import NOWHERE, Place
from emptcp.policy.tokens import DECLARED_NAME, DISTRIBUTION, NAME, RESERVED

LONGEST_NAME = 64
"""Characters of the longest name of a table or a policy."""

LONGEST_CONTROLLER = 48
"""The same of a controller, whose policies and maps are named after it."""

SHORTEST, LONGEST = 10_000_000, 3600 * 10**9
"""Nanoseconds between two ticks of a controller."""

LARGEST_TABLE = 1 << 24
"""Most entries that a set or a map may be declared with."""

LONGEST_GUARD_WINDOW = 86400
"""Seconds that a new table may be watched for harm."""

_TABLE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_DEVICE = re.compile(r"[^\s/:]{1,15}")
"""What the kernel takes as a name (``dev_valid_name``); glob characters are within it."""

_AnyDeclared = model.Chain | model.Set | model.Map | model.Path
_Declared = TypeVar("_Declared", model.Chain, model.Set, model.Map, model.Path)


def check(table: model.Table) -> None:
    """Check a whole table."""
    _table_name(table)
    _choice("engine", table.engine, (*model.ENGINES, model.TAIL_METADATA), "the table", Place(table.source))
    _once("policy", ((policy.name, policy.where) for policy in table.policies))
    _once("controller", ((controller.name, controller.where) for controller in table.controllers))
    for group in (table.chains, table.sets, table.maps, table.paths):
        _declared_names(group)
    for one in table.sets:
        _key_and_size(one)
    for one_map in table.maps:
        _key_and_size(one_map)
    for chain in table.chains:
        _chain(table, f"chain {quoted(chain.name)}", chain.do, chain.where)
        _no_circle(table, chain)
    for policy in table.policies:
        _policy(table, policy)
    for controller in table.controllers:
        _controller(table, controller)
    for path in table.paths:
        _path(path)


def check_guard_window(window: int, where: Place = NOWHERE) -> None:
    """Check how long a new table is to be watched, in nanoseconds."""
    if window and not 10**9 <= window <= LONGEST_GUARD_WINDOW * 10**9:
        fix = "Write a time from 1s to 24h, or 0s to watch not at all."
        raise _error("'guard_window' is out of range", fix, where)


def _table_name(table: model.Table) -> None:
    if not _TABLE_NAME.fullmatch(table.name) or len(table.name) > LONGEST_NAME:
        fix = f"Use letters, digits and _.-, at most {LONGEST_NAME}."
        raise EmptcpError(f"{quoted(table.name)} can't be the name of a table", fix=fix, where=table.source)


def _policy(table: model.Table, policy: model.Policy) -> None:
    what = f"policy {quoted(policy.name)}"
    if not policy.name.strip() or len(policy.name) > LONGEST_NAME or not policy.name.isprintable():
        fix = f"Use 1 to {LONGEST_NAME} printable characters."
        raise _error(f"{quoted(policy.name)} can't be the name of a policy", fix, policy.where)
    _devices(what, policy)
    _choice("backend", policy.backend, model.BACKENDS, what, policy.where)
    _expression(table, what, policy.when, policy.where)
    _chain(table, what, policy.do, policy.where)
    stages = (*model.selectors(policy.when), *model.actors(table, policy.do))
    _once("label", ((stage.label, stage.where) for stage in stages if stage.label), f" in {what}")


def _devices(what: str, policy: model.Policy) -> None:
    if not policy.hooks:
        raise _error(f"{what} names no hook", "Name ingress or egress.", policy.where)
    for hook in policy.hooks:
        _choice("hook", hook, model.HOOKS, what, policy.where)
    _once("hook", ((hook, policy.where) for hook in policy.hooks), f" in {what}")
    if not policy.devices:
        raise _error(f"{what} names no device", 'Name one, as in dev = "eth0".', policy.where)
    for device in policy.devices:
        if not _DEVICE.fullmatch(device) or device in (".", ".."):
            fix = "A device's name or glob has 1 to 15 characters, none of them space, / or :."
            raise _error(f"{quoted(device)} in {what} can't be the name of a device", fix, policy.where)


def _expression(table: model.Table, what: str, when: model.Expression | None, where: Place) -> None:
    if when is None:
        return
    if nesting(when) > model.NESTING:
        fix = "Write it flatter, or spread it over several policies."
        raise _error(f"the expression of {what} is nested over {model.NESTING} deep", fix, where)
    for leaf in model.leaves(when):
        if isinstance(leaf, model.InSet):
            _in_set(table, leaf)
        else:
            _stage(table, leaf.stage)


def nesting(expression: model.Expression) -> int:
    """Return how many parentheses and ``not`` enclose the deepest selector as the expression is written."""
    deepest, waiting = 0, [(expression, 0)]
    while waiting:
        node, depth = waiting.pop()
        deepest = max(deepest, depth)
        if isinstance(node, model.Not):
            inside = isinstance(node.child, model.And | model.Or)
            waiting.append((node.child, depth + 1 + inside))
        elif isinstance(node, model.And | model.Or):
            waiting += ((child, depth + isinstance(child, model.And | model.Or)) for child in node.children)
    return deepest


def _in_set(table: model.Table, leaf: model.InSet) -> None:
    found = _find("set", leaf.set, table.sets, leaf.where)
    if found.key != leaf.key:
        sentence = f"set {quoted(leaf.set)} has key {quoted(found.key)}, not {quoted(leaf.key)}"
        raise _error(sentence, f"Write {found.key} in @{leaf.set}.", leaf.where)


def _stage(table: model.Table, stage: model.StageSpec) -> None:
    """Check what the file's grammar makes sure of: a stage built in Python must be as writable."""
    distribution, colon, name = stage.name.rpartition(":")
    if colon and not DISTRIBUTION.fullmatch(distribution):
        fix = "Write NAME or DIST:NAME."
        raise _error(f"{quoted(distribution)} is no name of a distribution", fix, stage.where)
    for word in (name, *filter(None, [stage.label])):
        _word(word, stage.where)
    for keyword in stage.keywords:
        _word(keyword.name, keyword.where)
    _once("parameter", ((keyword.name, keyword.where) for keyword in stage.keywords))
    for argument in (*stage.positional, *(keyword.value for keyword in stage.keywords)):
        if isinstance(argument, model.FromMap):
            _find("map", argument.map, table.maps, argument.where)


def _word(name: str, where: Place) -> None:
    if not NAME.fullmatch(name) or name in RESERVED:
        fix = "A name has letters, digits and _, begins with no digit, and is no word of the language."
        raise _error(f"{quoted(name)} can't be a name", fix, where)


def _choice(key: str, value: str, allowed: Sequence[str], what: str, where: Place) -> None:
    if value not in allowed:
        fix = did_you_mean(value, allowed) or f"Write one of {', '.join(allowed)}."
        raise _error(f"'{key}' of {what} can't be {quoted(value)}", fix, where)


def _key_and_size(one: model.Set | model.Map) -> None:
    _word(one.key, one.where)
    if not 0 < one.size <= LARGEST_TABLE:
        fix = f"Write 1 to {LARGEST_TABLE}."
        raise _error(f"the size of {quoted(one.name)} is out of range", fix, one.where)


def _chain(table: model.Table, what: str, do: Sequence[model.Step], where: Place) -> None:
    if not do:
        raise _error(f"'do' of {what} is empty", "Put at least one actor into it.", where)
    for step in do[:-1]:
        if isinstance(step, model.Goto):
            fix = "Make it the last entry of 'do'."
            raise _error(f"nothing runs after 'goto' in {what}", fix, step.where)
    for step in do:
        if isinstance(step, model.Goto):
            _find("chain", step.chain, table.chains, step.where)
        else:
            _stage(table, step)


def _no_circle(table: model.Table, chain: model.Chain) -> None:
    """Refuse a chain that comes back to itself; gotos to unknown chains are refused elsewhere."""
    chains = {known.name: known for known in table.chains}
    seen, following = {chain.name}, chain.do[-1]
    while isinstance(following, model.Goto) and following.chain in chains:
        if following.chain in seen:
            fix = "Remove a goto: a chain must end."
            raise _error(f"chain {quoted(chain.name)} comes back to itself by 'goto'", fix, following.where)
        seen.add(following.chain)
        following = chains[following.chain].do[-1]


def _controller(table: model.Table, controller: model.Controller) -> None:
    what = f"controller {quoted(controller.name)}"
    if not DECLARED_NAME.fullmatch(controller.name) or len(controller.name) > LONGEST_CONTROLLER:
        fix = f"Use letters, digits, _ and -, with no digit first, at most {LONGEST_CONTROLLER}."
        raise _error(f"{quoted(controller.name)} can't be the name of a controller", fix, controller.where)
    _expression(table, what, controller.when, controller.where)
    _choice("steers", controller.steers, model.STEERED, what, controller.where)
    _choice("on_failure", controller.on_failure, model.ON_FAILURE, what, controller.where)
    _once("path", ((path, controller.where) for path in controller.paths), f" in {what}")
    for path in controller.paths:
        _find("path", path, table.paths, controller.where)
    if controller.interval and not SHORTEST <= values.of("time").parse(controller.interval) <= LONGEST:
        raise _error(f"the interval of {what} is out of range", "Write 10ms to 1h.", controller.where)


def _path(path: model.Path) -> None:
    for device in path.devices:
        if not _DEVICE.fullmatch(device) or device in (".", ".."):
            fix = "A device's name or glob has 1 to 15 characters, none of them space, / or :."
            raise _error(
                f"{quoted(device)} in path '{path.name}' can't be the name of a device", fix, path.where
            )


def _declared_names(group: Sequence[_AnyDeclared]) -> None:
    for declared in group:
        if not DECLARED_NAME.fullmatch(declared.name) or len(declared.name) > LONGEST_NAME:
            fix = "Use letters, digits, _ and -, with no digit first."
            raise _error(f"{quoted(declared.name)} can't be a name here", fix, declared.where)


def _find(kind: str, name: str, declared: Iterable[_Declared], where: Place) -> _Declared:
    known = {one.name: one for one in declared}
    if name not in known:
        fix = did_you_mean(name, known) or f"Declare it as [{kind}.{name}]."
        raise _error(f"there is no {kind} {quoted(name)} in this table", fix, where)
    return known[name]


def _once(kind: str, names: Iterable[tuple[str, Place]], inside: str = "") -> None:
    seen: dict[str, Place] = {}
    for name, where in names:
        if name in seen:
            first = f" (first at {seen[name]})" if str(seen[name]) else ""
            sentence = f"{kind} {quoted(name)} is there twice{inside}{first}"
            raise _error(sentence, "Give each its own name.", where)
        seen[name] = where


def _error(sentence: str, fix: str, where: Place) -> EmptcpError:
    return EmptcpError(sentence, fix=fix, where=str(where))
