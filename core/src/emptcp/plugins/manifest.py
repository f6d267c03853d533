# SPDX-License-Identifier: Apache-2.0
"""A plugin's manifest, ``emptcp.toml``: what the plugin provides, as data.

It stands in the package's folder beside the object file. The keys are published in
``docs/reference/plugin-manifest.schema.json``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from emptcp.errors import EmptcpError, quoted
from emptcp.plugins import changes, sharing
from emptcp.plugins.setters import SETTERS, UNLESS_TOLD
from emptcp.plugins.sharing import Export, Import
from emptcp.plugins.versions import CHAIN_ABI, HOOK_API, MANIFEST_SCHEMA
from emptcp.plugins.whereabouts import MANIFEST
from emptcp.policy import document, model, values
from emptcp.policy.document import Section
from emptcp.policy.keys import KeyFormat
from emptcp.policy.place import NOWHERE, Place
from emptcp.policy.tokens import NAME, RESERVED
from emptcp.pybpf.feature_table import FEATURES

VERDICTS = ("NEXT", "RETURN", "ACCEPT", "DROP", "REDIRECT", "GOTO")
READS = ("options", "key", "flow", "connection")
"""What a fragment reads of a packet: core parses, and looks up, only what some stage reads."""

BACKENDS = ("xdp", "tc")
"""Where a fragment works; it is compiled for both."""

KINDS = ("selector", "actor")
DECLARATIONS = ("command",)
ENDS = ("any", "sender", "receiver", "hop")
"""At which end of the data a controller must run."""

_DESCRIPTION = ("schema", "abi", "hook_api", "name", "summary", "object", "module", "resident")
TOP_KEYS = (*_DESCRIPTION, *KINDS, "key", "controller", *DECLARATIONS, "export", "import")
_STAGE_BASE = ("name", "help", "hooks", "backends", "reads", "fragment", "features", "parameter")
STAGE_KEYS: Mapping[str, tuple[str, ...]] = {
    "selector": _STAGE_BASE,
    "actor": (*_STAGE_BASE, "verdicts", "modifies", "unsafe", "companion"),
}
PARAMETER_KEYS = (
    "name", "type", "help", "default", "required", "min", "max", "unit", "values", "of", "many", "plain_tcp",
    "resident",
)  # fmt: skip
COMPANION_KEYS = ("hook", "fragment", "only")
DECLARATION_KEYS = ("name", "help")
CONTROLLER_KEYS = ("name", "help", "class", "end", "sets", "blocked", "parameter")
KEY_KEYS = ("name", "help", "fragment", "reads", "fields", "symmetric")

_COMMAND = re.compile(r"[a-z][a-z0-9-]*")
_CLASS = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_TAKEN = ("interval", "paths", "tick", "tick_connection")
"""Attributes that a controller has without its parameters."""


@dataclass(frozen=True)
class Parameter:
    """A value that a stage takes, and the member of the stage's struct of the same name.

    ``minimum`` and ``maximum`` count what the type counts (bytes per second, nanoseconds..).
    A ``many`` parameter takes all values that are given without a name. A policy that uses one of the flags
    ``plain_tcp`` is given packets without MPTCP too. ``resident``: what the parameter asks for, where it is
    neither left out nor the default, needs ``emptcp run``.
    """

    name: str
    type: values.ValueType
    help: str = ""
    default: Any = None
    required: bool = False
    minimum: int | None = None
    maximum: int | None = None
    many: bool = False
    plain_tcp: tuple[str, ...] = ()
    resident: bool = False


@dataclass(frozen=True)
class Companion:
    """A fragment that an actor needs on another hook.

    ``only``: parameter -> values; it is needed where one of the parameter's values is among them.
    """

    hook: str
    fragment: str
    only: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Declaration:
    """One thing that a plugin provides: a command, or (by the subclasses) a stage, a key or a controller."""

    kind: str
    name: str
    help: str


@dataclass(frozen=True)
class StageDeclaration(Declaration):
    """A selector or an actor as its plugin declares it."""

    hooks: tuple[str, ...]
    fragment: str
    backends: tuple[str, ...] = BACKENDS
    reads: tuple[str, ...] = ("options",)
    verdicts: tuple[str, ...] = ()
    modifies: tuple[str, ...] = ()
    unsafe: bool = False
    features: tuple[str, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    companions: tuple[Companion, ...] = ()


@dataclass(frozen=True)
class KeyDeclaration(Declaration):
    """What identifies a packet in sets and maps: the fragment that tells it, and how it is written."""

    fragment: str
    format: KeyFormat
    reads: tuple[str, ...] = ("key",)


@dataclass(frozen=True)
class ControllerDeclaration(Declaration):
    """A policy loop in Python: ``entry`` is ``package.module:Class``, ``sets`` the setters that it uses.

    ``blocked``: no path is open to a connection's further subflows until the controller allows it.
    """

    entry: str
    end: str = "any"
    sets: tuple[str, ...] = UNLESS_TOLD
    blocked: bool = False
    parameters: tuple[Parameter, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """What a plugin says of itself. ``object`` is a file beside the manifest, ``module`` a dotted name."""

    name: str
    summary: str
    abi: int = CHAIN_ABI
    hook_api: int = HOOK_API
    object: str = ""
    module: str = ""
    resident: bool = False
    stages: tuple[StageDeclaration, ...] = ()
    keys: tuple[KeyDeclaration, ...] = ()
    controllers: tuple[ControllerDeclaration, ...] = ()
    declarations: tuple[Declaration, ...] = ()
    exports: tuple[Export, ...] = ()
    imports: tuple[Import, ...] = ()
    where: Place = field(default=NOWHERE, compare=False)

    @property
    def provides(self) -> tuple[str, ...]:
        """All that the plugin provides, as ``"actor set_backup"``."""
        everything: tuple[Declaration, ...] = (
            *self.stages,
            *self.keys,
            *self.controllers,
            *self.declarations,
        )
        return tuple(f"{one.kind} {one.name}" for one in everything)


def load(path: Path) -> Manifest:
    """Read a manifest.

    Raises :class:`EmptcpError` with line and column when it is broken, or made for another emptcp.
    """
    return loads(document.content(path), str(path))


@lru_cache(maxsize=64)
def loads(text: str, source: str = MANIFEST) -> Manifest:
    """Read a manifest's text. The same text is read once: one command looks for plugins several times."""
    return _manifest(document.parse(text, source))


