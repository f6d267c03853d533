# SPDX-License-Identifier: Apache-2.0
"""What a plugin's object tells without being loaded: its fragments, their structs, their ABI.

A fragment ``f`` is a function ``f__xdp`` in section ``emptcp.xdp/f`` and one for TC; its third argument
points to the parameters, its fourth to the state (``emptcp/abi.h``).
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from emptcp.errors import EmptcpError, did_you_mean
from emptcp.plugins.manifest import BACKENDS, KeyDeclaration, Manifest, StageDeclaration
from emptcp.plugins.versions import CHAIN_ABI
from emptcp.policy.values import Field

if TYPE_CHECKING:
    from emptcp.pybpf.btf import Btf, Member
    from emptcp.pybpf.elf import MapSpec

STAGE_ID = "stage_id"
"""The member of a parameter struct that core fills with the number of the stage (``emptcp/actor.h``)."""

PRIVATE_KINDS = frozenset({"prog_array", "array_of_maps", "hash_of_maps", "struct_ops", "arena"})
"""Kinds of maps that can't be exported: what they hold belongs to the program that they were made for."""

LARGEST_PARAMETERS = 256
LARGEST_STATE = 192
LARGEST_KEY = 64

_PARAMETERS, _STATE = 2, 3
"""Places in a fragment's arguments."""

_RECORD = struct.Struct("=IHHHHI48s")
"""struct emptcp_abi."""


@dataclass(frozen=True)
class FragmentLayout:
    """One fragment: its back-ends, its parameter struct and the bytes of its state."""

    name: str
    backends: tuple[str, ...]
    parameter_size: int = 0
    fields: Mapping[str, Field] = field(default_factory=dict)
    state_size: int = 0


@dataclass(frozen=True)
class ObjectLayout:
    """All fragments of an object, by name, its socket companions, their ABI, and the object's maps."""

    path: Path
    fragments: Mapping[str, FragmentLayout]
    abi: Mapping[str, int]
    sockets: frozenset[str] = frozenset()
    maps: Mapping[str, MapSpec] = field(default_factory=dict)


def read(path: Path) -> ObjectLayout:
    """Read an object file; the answer is kept as long as the file is the same.

    Raises :class:`EmptcpError` when it is missing, or no object of fragments.
    """
    try:
        status = path.stat()
    except OSError:
        fix = "Compile it, or install the plugin again."
        raise EmptcpError(f"the object {path.name} is missing", fix=fix) from None
    return _read(path, status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=64)
def _read(path: Path, _modified: int, _size: int) -> ObjectLayout:
    from emptcp.pybpf.elf import ObjectSpec
    from emptcp.pybpf.errors import BpfError

    try:
        spec = ObjectSpec.read(path)
        found = _functions(program.section for program in spec.programs.values())
        layouts = {name: _fragment(spec.btf, name, backends) for name, backends in found.items()}
        sockets = frozenset(_sockets({name: program.section for name, program in spec.programs.items()}))
        abi = dict(_abi(spec.section("emptcp.abi") or b""))
        return ObjectLayout(path, layouts, abi, sockets, spec.maps)
    except BpfError as error:
        raise EmptcpError(f"the object {path.name} can't be read: {error.sentence}", fix=error.fix) from None


