# SPDX-License-Identifier: Apache-2.0
"""What an object file needs of a kernel, told from its code without loading it.

The code of a program is its own function and the ones it calls in ``.text``. Maps belong to the object:
libbpf creates all of them, whichever program is wanted.
"""

from __future__ import annotations

import functools
import io
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emptcp.pybpf import since
from emptcp.pybpf.elf import ObjectSpec
from emptcp.pybpf.errors import BpfError
from emptcp.pybpf.since import Version

_INSTRUCTION = struct.Struct("<BBhi")
_RELOCATION = struct.Struct("<QQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_WEAK, _UNDEFINED = 2, 0
_LD_IMM64, _CALL = 0x18, 0x85
_PSEUDO_CALL, _PSEUDO_FUNC = 1, 4


@dataclass(frozen=True, order=True)
class Need:
    """Something that came with a kernel: ``(5, 17)``, ``"bpf_loop"``."""

    version: Version
    what: str

    @property
    def text(self) -> str:
        """As one says it: ``"bpf_loop (5.17)"``."""
        return f"{self.what} ({since.text(self.version)})"


def of_program(path: str | os.PathLike[str], program: str) -> list[Need]:
    """Return what a program or fragment needs beyond :data:`since.BASE`, the newest last.

    ``program`` is its function. The object's maps are not among it.

    :raises BpfError: there is no such object or program.
    """
    spec = ObjectSpec.read(path)
    if program not in spec.programs:
        raise BpfError(f"{spec.path.name} has no program '{program}'")
    code = _code(spec)
    found = code.reached(program)
    return sorted({need for part in found for need in code.needs(part, spec.programs[program].kind)})


def of_maps(path: str | os.PathLike[str]) -> list[Need]:
    """Return what an object's maps need beyond :data:`since.BASE`, the newest last."""
    kinds = {one.kind for one in ObjectSpec.read(path).maps.values()}
    return sorted(Need(since.MAPS[kind], f"a map of kind {kind}") for kind in kinds if kind in since.MAPS)


def _code(spec: ObjectSpec) -> _Code:
    found = spec.path.stat()
    return _read(spec.path, (found.st_ino, found.st_size, found.st_mtime_ns))


@dataclass(frozen=True)
class _Symbol:
    name: str
    section: int
    value: int
    size: int
    weak: bool


@dataclass(frozen=True)
class _Part:
    """A function: its section and the bytes it has there."""

    section: int
    start: int
    end: int


class _Code:
    """Sections with code, by number, and what their instructions refer to, by section and offset."""

    def __init__(
        self, sections: dict[int, bytes], targets: dict[int, dict[int, _Symbol]], symbols: list[_Symbol]
    ) -> None:
        self._sections = sections
        self._targets = targets
        self._symbols = {one.name: one for one in symbols if one.section in sections}
        self._starts = self._find_starts(symbols)

    def reached(self, program: str) -> set[_Part]:
        """Return the function of a program and all that it calls, directly or not."""
        symbol = self._symbols[program]
        waiting = [_Part(symbol.section, symbol.value, symbol.value + symbol.size)]
        found: set[_Part] = set()
        while waiting:
            part = waiting.pop()
            if part not in found:
                found.add(part)
                waiting += (self._function(*place) for place in self._called(part))
        return found

    def needs(self, part: _Part, kind: str) -> Iterator[Need]:
        """Yield what the instructions of a function need in a program of a kind."""
        for offset, instruction in self._instructions(part):
            operation, registers, place, value = instruction
            source = registers >> 4
            symbol = self._targets.get(part.section, {}).get(offset)
            if operation == _CALL and symbol is not None and symbol.section == _UNDEFINED:
                yield from _kfunc(symbol)
            elif operation == _CALL and source == 0:
                yield from _helper(value, kind)
            elif operation == _LD_IMM64 and self._place(part.section, offset, instruction) is not None:
                yield Need(since.CALLBACKS, "the address of a function")
            else:
                yield from _instruction(operation, place, value)

    def _instructions(self, part: _Part) -> Iterator[tuple[int, tuple[int, int, int, int]]]:
        code = self._sections[part.section][part.start : part.end]
        second = False
        for number, instruction in enumerate(_INSTRUCTION.iter_unpack(code)):
            if not second:
                yield part.start + _INSTRUCTION.size * number, instruction
            second = not second and instruction[0] == _LD_IMM64

    def _called(self, part: _Part) -> Iterator[tuple[int, int]]:
        for offset, instruction in self._instructions(part):
            if (place := self._place(part.section, offset, instruction)) is not None:
                yield place

    def _place(
        self, section: int, offset: int, instruction: tuple[int, int, int, int]
    ) -> tuple[int, int] | None:
        """Return section and offset of the function that an instruction calls, or takes the address of."""
        operation, registers, _, value = instruction
        symbol = self._targets.get(section, {}).get(offset)
        if operation == _CALL and registers >> 4 == _PSEUDO_CALL:
            if symbol is None:
                return section, offset + _INSTRUCTION.size * (value + 1)
            # libbpf: the symbol, or the section's own one and a place counted in instructions.
            return self._known(symbol, symbol.value if symbol.name else _INSTRUCTION.size * (value + 1))
        if operation == _LD_IMM64 and symbol is not None:
            return self._known(symbol, symbol.value if symbol.name else value)
        return None

    def _known(self, symbol: _Symbol, offset: int) -> tuple[int, int] | None:
        return (symbol.section, offset) if symbol.section in self._sections else None

    def _find_starts(self, symbols: Iterable[_Symbol]) -> dict[int, list[int]]:
        """Return where functions begin, by section. Static ones may have no symbol, but are called."""
        starts = {number: {0, len(code)} for number, code in self._sections.items()}
        for one in symbols:
            if one.name and one.size and one.section in starts:
                starts[one.section].add(one.value)
        for number, code in self._sections.items():
            for section, offset in self._called(_Part(number, 0, len(code))):
                starts[section].add(offset)
        return {number: sorted(found) for number, found in starts.items()}

    def _function(self, section: int, offset: int) -> _Part:
        end = next((start for start in self._starts[section] if start > offset), offset)
        return _Part(section, offset, end)


@functools.lru_cache(maxsize=64)
def _read(path: Path, _identity: tuple[int, ...]) -> _Code:
    from elftools.elf.elffile import ELFFile

    elf = ELFFile(io.BytesIO(path.read_bytes()))
    sections = list(elf.iter_sections())
    code = {
        n: s.data() for n, s in enumerate(sections) if s["sh_flags"] & 4 and s["sh_type"] == "SHT_PROGBITS"
    }
    symbols = list(_symbols(elf))
    targets = {
        section["sh_info"]: {
            offset: symbols[info >> 32] for offset, info in _RELOCATION.iter_unpack(section.data())
        }
        for section in sections
        if section["sh_type"] == "SHT_REL" and section["sh_info"] in code
    }
    return _Code(code, targets, symbols)


def _symbols(elf: Any) -> Iterator[_Symbol]:
    """Yield the symbols. By hand: there are many local ones, and pyelftools takes its time for each."""
    table = elf.get_section_by_name(".symtab")
    names = elf.get_section(table["sh_link"]).data()
    for name, info, _, section, value, size in _SYMBOL.iter_unpack(table.data()):
        text = names[name : names.index(b"\0", name)].decode(errors="replace")
        yield _Symbol(text, section, value, size, info >> 4 == _WEAK)


def _kfunc(symbol: _Symbol) -> Iterator[Need]:
    # A weak one is asked for before it is called (bpf_ksym_exists): the program does without.
    if not symbol.weak:
        yield Need(since.KFUNCS.get(symbol.name, since.FIRST_KFUNC), symbol.name)


def _helper(number: int, kind: str) -> Iterator[Need]:
    if number in since.HELPERS:
        name, version = since.HELPERS[number]
        yield Need(version, name)
    elif number >= since.BEYOND:
        yield Need(since.HELPERS[since.BEYOND - 1][1], f"helper {number}")
    elif (number, kind) in since.IN_KINDS:
        name, version = since.IN_KINDS[number, kind]
        yield Need(version, f"{name} in {kind} programs")


# Instruction classes and codes: Documentation/bpf/standardization/instruction-set.rst of the kernel.
_LDX, _STX, _ALU, _JMP, _JMP32, _ALU64 = 1, 3, 4, 5, 6, 7
_MODE, _CODE = 0xE0, 0xF0
_SIGNED_LOAD, _ATOMIC = 0x80, 0xC0
_DIVIDE, _MODULO, _MOVE, _SWAP, _JUMP, _MAY_GOTO = 0x30, 0x90, 0xB0, 0xD0, 0x00, 0xE0
_LOAD_ACQUIRE, _STORE_RELEASE = 0x100, 0x110


def _instruction(operation: int, offset: int, value: int) -> Iterator[Need]:
    group, code = operation & 7, operation & _CODE
    if group == _STX and operation & _MODE == _ATOMIC and value in (_LOAD_ACQUIRE, _STORE_RELEASE):
        yield Need(since.ACQUIRE, "load_acquire and store_release")
    elif group == _STX and operation & _MODE == _ATOMIC and value:
        yield Need(since.ATOMICS, "atomics that give a value back, or do more than add")
    elif group == _JMP and code == _MAY_GOTO:
        yield Need(since.MAY_GOTO, "may_goto")
    elif _is_v4(group, code, operation, offset):
        yield Need(since.CPU_V4, "instructions of -mcpu=v4")


def _is_v4(group: int, code: int, operation: int, offset: int) -> bool:
    if group == _LDX:
        return operation & _MODE == _SIGNED_LOAD
    if group in (_ALU, _ALU64):
        signed = code in (_DIVIDE, _MODULO, _MOVE) and offset != 0
        return signed or (group == _ALU64 and code == _SWAP)
    return group == _JMP32 and code == _JUMP
