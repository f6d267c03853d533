# SPDX-License-Identifier: Apache-2.0
"""Policies in Python; they give exactly the model that the file gives.

.. code-block:: python

    from emptcp.policy.build import Ingress, PacketType, Policy, Record, Set, SetBackup, Subflow, Table

    table = Table(
        "home",
        [
            Policy(
                "slow path is backup for bulk",
                Ingress("wwan*"),
                Subflow.isin("bulk") & ~PacketType("syn"),
                [Record("rtt", "bytes"), SetBackup(on=True)],
            )
        ],
        sets=[Set("bulk", key="subflow")],
    )

Selectors and actors have the names of the file in CamelCase: importing ``SetBackup`` gives what makes
stages of ``set_backup``. Whether there is such a plugin is asked later, as for a file. Join selectors by
``&``, ``|`` and ``~``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from emptcp.errors import EmptcpError, quoted
from emptcp.policy import model, requirement, values
from emptcp.policy.check import check, check_guard_window
from emptcp.policy.model import Goto, Path

_CAMEL = re.compile(r"(?:[A-Z][a-z0-9]*)+")


class Condition:
    """A selector expression. Conditions are joined by ``&``, ``|`` and ``~``."""

    def __init__(self, expression: model.Expression) -> None:
        self._expression = expression

    @property
    def expression(self) -> model.Expression:
        """The expression as the model has it."""
        return self._expression

    def __and__(self, other: Condition) -> Condition:
        return Condition(model.conjunction(self.expression, other.expression))

    def __or__(self, other: Condition) -> Condition:
        return Condition(model.disjunction(self.expression, other.expression))

    def __invert__(self) -> Condition:
        return Condition(model.Not(self.expression))

    def __bool__(self) -> NoReturn:
        fix = "Write & for and, | for or, ~ for not, with parentheses around each."
        raise EmptcpError("a selector is neither true nor false in Python", fix=fix)


class Stage(Condition):
    """A stage with its arguments: an actor where it stands in a chain, a selector in an expression."""

    def __init__(self, spec: model.StageSpec) -> None:
        super().__init__(model.Select(spec))
        self._spec = spec

    @property
    def actor(self) -> model.StageSpec:
        """The stage as an actor."""
        return replace(self._spec, kind="actor")

    def label(self, label: str) -> Stage:
        """Return the stage with a label, by which it is tuned later."""
        return Stage(replace(self._spec, label=label))


@dataclass(frozen=True)
class StageName:
    """The name of a selector, an actor or a key; calling it makes a stage."""

    name: str

    def __call__(self, *positional: Any, **keywords: Any) -> Stage:
        """Return a stage with these arguments, each as it is written in a file or as a Python value."""
        arguments = tuple(_argument(value) for value in positional)
        named = tuple(model.Keyword(name, _argument(value)) for name, value in keywords.items())
        return Stage(model.StageSpec("selector", self.name, arguments, named))

    def isin(self, name: str) -> Condition:
        """Return the condition that the packet's key is in a set: ``KEY in @set``."""
        return Condition(model.InSet(self.name, name))

    def value_in(self, name: str) -> model.FromMap:
        """Return an argument that is looked up in a map by this key: ``KEY @map``."""
        return model.FromMap(self.name, name)


def __getattr__(name: str) -> StageName:
    if _CAMEL.fullmatch(name) is None:
        raise AttributeError(f"module 'emptcp.policy.build' has no attribute '{name}'")
    return StageName(re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower())


@dataclass(frozen=True)
class Place:
    """Hooks and the devices on which a policy is attached there."""

    hooks: tuple[str, ...]
    devices: tuple[str, ...]


def Ingress(*devices: str) -> Place:
    """Return the ingress of devices, by names or globs."""
    return Place(("ingress",), devices)


def Egress(*devices: str) -> Place:
    """Return the egress of devices, by names or globs."""
    return Place(("egress",), devices)


def Both(*devices: str) -> Place:
    """Return ingress and egress of devices, by names or globs."""
    return Place(("ingress", "egress"), devices)


Do = Sequence[Stage | Goto] | Stage | Goto


def Policy(
    name: str,
    place: Place,
    when: Condition | None,
    do: Do,
    *,
    netns: str | int | None = None,
    backend: str = "auto",
    optional: bool = False,
    unsafe: bool = False,
) -> model.Policy:
    """Return a policy; it is checked when it is put into a :func:`Table`."""
    return model.Policy(
        name=name,
        table="",
        hooks=place.hooks,
        devices=place.devices,
        when=None if when is None else when.expression,
        do=_steps(do),
        netns=None if netns is None else str(netns),
        backend=backend,
        optional=optional,
        unsafe=unsafe,
    )