def _functions(sections: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the back-ends of each fragment that the sections hold."""
    found: dict[str, tuple[str, ...]] = {}
    for section in sections:
        backend, _, name = section.removeprefix("emptcp.").partition("/")
        if section.startswith("emptcp.") and backend in BACKENDS and name:
            found[name] = (*found.get(name, ()), backend)
    return found


def _sockets(sections: Mapping[str, str]) -> Iterator[str]:
    """Yield the socket companions (``emptcp/socket.h``): a program for socket events, and an iterator."""
    for name, section in sections.items():
        stem = name.removesuffix("__ops")
        if section == "sockops" and stem != name and sections.get(f"{stem}__iter") == "iter/tcp":
            yield stem


def _fragment(btf: Btf, name: str, backends: tuple[str, ...]) -> FragmentLayout:
    arguments = btf.prototype(f"{name}__{backends[0]}").arguments
    if len(arguments) != 5:
        raise EmptcpError(f"fragment '{name}' takes {len(arguments)} arguments, not 5", fix="Use the macros.")
    parameters, state = (_pointed_at(btf, arguments[place][1]) for place in (_PARAMETERS, _STATE))
    fields = dict(_fields(btf, parameters)) if parameters else {}
    return FragmentLayout(
        name,
        backends,
        btf.size(parameters) if parameters else 0,
        fields,
        btf.size(state) if state else 0,
    )


def _pointed_at(btf: Btf, type_id: int) -> int:
    """Return the id of the struct behind a pointer, 0 for void."""
    pointer = btf.resolve(type_id)
    return btf.resolve(pointer.ref).id if pointer.kind == "ptr" else 0


def _fields(btf: Btf, struct_id: int) -> Iterator[tuple[str, Field]]:
    for member in btf.members(struct_id):
        if not member.bitfield:
            yield member.name, _field(btf, member)


def _field(btf: Btf, member: Member) -> Field:
    kind = btf.resolve(member.type_id)
    count = 1
    if kind.kind == "array":
        element, _, count = kind.extra[0]
        kind = btf.resolve(element)
    # BTF_INT_SIGNED is bit 0 of the encoding, bits 24 to 27 of an integer's word.
    signed = kind.kind == "int" and bool(kind.extra[0][0] >> 24 & 1)
    return Field(member.offset, member.size // max(count, 1), count, signed)


def _abi(section: bytes) -> Iterator[tuple[str, int]]:
    """Yield the fragment's name and its ABI of each record; records grow at their end."""
    at = 0
    while at + _RECORD.size <= len(section):
        size, abi, _version, _kind, _flags, _reserved, name = _RECORD.unpack_from(section, at)
        yield name.split(b"\0")[0].decode("ascii", "replace"), abi
        at += max(size, _RECORD.size)


# Object and manifest


def check(manifest: Manifest, layout: ObjectLayout) -> None:
    """Raise :class:`EmptcpError` at the first thing in which an object is not what its manifest says."""
    for stage in manifest.stages:
        _check_fragment(layout, stage.fragment)
        _check_parameters(stage, layout.fragments[stage.fragment])
        for companion in stage.companions:
            if companion.hook == "socket":
                _check_socket_companion(layout, companion.fragment)
            else:
                _check_fragment(layout, companion.fragment)
    for export in manifest.exports:
        _check_export(layout, export.map)
    for wanted in manifest.imports:
        _map(layout, wanted.name, "imports")
    for key in manifest.keys:
        _check_key(layout, key)


def _map(layout: ObjectLayout, name: str, verb: str) -> MapSpec:
    if name not in layout.maps:
        fix = did_you_mean(name, layout.maps) or f'Define it there: struct {{ .. }} {name} SEC(".maps");'
        raise EmptcpError(
            f"the manifest {verb} map '{name}', which {layout.path.name} does not define", fix=fix
        )
    return layout.maps[name]


def _check_export(layout: ObjectLayout, name: str) -> None:
    found = _map(layout, name, "exports")
    if found.kind in PRIVATE_KINDS:
        sentence = f"map '{name}' of {layout.path.name} is a {found.kind}, which can't be exported"
        raise EmptcpError(sentence, fix="Export a map that holds values.")
    untyped = [what for what, size, known in _sides(found) if size and not known]
    if untyped:
        sentence = f"map '{name}' of {layout.path.name} is exported, and says no type of its {untyped[0]}"
        raise EmptcpError(sentence, fix=f"Write __type({untyped[0]}, ..) instead of a size.")


def _sides(found: MapSpec) -> Iterator[tuple[str, int, int]]:
    yield "key", found.key_size, found.key_type
    yield "value", found.value_size, found.value_type


def _check_fragment(layout: ObjectLayout, name: str) -> None:
    """Check that a fragment is there, whole and of our ABI."""
    found = layout.fragments.get(name)
    missing = [backend for backend in BACKENDS if found is None or backend not in found.backends]
    if missing:
        section = f"emptcp.{missing[0]}/{name}"
        raise EmptcpError(f"the object {layout.path.name} has no section {section}", fix="Compile it again.")
    _check_abi(layout, name)


def _check_socket_companion(layout: ObjectLayout, name: str) -> None:
    if name not in layout.sockets:
        sentence = f"the object {layout.path.name} has no socket companion '{name}'"
        raise EmptcpError(sentence, fix="Write it with EMPTCP_SOCKET_COMPANION, and compile it again.")
    _check_abi(layout, name)


def _check_key(layout: ObjectLayout, key: KeyDeclaration) -> None:
    _check_fragment(layout, key.fragment)
    size = layout.fragments[key.fragment].state_size
    if size != key.format.size:
        sentence = f"the struct of key '{key.name}' has {size} bytes, and its fields have {key.format.size}"
        raise EmptcpError(sentence, fix="Make manifest and C struct agree; C leaves holes: pack the struct.")


def _check_abi(layout: ObjectLayout, name: str) -> None:
    abi = layout.abi.get(name)
    if abi != CHAIN_ABI:
        made_for = f"is made for chain ABI {abi}" if abi is not None else "says no chain ABI"
        fix = "Compile it with the headers of this release."
        raise EmptcpError(f"fragment '{name}' {made_for}, this emptcp has {CHAIN_ABI}", fix=fix)


def _check_parameters(stage: StageDeclaration, fragment: FragmentLayout) -> None:
    what = f"{stage.kind} '{stage.name}'"
    for limit, size, noun in (
        (LARGEST_PARAMETERS, fragment.parameter_size, "parameters"),
        (LARGEST_STATE, fragment.state_size, "state"),
    ):
        if size > limit:
            raise EmptcpError(f"{what} has {size} bytes of {noun}", fix=f"At most {limit} are possible.")
    declared = {parameter.name for parameter in stage.parameters}
    for parameter in stage.parameters:
        member = fragment.fields.get(parameter.name)
        misfit = "no member of this name" if member is None else parameter.type.misfit(member)
        if misfit:
            sentence = f"parameter '{parameter.name}' of {what} does not fit its struct: {misfit}"
            raise EmptcpError(sentence, fix="Make manifest and C struct agree.")
    for name in fragment.fields:
        if name not in declared and not _is_filler(name, declared):
            fix = "Declare it as a parameter, or call it reserved."
            raise EmptcpError(f"the struct of {what} has a member '{name}' that no parameter names", fix=fix)


def _is_filler(name: str, declared: set[str]) -> bool:
    """Return whether a member needs no parameter: padding, the stage's number, or the length of a list."""
    return (
        name == STAGE_ID or name.startswith(("reserved", "pad", "_")) or name.removesuffix("_len") in declared
    )
