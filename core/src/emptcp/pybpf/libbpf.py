# SPDX-License-Identifier: Apache-2.0
"""Find libbpf, open it through cffi in ABI mode, and collect what it says.

Nothing is opened at import. The finder's order: the path in ``EMPTCP_LIBBPF``; a wheel that carries libbpf
(import package ``emptcp_libbpf``), if one is installed; the system's ``libbpf.so.1``.
"""

from __future__ import annotations

import importlib.util
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emptcp.pybpf.declarations import FUNCTIONS
from emptcp.pybpf.errors import BpfError, MissingFeature

SONAME = "libbpf.so.1"
CARRIER = "emptcp_libbpf"

_DEBUG = 2  # LIBBPF_DEBUG, behind LIBBPF_WARN and LIBBPF_INFO
_collecting = threading.local()
_opening = threading.Lock()
_opened: Library | None = None


@dataclass(frozen=True)
class Library:
    """An open libbpf: where it came from, its version, and the functions it lacks."""

    path: str
    version: tuple[int, int]
    missing: tuple[str, ...]
    ffi: Any = field(repr=False)
    lib: Any = field(repr=False)
    libc: Any = field(repr=False)
    _print: Any = field(repr=False)

    def function(self, name: str) -> Any:
        """Return a function of libbpf.

        :raises MissingFeature: this libbpf does not have it.
        """
        try:
            return getattr(self.lib, name)
        except (AttributeError, self.ffi.error):  # not declared, or not in this library
            version = ".".join(map(str, self.version))
            raise MissingFeature(
                f"libbpf {version} ({self.path}) has no {name}",
                fix="Install libbpf 1.1 or later, or set EMPTCP_LIBBPF to one.",
            ) from None

    def options(self, struct: str, **fields: Any) -> Any:
        """Return a libbpf options struct with its size and the given fields set."""
        opts = self.ffi.new(f"struct {struct} *")
        opts.sz = self.ffi.sizeof(f"struct {struct}")
        for name, value in fields.items():
            setattr(opts, name, value)
        return opts

    def text(self, pointer: Any) -> str:
        """Return a C string as text."""
        return "" if pointer == self.ffi.NULL else self.ffi.string(pointer).decode(errors="replace")


@contextmanager
def collect() -> Iterator[list[str]]:
    """Collect libbpf's messages of this thread in the list this yields; outside, they are dropped."""
    before = getattr(_collecting, "lines", None)
    _collecting.lines = []
    try:
        yield _collecting.lines
    finally:
        _collecting.lines = before


def library() -> Library:
    """Return the process's libbpf, opened at the first call.

    :raises BpfError: there is none; names all three places that were looked at.
    """
    global _opened
    if _opened is None:
        with _opening:  # another thread may have been first
            if _opened is None:
                _opened = _open_first()
    return _opened


def _open_first() -> Library:
    named = os.environ.get("EMPTCP_LIBBPF", "")
    if named:
        return _open(named, f"EMPTCP_LIBBPF={named}")
    carried = carried_library()
    for candidate in filter(None, (carried, SONAME)):
        try:
            return _open(candidate, candidate)
        except OSError:
            continue
    raise BpfError(
        f"libbpf was not found: EMPTCP_LIBBPF is not set, the wheel {CARRIER} is "
        f"{'broken' if carried else 'not installed'}, and the system has no {SONAME}",
        fix="Install the Debian package libbpf1, or set EMPTCP_LIBBPF to the path of a libbpf.so.1.",
    )


def carried_library() -> str | None:
    """Return the libbpf inside the installed carrier wheel, without importing the wheel.

    None if there is none.
    """
    spec = importlib.util.find_spec(CARRIER)
    folders = list(spec.submodule_search_locations or []) if spec else []
    found = [
        path
        for folder in folders
        for root in (Path(folder), Path(folder).parent / f"{CARRIER}.libs")
        for path in sorted(root.rglob("libbpf*.so*"))
    ]
    return str(found[0]) if found else None


def _open(path: str, said: str) -> Library:
    from emptcp.pybpf.declared import ffi

    try:
        lib = ffi.dlopen(path)
    except OSError as problem:
        if said == path:
            raise
        raise BpfError(
            f"{said} could not be opened as libbpf: {_why(problem)}", fix="Correct or unset EMPTCP_LIBBPF."
        ) from None
    libc = ffi.dlopen(None)
    version = _version(ffi, lib, said)
    handler = _print_handler(ffi, libc)
    lib.libbpf_set_print(handler)
    missing = tuple(name for name in declared_functions() if not _has(ffi, lib, name))
    return Library(_real_path(path), version, missing, ffi, lib, libc, handler)


def _why(problem: OSError) -> str:
    """Return the loader's own words; cffi repeats the path before them."""
    return str(problem).removeprefix("cannot load library ").split("': ", 1)[-1]


def declared_functions() -> list[str]:
    """Return the names of all functions of libbpf that emptcp uses."""
    return re.findall(r"(\w+)\((?!\*)[^;]*\);", FUNCTIONS)


def _has(ffi: Any, lib: Any, name: str) -> bool:
    try:
        getattr(lib, name)
    except ffi.error:
        return False
    return True


def _version(ffi: Any, lib: Any, said: str) -> tuple[int, int]:
    try:
        version = (lib.libbpf_major_version(), lib.libbpf_minor_version())
    except ffi.error:
        version = (0, 0)
    if version < (1, 0):
        raise BpfError(
            f"{said} is libbpf {version[0]}.{version[1]}, and emptcp needs 1.0 or later",
            fix="Install a newer libbpf, or set EMPTCP_LIBBPF to one.",
        )
    return version


def _real_path(path: str) -> str:
    """Return the file a soname was resolved to, as this process has it mapped."""
    name = Path(path).name
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        mapped = [line.split(maxsplit=5)[5].strip() for line in maps if name.split(".so")[0] in line]
    return mapped[0] if mapped else path


def _print_handler(ffi: Any, libc: Any) -> Any:
    def heard(level: int, template: Any, arguments: Any) -> int:
        # Most messages are of this level, and nobody reads them.
        lines = getattr(_collecting, "lines", None) if level < _DEBUG else None
        if lines is None:
            return 0
        buffer = ffi.new("char[4096]")
        libc.vsnprintf(buffer, 4096, template, arguments)
        lines.append(ffi.string(buffer).decode(errors="replace").rstrip())
        return 0

    return ffi.callback("int(int, const char *, void *)", heard, error=0)
