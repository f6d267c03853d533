# SPDX-License-Identifier: Apache-2.0
"""Whether an object is what its manifest says: fragments and their ABI, structs, maps, keys."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emptcp.errors import EmptcpError, did_you_mean
from emptcp.plugins.layout import STAGE_ID, FragmentLayout, ObjectLayout
from emptcp.plugins.manifest import BACKENDS, KINDS, KeyDeclaration, Manifest, Parameter, StageDeclaration
from emptcp.plugins.sharing import Export
from emptcp.plugins.versions import CHAIN_ABI, HEADERS
from emptcp.policy import model, values
from emptcp.policy.values import Field

if TYPE_CHECKING:
    from emptcp.pybpf.elf import MapSpec

PRIVATE_KINDS = frozenset({"prog_array", "array_of_maps", "hash_of_maps", "struct_ops", "arena"})
"""Kinds of maps that can't be exported: what they hold belongs to the program that they were made for."""

LARGEST_PARAMETERS = 256
LARGEST_STATE = 192


@dataclass(frozen=True)
class Problem:
    """Something in which object and manifest differ.

    ``path`` leads to what the manifest says of it: ``("actor", 0, "parameter", 1)``. ``rule`` is ``abi``,
    ``fragment``, ``parameter``, ``range``, ``struct``, ``map`` or ``key``.
    """

    rule: str
    path: tuple[str | int, ...]
    sentence: str
    fix: str

    @property
    def error(self) -> EmptcpError:
        """The problem as a refusal."""
        return EmptcpError(self.sentence, fix=self.fix)


def check(manifest: Manifest, layout: ObjectLayout) -> None:
    """Raise :class:`EmptcpError` at the first thing in which an object is not what its manifest says."""
    for problem in problems(manifest, layout):
        raise problem.error


def problems(manifest: Manifest, layout: ObjectLayout) -> Iterator[Problem]:
    """Yield everything in which an object is not what its manifest says."""
    for kind in KINDS:
        for index, stage in enumerate(one for one in manifest.stages if one.kind == kind):
            yield from _stage(layout, stage, (kind, index))
    for index, export in enumerate(manifest.exports):
        yield from _export(layout, export, ("export", index))
    for index, wanted in enumerate(manifest.imports):
        yield from _missing_map(layout, wanted.name, "imports", ("import", index))
    for index, key in enumerate(manifest.keys):
        yield from _key(layout, key, ("key", index))


_Path = tuple[str | int, ...]


def _stage(layout: ObjectLayout, stage: StageDeclaration, path: _Path) -> Iterator[Problem]:
    yield from _fragment(layout, stage.fragment, path)
    found = layout.fragments.get(stage.fragment)
    if found is not None:
        yield from _struct(stage, found, path)
    for index, companion in enumerate(stage.companions):
        place = (*path, "companion", index)
        if companion.hook == "socket":
            yield from _socket_companion(layout, companion.fragment, place)
        else:
            yield from _fragment(layout, companion.fragment, place)


def _fragment(layout: ObjectLayout, name: str, path: _Path) -> Iterator[Problem]:
    """Yield what a fragment lacks to be there, whole and of our ABI."""
    found = layout.fragments.get(name)
    missing = [backend for backend in BACKENDS if found is None or backend not in found.backends]
    if missing:
        section = f"emptcp.{missing[0]}/{name}"
        sentence = f"the object {layout.path.name} has no section {section}"
        yield Problem("fragment", path, sentence, "Compile it again.")
    else:
        yield from _abi(layout, name, path)


def _socket_companion(layout: ObjectLayout, name: str, path: _Path) -> Iterator[Problem]:
    if name not in layout.sockets:
        sentence = f"the object {layout.path.name} has no socket companion '{name}'"
        fix = "Write it with EMPTCP_SOCKET_COMPANION, and compile it again."
        yield Problem("fragment", path, sentence, fix)
    else:
        yield from _abi(layout, name, path)


def _abi(layout: ObjectLayout, name: str, path: _Path) -> Iterator[Problem]:
    abi = layout.abi.get(name)
    if abi is None or abi.chain != CHAIN_ABI:
        made_for = f"is made for chain ABI {abi.chain}" if abi is not None else "says no chain ABI"
        sentence = f"fragment '{name}' {made_for}, this emptcp has {CHAIN_ABI}"
        yield Problem("abi", path, sentence, "Compile it with the headers of this release.")
    elif abi.headers > HEADERS:
        sentence = (
            f"fragment '{name}' is made with headers of version {abi.headers}, this emptcp has {HEADERS}"
        )
        yield Problem(
            "abi", path, sentence, "Install a newer emptcp, or compile it with this release's headers."
        )


