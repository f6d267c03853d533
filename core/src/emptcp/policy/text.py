# SPDX-License-Identifier: Apache-2.0
"""The model as text, which :mod:`emptcp.policy.file` reads back to the same model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from emptcp.policy import model, values
from emptcp.policy.tokens import WORD, quote

_AMBIGUOUS = ("True", "False")
"""Words that mean something else without quotes."""


def argument_text(argument: model.Argument) -> str:
    """Return an argument as it is written in a stage."""
    if isinstance(argument, model.Scalar):
        return _scalar(argument.text)
    if isinstance(argument, model.FromMap):
        return f"{argument.key} @{argument.map}"
    return "[" + ", ".join(_scalar(item.text) for item in argument.items) + "]"


def stage_text(stage: model.StageSpec) -> str:
    """Return a stage as it is written, label included: ``slow: set_backup(on=true)``."""
    arguments = [argument_text(argument) for argument in stage.positional]
    arguments += (f"{keyword.name}={argument_text(keyword.value)}" for keyword in stage.keywords)
    label = f"{stage.label}: " if stage.label else ""
    return f"{label}{stage.name}({', '.join(arguments)})"


def step_text(step: model.Step) -> str:
    """Return an entry of a ``do``."""
    return f"goto {step.chain}" if isinstance(step, model.Goto) else stage_text(step)


def expression_text(expression: model.Expression) -> str:
    """Return an expression with the parentheses it needs and no others."""
    if isinstance(expression, model.Or):
        return " or ".join(_operand(child) for child in expression.children)
    if isinstance(expression, model.And):
        return " and ".join(_operand(child) for child in expression.children)
    if isinstance(expression, model.Not):
        return f"not {_operand(expression.child)}"
    if isinstance(expression, model.InSet):
        return f"{expression.key} in @{expression.set}"
    return stage_text(expression.stage)


def table_text(table: model.Table) -> str:
    """Return a policy file that says what ``table`` says."""
    return "\n".join(_lines(table))


def toml_string(text: str) -> str:
    """Return ``text`` as a basic string of TOML."""
    escaped = "".join(_toml_character(character) for character in text)
    return f'"{escaped}"'


def _scalar(text: str) -> str:
    # A word that ends in a colon would be read back as it is, and yet look like a label.
    bare = WORD.fullmatch(text) and text not in _AMBIGUOUS and not text.endswith(":")
    return text if bare else quote(text)


def _operand(expression: model.Expression) -> str:
    text = expression_text(expression)
    return f"({text})" if isinstance(expression, model.And | model.Or) else text


def _toml_character(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if character < " " or character == "\x7f":
        return f"\\u{ord(character):04x}"
    return character


def _lines(table: model.Table) -> Iterator[str]:
    yield f"table = {toml_string(table.name)}"
    if table.requires:
        yield f"requires = {_strings(map(str, table.requires))}"
    if table.guard_window is not None:
        yield f"guard_window = {toml_string(values.of('time').format(table.guard_window))}"
    if table.engine != "fused":
        yield 'engine = "tail"'
    if table.carrier != "per-cpu":
        yield f"tail.carrier = {toml_string(table.carrier)}"
    if table.exact:
        yield "exact = true"
    for policy in table.policies:
        yield from _policy(policy)
    for chain in table.chains:
        yield from ("", f"[chain.{chain.name}]", f"do = {_strings(map(step_text, chain.do))}")
    for one in table.sets:
        yield from _set(one)
    for one_map in table.maps:
        yield from _map(one_map)
    for path in table.paths:
        yield from _path(path)
    for controller in table.controllers:
        yield from _controller(controller)
    yield ""


def _policy(policy: model.Policy) -> Iterator[str]:
    yield from ("", "[[policy]]", f"name = {toml_string(policy.name)}")
    yield f"hook = {_strings(policy.hooks)}"
    yield f"dev = {_strings(policy.devices)}"
    if policy.netns is not None:
        yield f"netns = {toml_string(policy.netns)}"
    if policy.backend != "auto":
        yield f"backend = {toml_string(policy.backend)}"
    yield from (f"{key} = true" for key in ("optional", "unsafe") if getattr(policy, key))
    if policy.when is not None:
        yield f"when = {toml_string(expression_text(policy.when))}"
    yield f"do = {_strings(map(step_text, policy.do))}"


def _set(one: model.Set) -> Iterator[str]:
    yield from ("", f"[set.{one.name}]", f"key = {toml_string(one.key)}")
    yield from _table_settings(one)
    if one.entries is not None:
        yield from _entries(map(toml_string, one.entries))


def _map(one: model.Map) -> Iterator[str]:
    yield from ("", f"[map.{one.name}]", f"key = {toml_string(one.key)}", f"type = {toml_string(one.type)}")
    yield from _table_settings(one)
    if one.entries is not None:
        pairs = [f"{toml_string(key)} = {toml_string(value)}" for key, value in one.entries]
        yield from ("", f"[map.{one.name}.entries]", *pairs) if pairs else ("entries = {}",)


def _entries(entries: Iterable[str]) -> Iterator[str]:
    """Yield a list with a line for each entry: there may be many, and `diff` compares lines."""
    lines = [f"  {entry}," for entry in entries]
    yield from ("entries = [", *lines, "]") if lines else ("entries = []",)


def _table_settings(one: model.Set | model.Map) -> Iterator[str]:
    yield f"size = {one.size}"
    if one.timeout:
        yield f"timeout = {toml_string(values.of('time').format(one.timeout))}"
    if one.lru:
        yield "lru = true"


def _path(path: model.Path) -> Iterator[str]:
    yield from ("", f"[path.{path.name}]")
    for key, found in (("dev", path.devices), ("links", path.links)):
        if found:
            yield f"{key} = {_strings(found)}"
    for key in ("local", "rate", "cost", "quota"):
        if getattr(path, key):
            yield f"{key} = {toml_string(getattr(path, key))}"


def _controller(controller: model.Controller) -> Iterator[str]:
    yield from ("", "[[controller]]", f"name = {toml_string(controller.name)}")
    yield f"use = {toml_string(controller.use)}"
    if controller.when is not None:
        yield f"when = {toml_string(expression_text(controller.when))}"
    if controller.paths:
        yield f"paths = {_strings(controller.paths)}"
    if controller.netns is not None:
        yield f"netns = {toml_string(controller.netns)}"
    if controller.interval:
        yield f"interval = {toml_string(controller.interval)}"
    if controller.steers != "us":
        yield f"steers = {toml_string(controller.steers)}"
    if controller.on_failure != "keep":
        yield f"on_failure = {toml_string(controller.on_failure)}"
    if controller.parameters:
        pairs = (f"{toml_string(one.name)} = {_own(one.value)}" for one in controller.parameters)
        yield "with = { " + ", ".join(pairs) + " }"


def _own(argument: model.Argument) -> str:
    if isinstance(argument, model.Listing):
        return _strings(item.text for item in argument.items)
    return toml_string(argument.text if isinstance(argument, model.Scalar) else argument_text(argument))


def _strings(texts: Sequence[str] | Iterator[str]) -> str:
    return "[" + ", ".join(map(toml_string, texts)) + "]"
