# SPDX-License-Identifier: Apache-2.0
"""The plugins of a project's folder, or of a wheel: their files, none of them imported."""

from __future__ import annotations

import re
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from configparser import ConfigParser
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from emptcp.errors import EmptcpError
from emptcp.plugins import manifest as manifests
from emptcp.plugins.manifest import Manifest
from emptcp.policy import document

from ..errors import SdkError
from .finding import Finding

GROUP, MANIFEST = "emptcp.plugins", "emptcp.toml"


@dataclass(frozen=True)
class Subject:
    """A plugin: its entry point, its package's folder, its manifest.

    ``root`` is what places are told relative to: the project's folder, or the unpacked wheel.
    """

    name: str
    distribution: str
    version: str
    package: str
    folder: Path
    root: Path
    manifest: Manifest

    @property
    def object(self) -> Path:
        """The object file, whether it is there or not."""
        return self.folder / self.manifest.object

    def shown(self, path: Path, line: int = 0) -> str:
        """Return ``file:line`` relative to the root."""
        name = path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)
        return f"{name}:{line}" if line else name

    def in_manifest(self, *path: str | int) -> str:
        """Return the place of what stands at a path of the manifest."""
        file = self.folder / MANIFEST
        top = document.read(file)
        while path and not top.place(*path).line:
            path = path[:-1]
        return self.shown(file, top.place(*path).line if path else 0)

    def in_source(self, pattern: str) -> str:
        """Return the place of the first line of the package's C files that a pattern matches."""
        for source in sorted((*self.folder.rglob("*.bpf.c"), *self.folder.rglob("*.h"))):
            for number, line in enumerate(source.read_text(encoding="utf-8").splitlines(), 1):
                if re.search(pattern, line):
                    return self.shown(source, number)
        return self.shown(self.object)


@dataclass(frozen=True)
class Examined:
    """What is examined: the plugins that could be read, and what kept others from being read."""

    root: Path
    subjects: list[Subject]
    findings: list[Finding]
    is_wheel: bool


@contextmanager
def examined(path: Path) -> Iterator[Examined]:
    """Read a project's folder or a wheel. Raises :class:`SdkError` when it is neither."""
    if path.is_dir():
        yield _project(path)
    elif path.suffix == ".whl" and zipfile.is_zipfile(path):
        with tempfile.TemporaryDirectory(prefix="emptcp-sdk-") as scratch, zipfile.ZipFile(path) as archive:
            # extractall() keeps to the folder: it drops '..' and what an absolute name begins with.
            archive.extractall(scratch)
            yield _wheel(Path(scratch))
    else:
        fix = "Name the folder that has a pyproject.toml, or a wheel."
        raise SdkError(f"{path} is neither a project's folder nor a wheel", fix=fix)


def _project(root: Path) -> Examined:
    file = root / "pyproject.toml"
    try:
        project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        identity = (str(project["name"]), str(project.get("version", "")))
    except FileNotFoundError:
        raise SdkError(f"{root} has no pyproject.toml", fix="Name a project's folder, or a wheel.") from None
    except (ValueError, KeyError, TypeError) as error:
        raise SdkError(f"{file} can't be read: {error}", fix="It needs [project] with a name.") from None
    points = project.get("entry-points", {}).get(GROUP, {})
    base = root / "src" if (root / "src").is_dir() else root
    return _examined(root, base, identity, points, "pyproject.toml", is_wheel=False)


def _wheel(root: Path) -> Examined:
    (info,) = root.glob("*.dist-info")
    name, _, version = info.name.removesuffix(".dist-info").partition("-")
    parser = ConfigParser(delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    file = info / "entry_points.txt"
    parser.read(file)
    points = dict(parser[GROUP]) if GROUP in parser else {}
    where = file.relative_to(root).as_posix()
    return _examined(root, root, (name.replace("_", "-"), version), points, where, is_wheel=True)


def _examined(
    root: Path, base: Path, identity: tuple[str, str], points: dict[str, str], where: str, *, is_wheel: bool
) -> Examined:
    found = Examined(root, [], [], is_wheel)
    if not points:
        fix = f'Add [project.entry-points."{GROUP}"] NAME = "PACKAGE".'
        found.findings.append(Finding("entry-point", where, "the project provides no plugin", fix))
    for name, package in points.items():
        if not package.isidentifier() or not (base / package).is_dir():
            sentence = f"the value '{package}' of plugin '{name}' is no top-level package of this project"
            fix = "Name the package that holds emptcp.toml, without dots."
            found.findings.append(Finding("entry-point", where, sentence, fix))
            continue
        _add(found, name, identity, package, base / package)
    return found


def _add(found: Examined, name: str, identity: tuple[str, str], package: str, folder: Path) -> None:
    file = folder / MANIFEST
    shown = file.relative_to(found.root).as_posix()
    try:
        manifest = manifests.load(file)
    except EmptcpError as error:
        where = error.where.replace(str(file), shown) or shown
        found.findings.append(Finding("manifest", where, error.sentence, error.fix))
        return
    subject = Subject(name, *identity, package, folder, found.root, manifest)
    if manifest.name != name:
        sentence = f"the manifest is of '{manifest.name}', the entry point of '{name}'"
        found.findings.append(
            Finding("entry-point", subject.in_manifest("name"), sentence, "Give both the same name.")
        )
    found.subjects.append(subject)
