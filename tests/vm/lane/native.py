# SPDX-License-Identifier: Apache-2.0
"""Give a guest with this machine's processor the machine's own Python, programs and libraries."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

from lane import environment
from lane.cpio import Archive
from lane.refusal import Refusal

PROGRAMS = ("ip", "tc", "ethtool", "mount", "umount", "nsenter", "setpriv", "sh", "sysctl")
LOADER = re.compile(r"(/\S+) \(0x")


def add(archive: Archive, files: list[Path]) -> None:
    """Add the environment's ``files``, and what of this machine they and the tests use."""
    library = [*environment.below(Path(sysconfig.get_path("stdlib"))), Path(sys.prefix, "pyvenv.cfg")]
    binaries = [path for path in (*library, *files) if environment.compiled(path)]
    binaries += [Path(sys.executable), *_programs(), _libbpf()]
    for path in (*library, *files, *binaries, *_shared_libraries(binaries)):
        archive.copy(path)


def _programs() -> Iterator[Path]:
    for name in PROGRAMS:
        found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
        if found is None:
            raise Refusal(f"{name} is missing, which the guest needs a copy of")
        yield Path(found)


def _libbpf() -> Path:
    from emptcp import pybpf

    return Path(pybpf.library().path)


def _shared_libraries(binaries: Iterable[Path]) -> Iterator[Path]:
    """Yield what the loader would open for these, by asking it."""
    command = ["ldd", *(str(path) for path in binaries)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout
    yield from (Path(path) for path in sorted(set(LOADER.findall(shown))))
