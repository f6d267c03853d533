# SPDX-License-Identifier: Apache-2.0
"""What an object file holds, read without libbpf, root or the kernel.

The same file gives the same answer on any machine.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from emptcp.pybpf import kinds
from emptcp.pybpf.btf import Btf
from emptcp.pybpf.errors import BpfError

EM_BPF = 247
_CODE = 0x4  # SHF_EXECINSTR
_FRAME = 10  # r10, the frame pointer

# The kind of program that a section's name means, by its first part (libbpf's section_defs, and ours).
_SECTIONS = {
    "emptcp.xdp": "xdp", "emptcp.tc": "sched_cls", "xdp": "xdp", "xdp.frags": "xdp", "tc": "sched_cls",
    "tcx": "sched_cls", "classifier": "sched_cls", "sockops": "sock_ops", "iter": "tracing",
    "fentry": "tracing", "fexit": "tracing", "tp_btf": "tracing", "raw_tp": "raw_tracepoint",
    "raw_tracepoint": "raw_tracepoint", "tp": "tracepoint", "tracepoint": "tracepoint", "kprobe": "kprobe",
    "cgroup_skb": "cgroup_skb", "socket": "socket_filter",
}  # fmt: skip


@dataclass(frozen=True)
class ProgramSpec:
    """A program or fragment: its function, its section, the kind the section means (empty: unknown).

    ``instructions`` counts those of the function itself, ``stack`` the bytes of its own frame, both without
    the subprograms it calls.
    """

    name: str
    section: str
    kind: str
    instructions: int
    stack: int


@dataclass(frozen=True)
class MapSpec:
    """A map that the object defines. Sizes are bytes; type ids are of the object's BTF, 0 for none."""

    name: str
    kind: str
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    key_type: int
    value_type: int


@dataclass(frozen=True)
class _Section:
    name: str
    index: int
    flags: int
    data: bytes


@dataclass(frozen=True)
class _Function:
    name: str
    section: int
    start: int
    size: int


class ObjectSpec:
    """An object file, described. ``content`` is all of it."""

    def __init__(
        self, path: Path, content: bytes, sections: list[_Section], functions: list[_Function]
    ) -> None:
        self.path = path
        self.content = content
        self._sections = sections
        self._functions = functions

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> ObjectSpec:
        """Read an object file; the answer is kept as long as the file is the same.

        :raises BpfError: there is none, or it is no BPF object.
        """
        path = Path(path)
        try:
            found = path.stat()
            return _opened(path, (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns))
        except OSError as problem:
            raise BpfError(f"cannot read the object file {path}: {problem.strerror}") from None

    def section(self, name: str) -> bytes | None:
        """Return the content of a section, or None."""
        return next((section.data for section in self._sections if section.name == name), None)

    @cached_property
    def digest(self) -> bytes:
        """The SHA-256 of the file."""
        return hashlib.sha256(self.content).digest()

    @property
    def license(self) -> str:
        """The licence the object states; empty if it states none."""
        return (self.section("license") or b"").split(b"\0")[0].decode(errors="replace")

    @cached_property
    def btf(self) -> Btf:
        """The object's types.

        :raises BpfError: it has none, or they are broken.
        """
        data = self.section(".BTF")
        if not data:
            raise BpfError(f"{self.path.name} has no BTF", fix="Compile it with -g.")
        return Btf.read(data)

    @cached_property
    def programs(self) -> dict[str, ProgramSpec]:
        """The programs and fragments by function name, in the file's order."""
        sections = {section.index: section for section in self._sections if _is_code(section)}
        found = (f for f in self._functions if f.section in sections)
        return {f.name: _program(f, sections[f.section]) for f in found}

    @cached_property
    def maps(self) -> dict[str, MapSpec]:
        """The maps that are defined in ``.maps``, by name, in the file's order.

        :raises BpfError: a definition is not understood.
        """
        if self.section(".maps") is None:
            return {}
        variables = self.btf.variables(".maps")
        return {name: _map(self.btf, name, entry[2]) for name, entry in variables.items()}


