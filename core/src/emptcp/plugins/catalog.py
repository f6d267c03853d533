# SPDX-License-Identifier: Apache-2.0
"""Which selectors, actors and keys there are, and what a stage of a policy means with them.

Binding turns ``set_backup(on=true)`` into the declaration it names, typed values, and the packed bytes of
the plugin's C struct. Plugin code is not run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emptcp.errors import EmptcpError, did_you_mean, quoted
from emptcp.plugins import imports, layout
from emptcp.plugins.arguments import completed, pack, read_all, title, written
from emptcp.plugins.controllers import ControllerType
from emptcp.plugins.distributions import canonical
from emptcp.plugins.imports import Imported
from emptcp.plugins.keys import KeyType
from emptcp.plugins.manifest import Companion, StageDeclaration
from emptcp.policy import model, values
from emptcp.policy.place import Place
from emptcp.policy.text import argument_text

if TYPE_CHECKING:
    from emptcp.plugins.discovery import Plugin


@dataclass(frozen=True)
class StageType:
    """A selector or an actor that a plugin provides.

    ``object`` is the file that holds its fragments; ``resident``: its plugin needs ``emptcp run``.
    """

    plugin: str
    distribution: str
    declaration: StageDeclaration
    object: Path
    resident: bool = False

    @property
    def kind(self) -> str:
        """``"selector"`` or ``"actor"``."""
        return self.declaration.kind

    @property
    def name(self) -> str:
        """The name without its distribution."""
        return self.declaration.name

    @property
    def fragment(self) -> layout.FragmentLayout:
        """The fragment that is the stage's body. Raises :class:`EmptcpError` when the object lacks it."""
        return self._fragment(self.declaration.fragment)

    @property
    def companions(self) -> tuple[tuple[str, layout.FragmentLayout], ...]:
        """The fragments that may be wanted on other hooks, each with its hook."""
        return tuple((one.hook, self.companion(one)) for one in self.declaration.companions)

    def companion(self, one: Companion) -> layout.FragmentLayout:
        """Return a companion's fragment; of a socket companion only the name."""
        if one.hook == "socket":
            return layout.FragmentLayout(one.fragment, ())
        return self._fragment(one.fragment)

    def _fragment(self, name: str) -> layout.FragmentLayout:
        found = layout.read(self.object).fragments.get(name)
        if found is None:
            raise EmptcpError(f"the object {self.object.name} has no fragment '{name}'")
        return found


@dataclass(frozen=True)
class BoundStage:
    """A stage with its type, its values by parameter (those given or defaulted) and their packed bytes.

    ``imports`` are the maps of other plugins that its object uses.
    """

    type: StageType
    spec: model.StageSpec
    values: Mapping[str, Any] = field(default_factory=dict)
    packed: bytes = b""
    imports: tuple[Imported, ...] = ()

    @property
    def label(self) -> str:
        """The operator's label, empty when there is none."""
        return self.spec.label

    @property
    def text(self) -> str:
        """The stage as the policy file says it, with every value: ``set_backup(on=true)``."""
        values = (f"{name}={argument_text(argument)}" for name, argument in self.arguments.items())
        return f"{self.spec.name}({', '.join(values)})"

    @property
    def wants_plain_tcp(self) -> bool:
        """Whether one of the values asks for packets without MPTCP."""
        return any(
            set(parameter.plain_tcp) & set(self.values.get(parameter.name, ()))
            for parameter in self.type.declaration.parameters
            if parameter.plain_tcp
        )

    @property
    def resident(self) -> bool:
        """Whether it needs ``emptcp run``: its plugin does, or what one of the values asks for."""
        return self.type.resident or any(
            parameter.resident and self.values.get(parameter.name) not in (None, parameter.default)
            for parameter in self.type.declaration.parameters
        )

    @property
    def companions(self) -> tuple[tuple[str, layout.FragmentLayout], ...]:
        """The fragments that the stage wants on other hooks with these values, each with its hook."""
        wanted = (one for one in self.type.declaration.companions if self._wants(one))
        return tuple((one.hook, self.type.companion(one)) for one in wanted)

    def _wants(self, companion: Companion) -> bool:
        types = {parameter.name: parameter.type for parameter in self.type.declaration.parameters}
        for name, names in companion.only.items():
            value = self.values.get(name, ())
            if isinstance(value, model.FromMap):  # it may be any
                return True
            given = value if isinstance(value, tuple) else (types[name].format(value),)
            if set(given) & set(names):
                return True
        return not companion.only

    @property
    def chains(self) -> dict[str, str]:
        """The named chains that the stage may choose from, by the parameter that names each."""
        types = {parameter.name: parameter.type for parameter in self.type.declaration.parameters}
        return {
            name: value
            for name, value in self.values.items()
            if types[name].kind == "chain" and isinstance(value, str)
        }

    @property
    def arguments(self) -> dict[str, model.Argument]:
        """The values by parameter as text, in the manifest's order; defaults included."""
        return {
            parameter.name: written(parameter, self.values[parameter.name])
            for parameter in self.type.declaration.parameters
            if parameter.name in self.values
        }