def _manifest(top: Section) -> Manifest:
    top.what = "the manifest"
    _versions(top)
    top.refuse_unknown(TOP_KEYS)
    top.require("name", 'Add name = "..", the name of the entry point.')
    stages = tuple(stage for kind in KINDS for stage in _stages(top, kind))
    declarations = tuple(one for kind in DECLARATIONS for one in _declarations(top, kind))
    keys = tuple(_keys(top))
    controllers = tuple(_controllers(top))
    _distinct(top, (*stages, *keys, *controllers, *declarations))
    name = _name(top, "name")
    exports, imports = sharing.exports(top), sharing.imports(top, name)
    return Manifest(
        name=name,
        summary=top.text("summary"),
        abi=top.number("abi", CHAIN_ABI),
        hook_api=top.number("hook_api", HOOK_API),
        object=_object(top, bool(stages or keys or exports or imports)),
        module=_module(top),
        resident=top.flag("resident"),
        stages=stages,
        keys=keys,
        controllers=controllers,
        declarations=declarations,
        exports=exports,
        imports=imports,
        where=Place(top.source),
    )


def _versions(top: Section) -> None:
    """Refuse what was made for another emptcp, before its keys are judged."""
    for key, ours, word in (
        ("schema", MANIFEST_SCHEMA, "manifest schema"),
        ("abi", CHAIN_ABI, "chain ABI"),
        ("hook_api", HOOK_API, "hook API"),
    ):
        theirs = top.number(key, ours)
        if theirs > ours or (key != "hook_api" and theirs != ours):
            fix = f"Install a release of the plugin for {word} {ours}, or another emptcp."
            raise top.error(f"the plugin is made for {word} {theirs}, this emptcp has {ours}", key, fix=fix)


def _object(top: Section, needed: bool) -> str:
    if needed:
        top.require("object", 'Add object = "NAME.bpf.o".')
    name = top.text("object")
    if name and (not name.endswith(".bpf.o") or "/" in name or "\0" in name):
        fix = "Name a .bpf.o file in the manifest's own folder."
        raise top.error(f"{quoted(name)} can't be the object", "object", fix=fix)
    return name


def _module(top: Section) -> str:
    name = top.text("module")
    if name and not all(part.isidentifier() for part in name.split(".")):
        raise top.error(f"{quoted(name)} is no name of a module", "module", fix="Write package.module.")
    return name


def _name(section: Section, key: str, pattern: re.Pattern[str] = NAME) -> str:
    name = section.text(key)
    if not pattern.fullmatch(name) or name in RESERVED:
        fix = "A name has letters, digits and _, begins with no digit, and is no word of the language."
        raise section.error(f"{quoted(name)} can't be a name", key, fix=fix)
    return name


def _distinct(top: Section, everything: tuple[Declaration, ...]) -> None:
    seen: set[str] = set()
    for one in everything:
        if f"{one.kind} {one.name}" in seen:
            raise top.error(f"the manifest declares {one.kind} '{one.name}' twice", fix="Remove one.")
        seen.add(f"{one.kind} {one.name}")


