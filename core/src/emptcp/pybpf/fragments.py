# SPDX-License-Identifier: Apache-2.0
"""Take fragments out of an object as libbpf would load them, without loading them.

A fragment takes five arguments and is no program by itself: the kernel would reject it. libbpf still does
for it what it does for programs: creates maps, applies CO-RE and map relocations, appends the subprograms
that are called, adjusts func_info and line_info. A section handler with a prepare-load callback sees the
result last, copies it, and puts a stand-in of two instructions in its place, which libbpf then loads and
drops with the object.
"""

from __future__ import annotations

import errno
import os
import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Self

from emptcp.pybpf import kinds
from emptcp.pybpf.btf import Btf
from emptcp.pybpf.errors import BpfError, failed
from emptcp.pybpf.libbpf import Library, library
from emptcp.pybpf.likeness import Shape
from emptcp.pybpf.map import Map
from emptcp.pybpf.object import OpenedObject, is_fragment
from emptcp.pybpf.program import INSTRUCTION
from emptcp.pybpf.verifier import Line

# r0 = 0; exit
STAND_IN = bytes.fromhex("b7000000000000009500000000000000")
# struct bpf_insn: opcode, registers, offset, immediate. This one loads a map's address (source register
# BPF_PSEUDO_MAP_FD) or that of a place in its value (BPF_PSEUDO_MAP_VALUE).
_FORM, _LD_IMM64, _MAPS = struct.Struct("<BBhi"), 0x18, (1, 2)
_HANDLED = {"emptcp.xdp+": "xdp", "emptcp.tc+": "sched_cls"}
_active = threading.local()
_registering = threading.Lock()


@dataclass(frozen=True)
class Fragment:
    """A fragment's final instructions.

    ``instructions`` has 8 bytes each: the body first, then the subprograms it calls. Map references hold
    descriptors of the maps that the object was given, so that a function is the same code in all objects, and
    of its own; both must stay open until they are loaded. ``functions`` is (offset, FUNC type id) of the body
    and of each subprogram; both count from the fragment's first instruction, ids are of the object's BTF.
    """

    function: str
    section: str
    instructions: bytes
    functions: tuple[tuple[int, int], ...]
    types: Btf = field(repr=False, compare=False)
    line_records: bytes = field(repr=False)

    @cached_property
    def lines(self) -> tuple[Line, ...]:
        """Its line information; made when it is asked for, since most fragments of an object are not."""
        return _lines(self.types, self.line_records)

    @property
    def count(self) -> int:
        """How many instructions there are, subprograms included."""
        return len(self.instructions) // INSTRUCTION

    @property
    def body(self) -> int:
        """How many instructions the body has: up to the first subprogram."""
        return self.functions[1][0] if len(self.functions) > 1 else self.count


@dataclass(frozen=True)
class _Raw:
    function: str
    section: str
    instructions: bytes
    functions: bytes
    lines: bytes


class CapturedObject:
    """An object whose maps exist and whose fragments are known. A context manager.

    Keep it and the maps it was given open until programs made of the fragments are loaded; its own maps are
    closed with it.
    """

    def __init__(
        self, opened: OpenedObject, fragments: dict[str, Fragment], maps: dict[str, Map], btf: Btf
    ) -> None:
        self._opened = opened
        self.path = opened.path
        self.fragments = fragments
        self.maps = maps
        self.btf = btf

    def close(self) -> None:
        """Close the object and its maps."""
        self._opened.close()
        for owned in self.maps.values():
            owned.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


def capture(
    path: str | os.PathLike[str],
    maps: Mapping[str, Map] | None = None,
    existing: Mapping[str, Map] | None = None,
    borrowed: Mapping[str, Shape] | None = None,
    backend: str = "",
) -> CapturedObject:
    """Open an object and take its fragments (sections ``emptcp.xdp/..`` and ``emptcp.tc/..``), by section.

    :param maps: existing maps to use for those of the same name; their values may be longer than the
        object's.
    :param existing: maps to use likewise, which must be alike field by field.
    :param borrowed: maps that another object defines, as it defines them: see ``OpenedObject.share``.
    :param backend: ``"xdp"`` or ``"tc"``, to take the fragments of that alone.
    :raises MapMismatch: an existing or borrowed map differs.
    :raises BpfError: the file is no object, has no BTF, a map does not fit, or the kernel refuses a map.
    """
    _register()
    opened = OpenedObject(Path(path))
    try:
        opened.raw_btf()  # refuse an object without types before anything is made of it
        opened.load_only(lambda program: is_fragment(program.section, backend))
        opened.substitute(maps or {})
        opened.share(existing, borrowed)
        raws = _load(opened)
        if not all(raw.functions for raw in raws):
            raise BpfError(
                f"{opened.path.name}: this kernel refuses its types, which tell its functions apart",
                fix="Compile it with the flags of emptcp-sdk, or use a newer kernel.",
            )
        btf = opened.btf()
        own, handed = opened.map_descriptors(), {**(existing or {}), **(maps or {})}
        same = {own[name]: one.fd for name, one in handed.items() if name in own}
        return CapturedObject(opened, _fragments(raws, btf, same), opened.loaded_maps(), btf)
    except BaseException:
        opened.close()
        raise


