# SPDX-License-Identifier: Apache-2.0
"""The record beside each object: what it was built from, with which compiler and flags."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

SCHEMA = 1

MadeBy = tuple[str, tuple[str, ...]]
"""The compiler's version line, and the flags."""


@dataclass(frozen=True)
class BuildInfo:
    """One object's origin. Digests are SHA-256 in hex.

    ``sources`` are files by their path relative to the BPF C file, ``headers`` by their path in the include
    folder of emptcp-bpf-common, so that the record says the same wherever the tree lies.
    """

    compiler: str
    flags: tuple[str, ...]
    sources: dict[str, str]
    headers: dict[str, str]
    object: str

    def write(self, path: Path) -> None:
        """Write the record as JSON with a schema number."""
        path.write_text(json.dumps({"schema": SCHEMA, **asdict(self)}, indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> BuildInfo | None:
    """Return the record in ``path``, or None when there is none that this version can read."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        if fields.pop("schema") != SCHEMA:
            return None
        return BuildInfo(**{**fields, "flags": tuple(fields["flags"])})
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def info_path(output: Path) -> Path:
    """Return where the record of the object ``x.bpf.o`` stands: ``x.bpf.json``."""
    return output.with_suffix(".json")


def describe(made_by: MadeBy, files: Iterable[Path], folder: Path, include: Path, output: Path) -> BuildInfo:
    """Return the record of ``output``, just compiled from ``files`` (sources in ``folder``, headers)."""
    sources, headers = {}, {}
    for file in sorted(files):
        if file.is_relative_to(include):
            headers[file.relative_to(include).as_posix()] = digest(file)
        else:
            sources[os.path.relpath(file, folder)] = digest(file)
    return BuildInfo(*made_by, sources, headers, digest(output))


def is_current(info: BuildInfo, made_by: MadeBy, include: Path, output: Path) -> bool:
    """Tell whether ``output`` is what compiling again would give: no input, flag or compiler changed."""
    if (info.compiler, info.flags) != made_by:
        return False
    recorded = {output.parent / name: value for name, value in info.sources.items()}
    recorded |= {include / name: value for name, value in info.headers.items()}
    recorded[output] = info.object
    return all(file.is_file() and digest(file) == value for file, value in recorded.items())


def digest(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