# Parameters


def _struct(stage: StageDeclaration, fragment: FragmentLayout, path: _Path) -> Iterator[Problem]:
    what = f"{stage.kind} '{stage.name}'"
    for limit, size, noun in (
        (LARGEST_PARAMETERS, fragment.parameter_size, "parameters"),
        (LARGEST_STATE, fragment.state_size, "state"),
    ):
        if size > limit:
            sentence = f"{what} has {size} bytes of {noun}"
            yield Problem("struct", path, sentence, f"At most {limit} are possible.")
    for index, parameter in enumerate(stage.parameters):
        member = fragment.fields.get(parameter.name)
        yield from _parameter(parameter, what, member, (*path, "parameter", index))
    declared = {parameter.name for parameter in stage.parameters}
    for name in fragment.fields:
        if name not in declared and not _is_filler(name, declared):
            sentence = f"the struct of {what} has a member '{name}' that no parameter names"
            yield Problem("struct", path, sentence, "Declare it as a parameter, or call it reserved.")


def _parameter(parameter: Parameter, what: str, member: Field | None, path: _Path) -> Iterator[Problem]:
    named = f"parameter '{parameter.name}' of {what}"
    misfit = "no member of this name" if member is None else parameter.type.misfit(member)
    if member is None or misfit:
        sentence = f"{named} does not fit its struct: {misfit}"
        yield Problem("parameter", path, sentence, "Make manifest and C struct agree.")
        return
    for key, value in (
        ("min", parameter.minimum),
        ("max", parameter.maximum),
        ("default", parameter.default),
    ):
        if value is not None and not _fits(parameter.type, value, member):
            sentence = f"the {key} of {named} does not fit its member of {member.bytes} bytes"
            yield Problem("range", (*path, key), sentence, "Take a wider member, or another value.")


def _fits(kind: values.ValueType, value: object, member: Field) -> bool:
    if isinstance(value, model.FromMap) or kind.kind in ("dev", "chain"):
        return True
    try:
        one = kind.of if isinstance(kind, values.List) and not isinstance(value, tuple) else kind
        one.pack(value, member, values.no_devices)
    except EmptcpError:
        return False
    return True


def _is_filler(name: str, declared: Iterable[str]) -> bool:
    """Return whether a member needs no parameter: padding, the stage's number, or the length of a list."""
    return (
        name == STAGE_ID or name.startswith(("reserved", "pad", "_")) or name.removesuffix("_len") in declared
    )


# Maps and keys


def _missing_map(layout: ObjectLayout, name: str, verb: str, path: _Path) -> Iterator[Problem]:
    if name not in layout.maps:
        fix = did_you_mean(name, layout.maps) or f'Define it there: struct {{ .. }} {name} SEC(".maps");'
        sentence = f"the manifest {verb} map '{name}', which {layout.path.name} does not define"
        yield Problem("map", path, sentence, fix)


def _export(layout: ObjectLayout, export: Export, path: _Path) -> Iterator[Problem]:
    yield from _missing_map(layout, export.map, "exports", path)
    found = layout.maps.get(export.map)
    if found is None:
        return
    if found.kind in PRIVATE_KINDS:
        sentence = f"map '{export.map}' of {layout.path.name} is a {found.kind}, which can't be exported"
        yield Problem("map", path, sentence, "Export a map that holds values.")
        return
    untyped = [what for what, size, known in _sides(found) if size and not known]
    if untyped:
        sentence = (
            f"map '{export.map}' of {layout.path.name} is exported, and says no type of its {untyped[0]}"
        )
        yield Problem("map", path, sentence, f"Write __type({untyped[0]}, ..) instead of a size.")


def _sides(found: MapSpec) -> Iterator[tuple[str, int, int]]:
    yield "key", found.key_size, found.key_type
    yield "value", found.value_size, found.value_type


def _key(layout: ObjectLayout, key: KeyDeclaration, path: _Path) -> Iterator[Problem]:
    yield from _fragment(layout, key.fragment, path)
    found = layout.fragments.get(key.fragment)
    if found is not None and found.state_size != key.format.size:
        sentence = (
            f"the struct of key '{key.name}' has {found.state_size} bytes, "
            f"and its fields have {key.format.size}"
        )
        fix = "Make manifest and C struct agree; C leaves holes: pack the struct."
        yield Problem("key", path, sentence, fix)