def _stages(top: Section, kind: str) -> Iterator[StageDeclaration]:
    for section in top.sections(kind, kind):
        section.require("name", 'Add name = "..".')
        name = _name(section, "name")
        section.what = f"{kind} '{name}'"
        section.refuse_unknown(STAGE_KEYS[kind])
        section.require("hooks", 'Add hooks = ["ingress", "egress"].')
        parameters = _parameters(section)
        yield StageDeclaration(
            kind=kind,
            name=name,
            help=section.text("help"),
            hooks=section.choices("hooks", model.HOOKS),
            fragment=_name(section, "fragment") if "fragment" in section else name,
            backends=section.choices("backends", BACKENDS) if "backends" in section else BACKENDS,
            reads=section.choices("reads", READS) if "reads" in section else ("options",),
            verdicts=section.choices("verdicts", VERDICTS) if "verdicts" in section else _usual(kind),
            modifies=section.choices("modifies", [*changes.words(one.name for one in parameters)]),
            unsafe=section.flag("unsafe"),
            features=section.choices("features", tuple(FEATURES)) if "features" in section else (),
            parameters=parameters,
            companions=tuple(
                _companion(one, parameters) for one in section.sections("companion", "companion")
            ),
        )


def _usual(kind: str) -> tuple[str, ...]:
    return ("NEXT",) if kind == "actor" else ()


def _companion(section: Section, parameters: Sequence[Parameter]) -> Companion:
    section.refuse_unknown(COMPANION_KEYS)
    section.require("hook", 'Add hook = "egress".')
    section.require("fragment", 'Add fragment = "..".')
    only = dict(_only(section.table("only"), parameters)) if "only" in section else {}
    return Companion(section.choice("hook", model.HOOKS, ""), _name(section, "fragment"), only)


def _only(section: Section, parameters: Sequence[Parameter]) -> Iterator[tuple[str, tuple[str, ...]]]:
    known = {one.name: tuple(getattr(one.type, "names", ())) for one in parameters}
    section.refuse_unknown(tuple(name for name, names in known.items() if names))
    for name in section.names():
        yield name, section.choices(name, known[name])


def _keys(top: Section) -> Iterator[KeyDeclaration]:
    for section in top.sections("key", "key"):
        section.require("name", 'Add name = "..".')
        name = _name(section, "name")
        section.what = f"key '{name}'"
        section.refuse_unknown(KEY_KEYS)
        section.require("fields", 'Add how it is written, as in fields = ["ipaddr", "port"].')
        yield KeyDeclaration(
            kind="key",
            name=name,
            help=section.text("help"),
            fragment=_name(section, "fragment") if "fragment" in section else name,
            format=_format(section),
            reads=section.choices("reads", READS) if "reads" in section else ("key",),
        )


def _format(section: Section) -> KeyFormat:
    try:
        return KeyFormat(section.texts("fields"), section.flag("symmetric"))
    except EmptcpError as error:
        raise section.error(f"{section.what}: {error.sentence}", "fields", fix=error.fix) from None


def _controllers(top: Section) -> Iterator[ControllerDeclaration]:
    for section in top.sections("controller", "controller"):
        section.require("name", 'Add name = "..".')
        name = _name(section, "name")
        section.what = f"controller '{name}'"
        section.refuse_unknown(CONTROLLER_KEYS)
        section.require("class", 'Add class = "package.module:Class".')
        entry, parameters = section.text("class"), _parameters(section)
        if not _CLASS.fullmatch(entry):
            fix = "Write package.module:Class."
            raise section.error(f"{quoted(entry)} names no class", "class", fix=fix)
        for taken in (one.name for one in parameters if one.name in _TAKEN):
            sentence = f"{section.what} can't have a parameter '{taken}', which every controller has"
            raise section.error(sentence, fix="Give it another name.")
        sets = section.choices("sets", tuple(SETTERS)) if "sets" in section else UNLESS_TOLD
        blocked = section.flag("blocked")
        if blocked and "block" not in sets:
            sentence = f"{section.what} has blocked paths, and does not set 'block'"
            raise section.error(sentence, "blocked", fix='Add "block" to sets, or remove blocked.')
        end = section.choice("end", ENDS, "any")
        if end == "hop" and sets != ("steer",):
            sentence = f"{section.what} works on a hop, where subflows can only be steered"
            raise section.error(sentence, "end", fix='Write sets = ["steer"].')
        yield ControllerDeclaration(
            kind="controller",
            name=name,
            help=section.text("help"),
            entry=entry,
            end=end,
            sets=sets,
            blocked=blocked,
            parameters=parameters,
        )


