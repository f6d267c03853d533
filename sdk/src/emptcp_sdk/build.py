# SPDX-License-Identifier: Apache-2.0
"""Bring the BPF objects of one distribution up to date."""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from emptcp_bpf_common import include_folder

from . import build_info
from .compiler import FLAGS, Compiler, compile_source, find_compiler
from .errors import BuildError


@dataclass(frozen=True)
class Built:
    """One object, and whether it had to be compiled (False: it was current)."""

    object: Path
    compiled: bool


def sources_of(distribution: Path) -> list[Path]:
    """Return the BPF C files of a distribution's folder (``src/**/*.bpf.c``) in a fixed order."""
    return sorted((distribution / "src").rglob("*.bpf.c"))


def object_of(source: Path) -> Path:
    """Return where the object of ``x.bpf.c`` goes: ``x.bpf.o`` beside it."""
    return source.with_suffix(".o")


def build(distribution: Path) -> list[Built]:
    """Compile what is missing or out of date in ``distribution``; raises BuildError at the first failure."""
    sources = sources_of(distribution.resolve())
    if not sources:
        raise BuildError(
            f"{distribution} has no BPF program: there is no *.bpf.c under its src folder",
            fix="add one, or leave the build hook 'emptcp' out of its pyproject.toml",
        )
    compiler = find_compiler()
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        return list(pool.map(lambda source: _build_one(compiler, source), sources))


def _build_one(compiler: Compiler, source: Path) -> Built:
    output, include = object_of(source), include_folder()
    known = build_info.read(build_info.info_path(output))
    if known and build_info.is_current(known, (compiler.version, FLAGS), include, output):
        return Built(output, compiled=False)
    # In a folder beside it, so that a reader never sees half an object: the rename below is atomic.
    with tempfile.TemporaryDirectory(dir=source.parent, prefix=".build-") as scratch:
        made = Path(scratch) / output.name
        files = compile_source(compiler, source, made)
        info = build_info.describe((compiler.version, FLAGS), files, source.parent, include, made)
        info.write(build_info.info_path(made))
        made.chmod(0o644)
        made.replace(output)
        build_info.info_path(made).replace(build_info.info_path(output))
    return Built(output, compiled=True)


def remove(distribution: Path) -> None:
    """Delete the objects of a distribution and their records."""
    for source in sources_of(distribution):
        output = object_of(source)
        output.unlink(missing_ok=True)
        build_info.info_path(output).unlink(missing_ok=True)
