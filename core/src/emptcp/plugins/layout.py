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
from typing import TYPE_CHECKING, NamedTuple

from emptcp.errors import EmptcpError
from emptcp.plugins.manifest import BACKENDS
from emptcp.policy.values import Field

if TYPE_CHECKING:
    from emptcp.pybpf.btf import Btf, Member
    from emptcp.pybpf.elf import MapSpec

STAGE_ID = "stage_id"
"""The member of a parameter struct that core fills with the number of the stage (``emptcp/actor.h``)."""

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


class Abi(NamedTuple):
    """What a fragment says that it is made for: the chain's ABI, and the version of the headers."""

    chain: int
    headers: int


@dataclass(frozen=True)
class ObjectLayout:
    """All fragments of an object, by name, its socket companions, their ABI, and the object's maps."""

    path: Path
    fragments: Mapping[str, FragmentLayout]
    abi: Mapping[str, Abi]
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


def _abi(section: bytes) -> Iterator[tuple[str, Abi]]:
    """Yield the fragment's name and its ABI of each record; records grow at their end."""
    at = 0
    while at + _RECORD.size <= len(section):
        size, chain, headers, _kind, _flags, _reserved, name = _RECORD.unpack_from(section, at)
        yield name.split(b"\0")[0].decode("ascii", "replace"), Abi(chain, headers)
        at += max(size, _RECORD.size)
