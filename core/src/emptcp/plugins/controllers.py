# SPDX-License-Identifier: Apache-2.0
"""The controllers that plugins provide, and what a ``[[controller]]`` of a policy file means with them.

Plugin code is not run: :class:`BoundController` says what a process of its own is to import.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from emptcp.errors import EmptcpError, quoted
from emptcp.plugins.arguments import completed, read_all
from emptcp.plugins.manifest import ControllerDeclaration
from emptcp.policy import model, values

HOP = "hop"
"""The ``end`` of controllers that work between the data's ends, on a host without the sockets."""


@dataclass(frozen=True)
class ControllerType:
    """A controller that a plugin provides; ``package`` is the plugin's top-level package."""

    plugin: str
    distribution: str
    declaration: ControllerDeclaration
    package: str

    @property
    def kind(self) -> str:
        """``"controller"``."""
        return self.declaration.kind

    @property
    def name(self) -> str:
        """The name without its distribution."""
        return self.declaration.name


@dataclass(frozen=True)
class BoundController:
    """A controller of a table with its type and its parameters, as its Python class gets them.

    ``interval`` is in seconds, ``None`` where the class decides.
    """

    type: ControllerType
    spec: model.Controller
    values: Mapping[str, Any] = field(default_factory=dict)
    interval: float | None = None


def bind(found: ControllerType, spec: model.Controller) -> BoundController:
    """Bind a controller: read its arguments, and see that it may steer whom it is to steer.

    Raises :class:`EmptcpError` at the argument's place, or the controller's.
    """
    _check_end(found, spec)
    written = model.StageSpec("controller", spec.use, keywords=spec.parameters, where=spec.where)
    given = dict(read_all(found, written))
    types = {one.name: one.type for one in found.declaration.parameters}
    for_class = {name: _for_class(types[name], value) for name, value in completed(found, written, given)}
    interval = values.of("time").parse(spec.interval) / 1e9 if spec.interval else None
    return BoundController(found, spec, for_class, interval)


def _check_end(found: ControllerType, spec: model.Controller) -> None:
    """Who steers itself is the data's sender; who steers the peer receives it; a hop is none of both."""
    if found.declaration.end == HOP:
        if spec.steers == "us":
            return
        raise EmptcpError(
            f"controller {quoted(spec.name)} steers '{spec.steers}', and '{found.name}' works on a "
            "hop, between both",
            fix="Leave steers out.",
            where=str(spec.where),
        )
    here = "sender" if spec.steers == "us" else "receiver"
    if found.declaration.end in ("any", here):
        return
    other = "peer" if spec.steers == "us" else "us"
    raise EmptcpError(
        f"controller {quoted(spec.name)} steers '{spec.steers}', so it runs at the data's {here}, and "
        f"'{found.name}' must run at the {found.declaration.end}",
        fix=f'Write steers = "{other}", and run it there.',
        where=str(spec.where),
    )


def _for_class(kind: values.ValueType, value: Any) -> Any:
    """Return a value in base units: seconds, fractions."""
    if isinstance(value, tuple):
        return tuple(_for_class(kind.of if isinstance(kind, values.List) else kind, one) for one in value)
    if kind.kind == "time":
        return value / 1e9
    return value / 1e6 if kind.kind == "percent" else value
