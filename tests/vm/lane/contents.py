# SPDX-License-Identifier: Apache-2.0
"""What the guest's file system holds: Python, this environment, this workspace, each at its own path.

So an editable installation works in the guest as it does here, and nothing is installed there.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import IO

from lane import environment, foreign, modules, native
from lane.architectures import Architecture
from lane.cpio import Archive
from lane.debian import Kernel
from lane.environment import ROOT

INIT = ROOT / "tests/vm/guest/init.py"
MODULES = Path("/modules")
FOLDERS = ("proc", "sys", "dev", "run", "tmp", "root", "etc")
# What Python can't start without, and where it says so.
DEVICES = (("console", 5, 1), ("urandom", 1, 9))


def write(
    file: IO[bytes], architecture: Architecture, kernel: Kernel, folder: Path, words: list[str]
) -> None:
    """Write the archive of all the guest needs for this kernel, to run Python there with ``words``.

    What had to be downloaded for another processor stays in ``folder``.
    """
    archive = Archive(file)
    for name in FOLDERS:
        archive.folder(Path("/", name))
    for name, major, minor in DEVICES:
        archive.device(Path("/dev", name), major, minor)
    if architecture.native:
        native.add(archive, environment.files())
    else:
        foreign.add(archive, environment.files(), architecture, folder / "system")
    for number, (name, content) in enumerate(modules.chosen(kernel.modules)):
        archive.data(MODULES / f"{number:02}-{name}.ko", content)
    archive.data(Path("/init"), b"#!%s -S\n" % os.fsencode(sys.executable) + INIT.read_bytes(), 0o755)
    archive.data(Path("/command"), "\n".join([str(ROOT), sys.executable, *words]).encode())
    archive.close()