def Set(
    name: str,
    key: str,
    *,
    size: int = 65536,
    timeout: str = "0s",
    lru: bool = False,
    entries: Iterable[str] | None = None,
) -> model.Set:
    """Return a table of keys. ``entries`` make the set exactly these at apply."""
    listed = None if entries is None else tuple(map(str, entries))
    return model.Set(name, key, size, values.of("time").parse(timeout), lru, listed)


def Map(
    name: str,
    key: str,
    type: str,
    *,
    size: int = 65536,
    timeout: str = "0s",
    lru: bool = False,
    entries: Mapping[str, Any] | None = None,
) -> model.Map:
    """Return a table from a key to a value of a parameter type, as ``"rate"``."""
    listed = None if entries is None else tuple((str(key), _word(value)) for key, value in entries.items())
    return model.Map(name, key, type, size, values.of("time").parse(timeout), lru, listed)


def Controller(
    name: str,
    use: str,
    *,
    when: Condition | None = None,
    paths: Sequence[str] = (),
    netns: str | int | None = None,
    interval: str = "",
    steers: str = "us",
    on_failure: str = "keep",
    **parameters: Any,
) -> model.Controller:
    """Return a controller; further arguments are its own parameters."""
    return model.Controller(
        name,
        use,
        None if when is None else when.expression,
        tuple(paths),
        tuple(model.Keyword(key, _argument(value)) for key, value in parameters.items()),
        None if netns is None else str(netns),
        interval,
        steers,
        on_failure,
    )


def Table(
    name: str,
    policies: Sequence[model.Policy] = (),
    *,
    chains: Mapping[str, Do] | None = None,
    sets: Sequence[model.Set] = (),
    maps: Sequence[model.Map] = (),
    controllers: Sequence[model.Controller] = (),
    paths: Sequence[model.Path] = (),
    engine: str = "fused",
    carrier: str = "per-cpu",
    exact: bool = False,
    requires: Sequence[str] = (),
    guard_window: str | None = None,
) -> model.Table:
    """Return a checked table; ``carrier`` is ``per-cpu`` or, of the engine ``tail``, ``metadata``.

    ``guard_window`` (a time, as ``"30s"``) is for the command: applying from Python returns at once.

    Raises :class:`EmptcpError` as reading a file does, without a place.
    """
    if carrier not in model.CARRIERS or (carrier, engine) == ("metadata", "fused"):
        sentence = f"{quoted(carrier)} can't carry a chain context of the engine '{engine}'"
        raise EmptcpError(sentence, fix=f"Choose one of {', '.join(model.CARRIERS)}; metadata takes 'tail'.")
    if carrier == "metadata":
        engine = model.TAIL_METADATA
    window = None if guard_window is None else values.of("time").parse(guard_window)
    check_guard_window(window or 0)
    table = model.Table(
        name=name,
        policies=tuple(replace(policy, table=name, engine=engine) for policy in policies),
        chains=tuple(model.Chain(key, _steps(do)) for key, do in (chains or {}).items()),
        sets=tuple(sets),
        maps=tuple(maps),
        controllers=tuple(controllers),
        paths=tuple(paths),
        engine=engine,
        exact=exact,
        requires=tuple(map(requirement.parse, requires)),
        guard_window=window,
    )
    check(table)
    return table


def _steps(do: Do) -> tuple[model.Step, ...]:
    steps = [do] if isinstance(do, Stage | Goto) else do
    return tuple(_step(step) for step in steps)


def _step(step: object) -> model.Step:
    if isinstance(step, Goto):
        return step
    if isinstance(step, Stage):
        return step.actor
    fix = "Write it as in [Record('rtt'), SetBackup(True)]."
    raise EmptcpError(f"{quoted(repr(step))} is no actor", fix=fix)


def _argument(value: Any) -> model.Argument:
    if isinstance(value, model.FromMap):
        return value
    if isinstance(value, list | tuple):
        return model.Listing(tuple(model.Scalar(_word(item)) for item in value))
    return model.Scalar(_word(value))


def _word(value: Any) -> str:
    """Return a Python value as it is written in a file."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or isinstance(value, float | bytes | dict):
        fix = "Write it as in a policy file, as in '10mbit' or '0.5%'."
        raise EmptcpError(f"{quoted(repr(value))} can't be an argument", fix=fix)
    return str(value)


__all__ = [
    "Both",
    "Condition",
    "Controller",
    "Do",
    "Egress",
    "Goto",
    "Ingress",
    "Map",
    "Path",
    "Place",
    "Policy",
    "Set",
    "Stage",
    "StageName",
    "Table",
]
