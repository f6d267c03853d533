# SPDX-License-Identifier: Apache-2.0
"""Open and load objects with libbpf: their maps reused or pinned, their programs ready to attach."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from emptcp.pybpf import image, kinds
from emptcp.pybpf.btf import Btf
from emptcp.pybpf.errors import BpfError, failed
from emptcp.pybpf.libbpf import Library, collect, library
from emptcp.pybpf.likeness import MapMismatch, Shape, differences, of_map
from emptcp.pybpf.map import Map
from emptcp.pybpf.program import LOG_SIZE, Program, log_room
from emptcp.pybpf.verifier import VerifierError, keep_log

# Sections of fragments. They are no programs of their own: capture() takes them, load_object() leaves them
# out.
FRAGMENTS = ("emptcp.xdp", "emptcp.tc")


def is_fragment(section: str, backend: str = "") -> bool:
    """Return whether a section holds a fragment, of one back-end alone where that is said."""
    kind = section.split("/", 1)[0]
    return kind in FRAGMENTS and kind.endswith(backend)


@dataclass(frozen=True)
class ProgramHandle:
    """libbpf's program while its object is open: the pointer, the function's name, the section."""

    pointer: Any
    name: str
    section: str


class OpenedObject:
    """An object file that libbpf has open. Internal to pybpf: see :func:`load_object` and ``capture``.

    libbpf holds descriptors of its own until it is closed.
    """

    _pointer: Any = None

    def __init__(self, path: Path) -> None:
        self.path = path
        self._library = library()
        self._log = log_room()
        self._pointer = self._open()
        self._maps: dict[str, Any] | None = None

    def _open(self) -> Any:
        opened = self._library
        if not self.path.is_file():
            raise BpfError(f"there is no object file {self.path}")
        self._image = image.read(self.path)
        # As libbpf names what it opens by path.
        name = opened.ffi.new("char[]", os.fsencode(self.path.name.partition(".")[0]))
        opts = opened.options(
            "bpf_object_open_opts",
            object_name=name,
            kernel_log_buf=self._log,
            kernel_log_size=LOG_SIZE,
        )
        with collect() as said:
            pointer = opened.function("bpf_object__open_mem")(self._image, len(self._image), opts)
        if pointer == opened.ffi.NULL:
            reason = _last(said) or "libbpf cannot read it"
            raise BpfError(f"{self.path.name} is no BPF object: {reason}", log="\n".join(said))
        return pointer

    @property
    def pointer(self) -> Any:
        """libbpf's object.

        :raises BpfError: it was closed.
        """
        if self._pointer is None:
            raise BpfError(f"the object {self.path.name} was closed")
        return self._pointer

    def close(self) -> None:
        """Free the object, and with it the descriptors that relocated instructions refer to."""
        pointer, self._pointer = self._pointer, None
        if pointer is not None:
            self._library.function("bpf_object__close")(pointer)

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        if self._pointer is not None:
            _warn(f"unclosed object {self.path.name}", ResourceWarning, stacklevel=2, source=self)
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def btf(self) -> Btf:
        """Return the object's types as libbpf has them now.

        :raises BpfError: it was compiled without them.
        """
        return Btf.read(self.raw_btf())

    def raw_btf(self) -> bytes:
        """Return the same as bytes, which nobody has looked at."""
        opened = self._library
        pointer = opened.function("bpf_object__btf")(self.pointer)
        if pointer == opened.ffi.NULL:
            raise BpfError(f"{self.path.name} has no BTF", fix="Compile it with -g.")
        size = opened.ffi.new("uint32_t *")
        data = opened.function("btf__raw_data")(pointer, size)
        return bytes(opened.ffi.buffer(data, size[0]))

    def programs(self) -> list[ProgramHandle]:
        """Return the object's programs."""
        opened = self._library
        pointers = _walk(opened, "bpf_object__next_program", self.pointer)
        name, section = (opened.function(f"bpf_program__{f}") for f in ("name", "section_name"))
        return [ProgramHandle(p, opened.text(name(p)), opened.text(section(p))) for p in pointers]

    def maps(self) -> dict[str, Any]:
        """Return libbpf's maps by the names they have in the object."""
        if self._maps is None:
            opened = self._library
            name = opened.function("bpf_map__name")
            pointers = _walk(opened, "bpf_object__next_map", self.pointer)
            # Once: libbpf gives a map that is reused the name of the existing one (bpf_map__reuse_fd).
            self._maps = {opened.text(name(pointer)): pointer for pointer in pointers}
        return self._maps

    def load_only(self, wanted: Callable[[ProgramHandle], bool]) -> None:
        """Switch the loading of programs on or off."""
        switch = self._library.function("bpf_program__set_autoload")
        for program in self.programs():
            switch(program.pointer, wanted(program))

    def substitute(self, maps: Mapping[str, Map]) -> None:
        """Let the object use existing maps for those of its own that have their names.

        :raises BpfError: kind or key size differ, or the existing value is smaller than the object's.
        """
        for name, pointer in self.maps().items():
            if name in maps:
                self._fits(name, pointer, maps[name])
                self._reuse(name, pointer, maps[name])

    def _fits(self, name: str, pointer: Any, existing: Map) -> None:
        get = self._getter(pointer)
        info = existing.info
        kind = kinds.name(kinds.MAPS, get("type"))
        wanted, there = (kind, get("key_size")), (info.kind, info.key_size)
        # A value may have grown at its end since the object was compiled.
        if wanted == there and get("value_size") <= info.value_size:
            return
        raise BpfError(
            f"{self.path.name}: its map '{name}' ({kind}, key {get('key_size')} B, value "
            f"{get('value_size')} B) does not fit the existing one "
            f"({info.kind}, key {info.key_size} B, value {info.value_size} B)",
            fix="Compile the object against the installed headers.",
        )

    def _reuse(self, name: str, pointer: Any, existing: Map) -> None:
        code = self._library.function("bpf_map__reuse_fd")(pointer, existing.fd)
        if code < 0:
            raise failed(f"{self.path.name}: cannot use the existing map for '{name}'", code)

    def _getter(self, pointer: Any) -> Callable[[str], int]:
        return lambda field: int(self._library.function(f"bpf_map__{field}")(pointer))

    def share(
        self, existing: Mapping[str, Map] | None = None, borrowed: Mapping[str, Shape] | None = None
    ) -> None:
        """Let the object use maps made by or for others, after a comparison field by field.

        :param existing: the maps that are there, by the names the object has for them.
        :param borrowed: maps that belong to another object, as that one defines them; one of these that does
            not exist yet is made like that.
        :raises MapMismatch: a map differs; each difference is named.
        """
        existing, borrowed = existing or {}, borrowed or {}
        for name, pointer in self.maps().items():
            there = of_map(existing[name]) if name in existing else borrowed.get(name)
            if there is None:
                continue
            found = differences(self._shape(pointer), there, borrowed=name in borrowed)
            if found:
                raise MapMismatch(self.path, name, found)
            if name in existing:
                self._reuse(name, pointer, existing[name])
            else:
                self._make_like(name, pointer, there)

    def _shape(self, pointer: Any) -> Shape:
        get = self._getter(pointer)
        return Shape(
            kinds.name(kinds.MAPS, get("type")),
            get("key_size"),
            get("value_size"),
            get("max_entries"),
            get("map_flags"),
            _types(self),
            get("btf_key_type_id"),
            get("btf_value_type_id"),
        )

    def _make_like(self, name: str, pointer: Any, there: Shape) -> None:
        for field, value in (("max_entries", there.max_entries), ("map_flags", there.flags)):
            code = self._library.function(f"bpf_map__set_{field}")(pointer, value)
            if code < 0:
                raise failed(f"{self.path.name}: cannot make the map '{name}'", code)

    def fill(self, constants: Mapping[str, bytes]) -> None:
        """Write the constants of whole sections, before they are frozen.

        :raises BpfError: there is no such section, or it has another size.
        """
        sections = self.maps()
        for name, data in constants.items():
            if name not in sections:
                raise BpfError(f"{self.path.name} has no section {name}", fix="Compile it again.")
            code = self._library.function("bpf_map__set_initial_value")(sections[name], data, len(data))
            if code < 0:
                raise failed(f"{self.path.name}: cannot fill section {name} with {len(data)} bytes", code)

    def load(self) -> None:
        """Create the maps and load the programs that are switched on.

        :raises VerifierError: a program is rejected.
        :raises BpfError: anything else is.
        """
        with collect() as said:
            code = self._library.function("bpf_object__load")(self.pointer)
        if code < 0:
            raise self._refused(code, said)

    def _refused(self, code: int, said: list[str]) -> BpfError:
        text, messages = self._library.text(self._log), "\n".join(said)
        blamed = re.search(r"prog '([^']+)': (?:BPF program load failed|failed to load)", messages)
        if blamed and "processed " in text:
            name = blamed.group(1)
            what = f"'{name}' of {self.path.name}"
            return VerifierError(what, errno=-code, log=text, log_file=keep_log(name, text))
        error = failed(f"cannot load {self.path.name}", code, log=messages + "\n" + text)
        reason = _reason(said)
        if reason:
            error.sentence = f"{error.sentence}: {reason}"
        return error

    def loaded_maps(self) -> dict[str, Map]:
        """Return owners of the object's maps, which outlive it."""
        return {name: Map(os.dup(fd)) for name, fd in self.map_descriptors().items()}

    def map_descriptors(self) -> dict[str, int]:
        """Return libbpf's own descriptors of the maps, which instructions refer to."""
        get = self._library.function("bpf_map__fd")
        descriptors = {name: get(pointer) for name, pointer in self.maps().items()}
        return {name: fd for name, fd in descriptors.items() if fd >= 0}

    def loaded_programs(self) -> dict[str, Program]:
        """Return owners of the object's loaded programs, which outlive it."""
        get = self._library.function("bpf_program__fd")
        descriptors = {program.name: get(program.pointer) for program in self.programs()}
        return {name: Program(os.dup(fd)) for name, fd in descriptors.items() if fd >= 0}


