# SPDX-License-Identifier: Apache-2.0
"""Run clang on one BPF C file, in a way that gives the same bytes wherever the source tree lies."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from emptcp_bpf_common import include_folder

from .errors import BuildError

# v3 (32-bit compares and jumps) is the newest instruction set that Linux 5.10 and clang 14 both know.
FLAGS = ("-target", "bpf", "-O2", "-mcpu=v3", "-g", "-nostdinc", "-Wall", "-Wextra", "-Werror")


@dataclass(frozen=True)
class Compiler:
    """A clang that was found: where it is, and the first line of ``--version``."""

    path: str
    version: str


def find_compiler() -> Compiler:
    """Return the clang that ``EMPTCP_CLANG`` names, else the first ``clang`` on the path.

    Raises BuildError when there is none or it does not run.
    """
    wanted = os.environ.get("EMPTCP_CLANG") or "clang"
    path = shutil.which(wanted)
    if path is None:
        raise BuildError(
            f"compiling BPF programs needs clang, and '{wanted}' was not found",
            fix="install it (Debian: apt-get install clang), or set EMPTCP_CLANG to its path",
        )
    answer = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    version = answer.stdout.partition("\n")[0].strip()
    if answer.returncode or not version:
        raise BuildError(
            f"'{path} --version' failed, so it can't be used as the BPF compiler",
            fix="set EMPTCP_CLANG to a clang that runs",
            output=answer.stderr,
        )
    return Compiler(path, version)


def compile_source(compiler: Compiler, source: Path, output: Path) -> list[Path]:
    """Compile ``source`` to the BPF object ``output``; return every file that was read, the source first.

    Raises BuildError, with all that clang said, when the source does not compile.
    """
    listing = output.with_suffix(".d")
    command = [compiler.path, *FLAGS, *_place_flags(source.parent), "-MD", "-MF", str(listing)]
    command += ["-c", source.name, "-o", str(output)]
    answer = subprocess.run(command, cwd=source.parent, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise BuildError(
            f"{source.name} does not compile: clang's messages stand above", output=answer.stderr
        )
    return [source.parent / name for name in _dependencies(listing.read_text(encoding="utf-8"))]


def _place_flags(folder: Path) -> list[str]:
    """Flags that name the include folder, and keep this machine's paths out of the object."""
    include = include_folder()
    return [
        f"-I{include}",
        "-fdebug-compilation-dir=.",
        f"-ffile-prefix-map={folder}=.",
        f"-ffile-prefix-map={include}=.",
    ]


def _dependencies(rule: str) -> list[str]:
    """Return the prerequisites of the one make rule that clang wrote."""
    _, _, names = rule.replace("\\\n", " ").partition(": ")
    words: list[str] = re.findall(r"(?:\\.|[^\s\\])+", names)
    return [re.sub(r"\\(.)|\$(\$)", r"\1\2", word) for word in words]