def _load(opened: OpenedObject) -> list[_Raw]:
    """Load the object with the callback switched on for this thread, and return what it copied."""
    _active.raws, _active.problem = [], None
    try:
        opened.load()
    except Exception:
        if _active.problem is not None:
            raise _active.problem from None
        raise
    finally:
        raws, _active.raws = _active.raws, None
    return list(raws)


@lru_cache(maxsize=1)
def _register_once() -> list[Any]:
    opened = library()
    callback = opened.ffi.callback(
        "int(struct bpf_program *, struct bpf_prog_load_opts *, long)",
        lambda program, opts, _cookie: _prepare(opened, program, opts),
        error=-errno.ECANCELED,
    )
    handler = opened.options("libbpf_prog_handler_opts", prog_prepare_load_fn=callback)
    register = opened.function("libbpf_register_prog_handler")
    for section, kind in _HANDLED.items():
        code = register(section.encode(), kinds.PROGRAMS[kind], 0, handler)
        if code < 0:
            raise failed(f"libbpf refuses a handler for the section {section}", code)
    # libbpf calls it as long as the process lives: whoever holds this list keeps it alive.
    return [callback, handler]


def _register() -> None:
    with _registering:
        _register_once()


def _prepare(opened: Library, program: Any, opts: Any) -> int:
    """Copy a program that libbpf is about to load, and let it load the stand-in instead."""
    try:
        if _active.raws is not None:
            _active.raws.append(_copy(opened, program, opts))
        stand_in = opened.ffi.from_buffer(STAND_IN)
        count = len(STAND_IN) // INSTRUCTION
        opts.func_info_cnt = opts.line_info_cnt = 0
        opts.func_info = opts.line_info = opened.ffi.NULL
        return int(opened.function("bpf_program__set_insns")(program, stand_in, count))
    except Exception as problem:  # an exception cannot pass through libbpf
        _active.problem = problem
        return -errno.ECANCELED


def _copy(opened: Library, program: Any, opts: Any) -> _Raw:
    ffi = opened.ffi
    count = opened.function("bpf_program__insn_cnt")(program)
    instructions = opened.function("bpf_program__insns")(program)

    def records(pointer: Any, number: int, size: int) -> bytes:
        return bytes(ffi.buffer(pointer, number * size)) if number else b""

    return _Raw(
        function=opened.text(opened.function("bpf_program__name")(program)),
        section=opened.text(opened.function("bpf_program__section_name")(program)),
        instructions=bytes(ffi.buffer(instructions, count * INSTRUCTION)),
        functions=_narrow(
            records(opts.func_info, opts.func_info_cnt, opts.func_info_rec_size), opts.func_info_rec_size, 8
        ),
        lines=_narrow(
            records(opts.line_info, opts.line_info_cnt, opts.line_info_rec_size), opts.line_info_rec_size, 16
        ),
    )


def _narrow(records: bytes, size: int, wanted: int) -> bytes:
    """Cut records of a newer, longer layout down to the fields known here."""
    if size <= wanted:
        return records
    return b"".join(records[start : start + wanted] for start in range(0, len(records), size))


def _fragments(raws: list[_Raw], btf: Btf, same: Mapping[int, int]) -> dict[str, Fragment]:
    return {
        raw.section: Fragment(
            function=raw.function,
            section=raw.section,
            instructions=_referring(raw.instructions, same),
            functions=tuple(struct.iter_unpack("<II", raw.functions)),
            types=btf,
            line_records=raw.lines,
        )
        for raw in raws
    }


def _referring(code: bytes, same: Mapping[int, int]) -> bytes:
    """Return code that refers to maps by other descriptors: ``same`` has those to use, by those it has."""
    changed, operations = bytearray(code), code[::INSTRUCTION]
    number = operations.find(_LD_IMM64)
    while number >= 0:
        start = number * INSTRUCTION
        _, registers, _, fd = _FORM.unpack_from(code, start)
        if registers >> 4 in _MAPS and fd in same:
            _FORM.pack_into(changed, start, _LD_IMM64, registers, 0, same[fd])
        number = operations.find(_LD_IMM64, number + 1)
    return bytes(changed)


@lru_cache(maxsize=128)
def _lines(btf: Btf, records: bytes) -> tuple[Line, ...]:
    """Return line information; both hooks of a device have that of the same objects."""
    return tuple(
        Line(offset, btf.string(file), btf.string(text), place >> 10, place & 0x3FF)
        for offset, file, text, place in struct.iter_unpack("<IIII", records)
    )