@dataclass
class LoadedObject:
    """The programs and maps of an object in the kernel, by name. A context manager."""

    path: Path
    programs: dict[str, Program]
    maps: dict[str, Map]
    btf: Btf | None

    def close(self) -> None:
        """Close all programs and maps."""
        for owned in (*self.programs.values(), *self.maps.values()):
            owned.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


def load_object(
    path: str | os.PathLike[str],
    maps: Mapping[str, Map] | None = None,
    *,
    existing: Mapping[str, Map] | None = None,
    borrowed: Mapping[str, Shape] | None = None,
    programs: Collection[str] | None = None,
    constants: Mapping[str, bytes] | None = None,
) -> LoadedObject:
    """Load an ordinary object.

    Its programs stand in libbpf's own sections: ``xdp``, ``tc``, ``iter/tcp``, ``sockops``, ``raw_tp/..``.

    :param maps: existing maps to use for those of the same name.
    :param existing: maps to use likewise, which must be alike field by field.
    :param borrowed: maps that another object defines, as it defines them: see ``OpenedObject.share``.
    :param programs: names of the functions to load, by default all that are no fragments.
    :param constants: section (``.rodata.x``) -> what its constants are to be.
    :raises VerifierError: a program is rejected.
    :raises BpfError: the file is no object, a map does not fit, or the kernel refuses.
    """
    with OpenedObject(Path(path)) as opened:
        opened.load_only(
            lambda program: (
                not is_fragment(program.section) and (programs is None or program.name in programs)
            )
        )
        opened.substitute(maps or {})
        opened.share(existing, borrowed)
        opened.fill(constants or {})
        opened.load()
        return LoadedObject(opened.path, opened.loaded_programs(), opened.loaded_maps(), _types(opened))


def _types(opened: OpenedObject) -> Btf | None:
    try:
        return opened.btf()
    except BpfError:
        return None


def _walk(opened: Library, function: str, owner: Any) -> list[Any]:
    following = opened.function(function)
    found = []
    pointer = following(owner, opened.ffi.NULL)
    while pointer != opened.ffi.NULL:
        found.append(pointer)
        pointer = following(owner, pointer)
    return found


def _plain(line: str) -> str:
    return line.removeprefix("libbpf: ").strip()


def _last(said: list[str]) -> str:
    return _plain(said[-1]) if said else ""


def _reason(said: list[str]) -> str:
    """Return libbpf's first sentence about what failed, not about what it tried next."""
    lines = (_plain(line) for line in said)
    return next((line for line in lines if "Retrying" not in line), "")
