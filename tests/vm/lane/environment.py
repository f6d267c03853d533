# SPDX-License-Identifier: Apache-2.0
"""What a guest needs of this environment and of this workspace, each at its own path."""

from __future__ import annotations

import compileall
import os
import re
import sys
from collections.abc import Iterator
from functools import lru_cache
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
TEST_TOOLS = ("pytest", "pytest-timeout", "pytest-xdist", "hypothesis")
COMPILED = re.compile(r"\.so[.\d]*$")
# Parts of Python's library that no guest asks for, and folders that are no source.
UNUSED = {"ensurepip", "idlelib", "lib2to3", "pydoc_data", "site-packages", "test", "tkinter", "turtledemo"}


def files() -> list[Path]:
    """Return the files of all distributions that are needed, and of the workspace."""
    for folder in (*ROOT.glob("*/src"), *ROOT.glob("plugins/*/src"), ROOT / "tests"):
        compile_all(folder)
    return [*(path for one in distributions() for path in belonging(one)), *_workspace()]


def compile_all(folder: Path) -> None:
    """Compile what is not yet: the guest would do so slowly, and anew each time."""
    compileall.compile_dir(folder, quiet=2)


def compiled(path: Path) -> bool:
    """Tell whether a file is machine code for one kind of processor."""
    return COMPILED.search(path.name) is not None


@lru_cache(maxsize=1)
def distributions() -> list[metadata.Distribution]:
    """Return emptcp's distributions, the test tools, and all they require."""
    installed = {found.metadata["Name"] for found in metadata.distributions()}
    ours = {name for name in installed if name == "emptcp" or name.startswith("emptcp-")}
    return [metadata.distribution(name) for name in sorted(_closure({*ours, *TEST_TOOLS}))]


def belonging(distribution: metadata.Distribution) -> Iterator[Path]:
    """Yield the files that a distribution has in this environment."""
    for file in distribution.files or ():
        path = Path(os.path.abspath(str(distribution.locate_file(file))))
        if path.exists() and path.is_relative_to(sys.prefix):
            yield path


def below(folder: Path) -> Iterator[Path]:
    """Yield the useful files and links below a folder."""
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if _useful(name))
        yield from (link for link in (Path(here, name) for name in folders) if link.is_symlink())
        yield from (Path(here, name) for name in sorted(names) if not name.endswith((".opt-1.pyc", ".a")))


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
            yield from below(folder)


def _useful(name: str) -> bool:
    return name not in UNUSED and not name.startswith((".", "config-"))