def _declarations(top: Section, kind: str) -> Iterator[Declaration]:
    for section in top.sections(kind, kind):
        section.refuse_unknown(DECLARATION_KEYS)
        section.require("name", 'Add name = "..".')
        pattern = _COMMAND if kind == "command" else NAME
        yield Declaration(kind, _name(section, "name", pattern), section.text("help"))


# Parameters


def _parameters(stage: Section) -> tuple[Parameter, ...]:
    found = tuple(_parameter(section) for section in stage.sections("parameter", "parameter"))
    names = [parameter.name for parameter in found]
    for name in names:
        if names.count(name) > 1:
            raise stage.error(f"{stage.what} declares parameter '{name}' twice", fix="Remove one.")
    if sum(parameter.many for parameter in found) > 1:
        raise stage.error(f"{stage.what} has two parameters with many = true", fix="Leave one.")
    return found


def _parameter(section: Section) -> Parameter:
    section.require("name", 'Add name = "..".')
    section.require("type", f"Add a type: {', '.join(values.TYPES)}.")
    name = _name(section, "name")
    section.what = f"parameter '{name}'"
    section.refuse_unknown(PARAMETER_KEYS)
    kind = _type(section)
    many = section.flag("many")
    if many and not isinstance(kind, values.Flags | values.List):
        raise section.error(f"{section.what} can't take many values", "many", fix="Use flags or list(n).")
    least, most = (_bound(section, key, kind) for key in ("min", "max"))
    parameter = Parameter(
        name=name,
        type=kind,
        help=section.text("help"),
        required=section.flag("required"),
        minimum=least,
        maximum=most,
        many=many,
        plain_tcp=_plain_tcp(section, kind),
        resident=section.flag("resident"),
    )
    return _with_default(section, parameter)


def _plain_tcp(section: Section, kind: values.ValueType) -> tuple[str, ...]:
    if "plain_tcp" not in section:
        return ()
    if not isinstance(kind, values.Flags):
        raise section.error(f"'plain_tcp' has no meaning for type {kind.kind}", "plain_tcp", fix="Remove it.")
    return section.choices("plain_tcp", tuple(kind.names))


def _type(section: Section) -> values.ValueType:
    names = _names(section) if "values" in section else None
    item = section.text("of", "int")
    try:
        kind = values.of(section.text("type"), names=names, unit=section.text("unit"), item=item)
    except EmptcpError as error:
        raise section.error(f"{section.what}: {error.sentence}", "type", fix=error.fix) from None
    if isinstance(kind, values.Flags) and not kind.names:
        raise section.error(f"{section.what} of type flags has no values", fix="Add values = {a = 0, b = 1}.")
    return kind


def _names(section: Section) -> dict[str, int]:
    """Return masks of ``flags`` (from bit numbers), or the numbers of a named ``int``."""
    table = section.table("values")
    as_bits = section.text("type") == "flags"
    found: dict[str, int] = {}
    for name in table.names():
        bits = table.numbers(name, least=0 if as_bits else -(2**63), most=63 if as_bits else 2**63 - 1)
        found[name] = sum(1 << bit for bit in set(bits)) if as_bits else bits[0]
    return found


def _bound(section: Section, key: str, kind: values.ValueType) -> int | None:
    if key not in section:
        return None
    value = _parsed(section, key, kind)
    if not isinstance(value, int) or isinstance(value, bool):
        raise section.error(f"'{key}' has no meaning for type {kind.kind}", key, fix="Remove it.", key=True)
    return value


def _with_default(section: Section, parameter: Parameter) -> Parameter:
    if "default" not in section:
        return parameter
    default = _parsed(section, "default", parameter.type)
    try:
        check_range(parameter, default)
    except EmptcpError as error:
        raise section.error(f"the default of {section.what}: {error.sentence}", "default") from None
    return Parameter(**{**parameter.__dict__, "default": default})


def _parsed(section: Section, key: str, kind: values.ValueType) -> Any:
    try:
        if isinstance(section.raw(key), list):
            return kind.read_items([model.Scalar(text) for text in section.texts(key)])
        return kind.parse(section.spelled(key))
    except EmptcpError as error:
        raise section.error(f"'{key}' of {section.what}: {error.sentence}", key, fix=error.fix) from None


def check_range(parameter: Parameter, value: Any) -> None:
    """Raise :class:`EmptcpError` when ``value``, or one of several, is outside the parameter's range."""
    kind = parameter.type
    for one in value if isinstance(value, tuple) else (value,):
        shown = kind.of if isinstance(kind, values.List) else kind
        low, high = parameter.minimum, parameter.maximum
        if (low is not None and one < low) or (high is not None and one > high):
            span = " to ".join(shown.format(bound) if bound is not None else "any" for bound in (low, high))
            raise EmptcpError(f"{quoted(shown.format(one))} is out of range", fix=f"Write {span}.")
