# SPDX-License-Identifier: Apache-2.0
"""What the guest's file system holds: this Python, this environment, this workspace, each at its own path.

So an editable installation works in the guest as it does here, and nothing is installed there.
"""

from __future__ import annotations

import compileall
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import IO

from lane import modules
from lane.cpio import Archive
from lane.debian import Kernel
from lane.refusal import Refusal

ROOT = Path(__file__).resolve().parents[3]
GUEST = ROOT / "tests/vm/guest"
MODULES = Path("/modules")

PROGRAMS = ("ip", "tc", "ethtool", "mount", "umount", "nsenter", "setpriv", "sh", "sysctl")
TEST_TOOLS = ("pytest", "pytest-timeout", "hypothesis")
FOLDERS = ("proc", "sys", "dev", "run", "tmp", "root", "etc")
# What Python can't start without, and where it says so.
DEVICES = (("console", 5, 1), ("urandom", 1, 9))
# Parts of Python's library that no guest asks for, and folders that are no source.
UNUSED = {"ensurepip", "idlelib", "lib2to3", "pydoc_data", "site-packages", "test", "tkinter", "turtledemo"}
LOADER = re.compile(r"(/\S+) \(0x")
NAME = re.compile(r"[A-Za-z0-9._-]+")


def write(file: IO[bytes], kernel: Kernel, words: list[str]) -> None:
    """Write the archive of all the guest needs for this kernel, to run Python there with ``words``."""
    archive = Archive(file)
    for name in FOLDERS:
        archive.folder(Path("/", name))
    for name, major, minor in DEVICES:
        archive.device(Path("/dev", name), major, minor)
    for path in _files():
        archive.copy(path)
    for number, (name, content) in enumerate(modules.chosen(kernel.modules)):
        archive.data(MODULES / f"{number:02}-{name}.ko", content)
    init = (GUEST / "init.py").read_bytes()
    archive.data(Path("/init"), b"#!%s -S\n" % os.fsencode(sys.executable) + init, 0o755)
    command = [str(ROOT), sys.executable, *words]
    archive.data(Path("/command"), "\n".join(command).encode())
    archive.close()


def _files() -> Iterator[Path]:
    _compile()
    binaries = [Path(sys.executable), *_programs(), _libbpf()]
    for path in (*_library(), *_distributions(), *_workspace()):
        if re.search(r"\.so[.\d]*$", path.name):
            binaries.append(path)
        yield path
    yield from binaries
    yield from _shared_libraries(binaries)


def _compile() -> None:
    """Compile what is not yet: the guest would do so slowly, and anew each time."""
    for folder in (*ROOT.glob("*/src"), *ROOT.glob("plugins/*/src"), ROOT / "tests"):
        compileall.compile_dir(folder, quiet=2)


def _library() -> Iterator[Path]:
    yield from _below(Path(sysconfig.get_path("stdlib")))
    yield Path(sys.prefix, "pyvenv.cfg")


def _distributions() -> Iterator[Path]:
    """Yield the files of emptcp's distributions, the test tools, and all they require."""
    ours = {name for name in _installed() if name == "emptcp" or name.startswith("emptcp-")}
    for name in sorted(_closure({*ours, *TEST_TOOLS})):
        found = metadata.distribution(name)
        for file in found.files or ():
            path = Path(os.path.abspath(str(found.locate_file(file))))
            if path.exists() and path.is_relative_to(sys.prefix):
                yield path


def _installed() -> set[str]:
    return {found.metadata["Name"] for found in metadata.distributions()}


def _closure(names: set[str]) -> set[str]:
    done: set[str] = set()
    while waiting := names - done:
        for name in waiting:
            names = names | _required(name)
        done |= waiting
    return done


def _required(name: str) -> set[str]:
    """Return what a distribution requires in this environment, extras left out."""
    from packaging.requirements import Requirement

    wanted = [Requirement(text) for text in metadata.requires(name) or ()]
    return {one.name for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})}


def _workspace() -> Iterator[Path]:
    yield from (ROOT / "pyproject.toml", ROOT / "conftest.py")
    for pattern in ("*/src", "*/tests", "plugins/*/src", "plugins/*/tests", "tests"):
        for folder in sorted(ROOT.glob(pattern)):
            yield from _below(folder)


def _below(folder: Path) -> Iterator[Path]:
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if _useful(name))
        yield from (Path(here, name) for name in sorted(names) if not name.endswith((".opt-1.pyc", ".a")))


def _useful(name: str) -> bool:
    return name not in UNUSED and not name.startswith((".", "config-"))


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