@lru_cache(maxsize=64)
def _opened(path: Path, _identity: tuple[int, ...]) -> ObjectSpec:
    content = path.read_bytes()
    return ObjectSpec(path, content, *_read(path, content))


def _read(path: Path, data: bytes) -> tuple[list[_Section], list[_Function]]:
    from elftools.elf.elffile import ELFFile

    try:
        elf = ELFFile(io.BytesIO(data))
        if elf.header["e_machine"] not in ("EM_BPF", EM_BPF):
            raise BpfError(f"{path.name} is no BPF object: it was compiled for another machine")
        return _sections(elf), _functions(elf)
    except BpfError:
        raise
    except Exception as problem:  # pyelftools trusts a file's numbers, so damage surfaces as anything
        raise BpfError(f"{path.name} is no BPF object: {_one_line(problem)}") from None


def _one_line(problem: Exception) -> str:
    text = str(problem).strip().splitlines()
    return text[0] if text else "it is broken"


def _sections(elf: Any) -> list[_Section]:
    return [
        _Section(section.name, index, section["sh_flags"], section.data())
        for index, section in enumerate(elf.iter_sections())
        if section["sh_type"] == "SHT_PROGBITS"
    ]


def _functions(elf: Any) -> list[_Function]:
    table = elf.get_section_by_name(".symtab")
    # Global symbols stand behind the local ones, which are many and cost (ELF: sh_info of a symbol table).
    numbers = range(table["sh_info"], table.num_symbols()) if table is not None else ()
    symbols = (table.get_symbol(number) for number in numbers)
    found = [
        _Function(symbol.name, symbol["st_shndx"], symbol["st_value"], symbol["st_size"])
        for symbol in symbols
        if symbol["st_info"]["type"] == "STT_FUNC" and symbol["st_info"]["bind"] == "STB_GLOBAL"
    ]
    return sorted(found, key=lambda f: (f.section, f.start))


def _is_code(section: _Section) -> bool:
    # What stands in .text is called by programs and is none itself.
    return bool(section.flags & _CODE) and section.name != ".text"


def _program(function: _Function, section: _Section) -> ProgramSpec:
    code = section.data[function.start : function.start + function.size]
    kind = _SECTIONS.get(section.name.split("/", 1)[0], "")
    return ProgramSpec(function.name, section.name, kind, len(code) // 8, stack(code))


def stack(code: bytes) -> int:
    """Return how many bytes below the frame pointer instructions of one function reach."""
    deepest = 0
    copies: set[int] = set()
    for operation, registers, offset, value in struct.iter_unpack("<BBhi", code):
        dst, src = registers & 0xF, registers >> 4
        loads, stores = operation & 7 == 1, operation & 7 in (2, 3)
        if (loads and src == _FRAME) or (stores and dst == _FRAME):
            deepest = min(deepest, offset)
        if operation == 0x07 and dst in copies:
            deepest = min(deepest, value)
        # A copy of the frame pointer, until something else is put in the register.
        copies = copies | {dst} if operation == 0xBF and src == _FRAME else copies - {dst}
    return -deepest


def _map(btf: Btf, name: str, type_id: int) -> MapSpec:
    numbers: dict[str, int] = {}
    types: dict[str, int] = {}
    for member in btf.members(type_id):
        target = btf.resolve(member.type_id)
        if target.kind != "ptr":
            continue
        types[member.name] = target.ref
        pointed = btf.resolve(target.ref)
        if pointed.kind == "array":
            numbers[member.name] = pointed.extra[0][2]
    if "type" not in numbers:
        raise BpfError(f"the map '{name}' does not say its type")
    return _spec(btf, name, numbers, types)


def _spec(btf: Btf, name: str, numbers: dict[str, int], types: dict[str, int]) -> MapSpec:
    key, value = types.get("key", 0), types.get("value", 0)
    return MapSpec(
        name=name,
        kind=kinds.name(kinds.MAPS, numbers["type"]),
        key_size=btf.size(key) if key else numbers.get("key_size", 0),
        value_size=btf.size(value) if value else numbers.get("value_size", 0),
        max_entries=numbers.get("max_entries", 0),
        flags=numbers.get("map_flags", 0),
        key_type=key,
        value_type=value,
    )