class Catalog:
    """The selectors and actors of the plugins that may be used, and the names of the others."""

    def __init__(self, plugins: Iterable[Plugin]) -> None:
        self._plugins = tuple(plugins)
        self._types = tuple(self._usable())
        self._keys = tuple(self._usable_keys())
        self._controllers = tuple(self._usable_controllers())

    @classmethod
    def of_enabled(cls) -> Catalog:
        """Return the catalog of all enabled plugins of this installation."""
        from emptcp.plugins import state

        return cls(state.judged())

    def _usable(self) -> Iterator[StageType]:
        for plugin in self._plugins:
            if plugin.usable and plugin.manifest is not None and plugin.folder is not None:
                object_file = plugin.folder / plugin.manifest.object
                for declaration in plugin.manifest.stages:
                    yield StageType(
                        plugin.name, plugin.distribution, declaration, object_file, plugin.manifest.resident
                    )

    def _usable_keys(self) -> Iterator[KeyType]:
        for plugin in self._plugins:
            if plugin.usable and plugin.manifest is not None and plugin.folder is not None:
                object_file = plugin.folder / plugin.manifest.object
                for declaration in plugin.manifest.keys:
                    yield KeyType(plugin.name, plugin.distribution, declaration, object_file)

    def _usable_controllers(self) -> Iterator[ControllerType]:
        for plugin in self._plugins:
            if plugin.usable and plugin.manifest is not None:
                for declaration in plugin.manifest.controllers:
                    package = plugin.package
                    yield ControllerType(plugin.name, plugin.distribution, declaration, package)

    def __iter__(self) -> Iterator[StageType]:
        return iter(self._types)

    def has_plugin(self, name: str) -> bool:
        """Whether a plugin of this name is installed, usable or not."""
        return any(plugin.name == name for plugin in self._plugins)

    def selector(self, name: str, where: Place | None = None) -> StageType:
        """Return a selector by ``name`` or ``dist:name``. Raises :class:`EmptcpError`."""
        return self._find("selector", name, where)

    def actor(self, name: str, where: Place | None = None) -> StageType:
        """Return an actor by ``name`` or ``dist:name``. Raises :class:`EmptcpError`."""
        return self._find("actor", name, where)

    def has_key(self, name: str) -> bool:
        """Whether some enabled plugin provides a key of this name."""
        return any(one.name == name for one in self._keys)

    def key(self, name: str, where: Place | None = None) -> KeyType:
        """Return a key by ``name``. Raises :class:`EmptcpError`."""
        found = [one for one in self._keys if one.name == name]
        if len(found) > 1:
            raise _ambiguous(found, where)
        if not found:
            raise self._unknown("key", name, "", [one.name for one in self._keys], where)
        return replace(found[0], imports=self._imports(found[0], where))

    def controller(self, name: str, where: Place | None = None) -> ControllerType:
        """Return a controller by ``name`` or ``dist:name``. Raises :class:`EmptcpError`."""
        distribution, _, plain = name.rpartition(":")
        found = [one for one in self._controllers if one.name == plain and _is_from(one, distribution)]
        if len(found) == 1:
            return found[0]
        if found:
            raise _ambiguous(found, where)
        known = [one.name for one in self._controllers]
        raise self._unknown("controller", plain, distribution, known, where)

    def bind(self, spec: model.StageSpec, *, devices: values.Devices = values.no_devices) -> BoundStage:
        """Bind a stage: find its type, check its arguments, pack them.

        ``devices`` tells the ifindex of a ``dev`` parameter's device. Raises :class:`EmptcpError` at the
        place of the argument, or of the stage when its plugin can't have a map that it imports.
        """
        found = self._find(spec.kind, spec.name, spec.where)
        given = dict(read_all(found, spec))
        values_by_name = dict(completed(found, spec, given))
        packed = pack(found, spec, values_by_name, devices)
        return BoundStage(found, spec, values_by_name, packed, self._imports(found, spec.where))

    def _imports(self, stage: StageType | KeyType, where: Place | None) -> tuple[Imported, ...]:
        identity = (stage.distribution, stage.plugin)
        (owner,) = (one for one in self._plugins if (one.distribution, one.name) == identity)
        try:
            return imports.resolve(owner, self._plugins)
        except EmptcpError as error:
            sentence = f"{title(stage)}: {error.sentence}"
            raise EmptcpError(sentence, fix=error.fix, where=str(where or "")) from None

    def _find(self, kind: str, qualified: str, where: Place | None) -> StageType:
        distribution, _, name = qualified.rpartition(":")
        of_kind = [one for one in self._types if one.kind == kind]
        found = [one for one in of_kind if one.name == name and _is_from(one, distribution)]
        if len(found) == 1:
            return found[0]
        if found:
            raise _ambiguous(found, where)
        raise self._unknown(kind, name, distribution, [one.name for one in of_kind], where)

    def _unknown(
        self, kind: str, name: str, distribution: str, known: list[str], where: Place | None
    ) -> EmptcpError:
        for plugin in self._plugins:
            if not plugin.usable and f"{kind} {name}" in plugin.provides and _is_of(plugin, distribution):
                sentence = f"{kind} {quoted(name)} comes from plugin '{plugin.name}', which is {plugin.state}"
                return EmptcpError(sentence, fix=_how_to_enable(plugin), where=str(where or ""))
        other = next((one for one in self._types if one.name == name and one.kind != kind), None)
        if other is not None and kind in ("selector", "actor"):
            fix = "Actors stand in 'do', selectors in 'when'."
            selector, actor = "a selector", "an actor"
            is_a, wanted = (selector, actor) if kind == "actor" else (actor, selector)
            sentence = f"{quoted(name)} is {is_a}, not {wanted}"
            return EmptcpError(sentence, fix=fix, where=str(where or ""))
        fix = did_you_mean(name, known) or f"Known are: {', '.join(sorted(known)) or 'none'}."
        origin = f" from {quoted(distribution)}" if distribution else ""
        return EmptcpError(f"there is no {kind} {quoted(name)}{origin}", fix=fix, where=str(where or ""))


def _is_from(one: StageType | ControllerType, distribution: str) -> bool:
    return not distribution or canonical(distribution) == canonical(one.distribution)


def _is_of(plugin: Plugin, distribution: str) -> bool:
    return not distribution or canonical(distribution) == canonical(plugin.distribution)


def _ambiguous(found: Sequence[StageType | KeyType | ControllerType], where: Place | None) -> EmptcpError:
    owners = " and ".join(one.distribution for one in found)
    fix = f"Write {found[0].distribution}:{found[0].name}, or disable one of them."
    if found[0].kind == "key":
        fix = "Disable one of them."
    sentence = f"{found[0].kind} '{found[0].name}' is provided by {owners}"
    return EmptcpError(sentence, fix=fix, where=str(where or ""))


def _how_to_enable(plugin: Plugin) -> str:
    if plugin.state == "invalid":
        return f"{plugin.reason}. {plugin.fix}".strip()
    return f"Run: emptcp plugins enable {plugin.name}"
