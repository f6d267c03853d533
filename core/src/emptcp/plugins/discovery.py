# SPDX-License-Identifier: Apache-2.0
"""Find the installed plugins by their metadata and manifests. No plugin's code is ever run here.

A plugin is an entry point of group ``emptcp.plugins`` whose value is the name of a top-level package; that
package's folder holds the manifest. Whatever is wrong with one is told in its own row.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import Distribution, EntryPoint, distributions, entry_points
from pathlib import Path
from typing import Any

from emptcp.errors import EmptcpError, quoted
from emptcp.plugins import manifest as manifests
from emptcp.plugins import marks
from emptcp.plugins.distributions import canonical
from emptcp.plugins.manifest import Manifest
from emptcp.plugins.marks import Marks
from emptcp.plugins.whereabouts import GROUP, MANIFEST

FOUND, INVALID, DISABLED, ENABLED = "found", "invalid", "disabled", "enabled"
CHANGED, ACTIVE, ORPHANED = "changed", "active", "orphaned"
STATES = (FOUND, INVALID, DISABLED, ENABLED, CHANGED, ACTIVE, ORPHANED)


@dataclass(frozen=True)
class Plugin:
    """An installed plugin, or one that was uninstalled while in use.

    ``folder`` is the package's folder, which holds manifest and object. ``state`` is one of :data:`STATES`;
    ``reason`` and ``fix`` say why it is not ``enabled`` where that needs a word.
    """

    name: str
    distribution: str
    version: str
    package: str = ""
    folder: Path | None = None
    manifest: Manifest | None = None
    state: str = FOUND
    reason: str = ""
    fix: str = ""
    metadata: Distribution | None = field(default=None, compare=False, repr=False)

    @property
    def id(self) -> str:
        """``dist:name``, which is unique."""
        return f"{self.distribution}:{self.name}"

    @property
    def usable(self) -> bool:
        """Whether policies may use it."""
        return self.state in (ENABLED, ACTIVE)

    @property
    def provides(self) -> tuple[str, ...]:
        """All that it provides, as ``"actor set_backup"``."""
        return self.manifest.provides if self.manifest else ()


_last: tuple[Marks, list[Plugin]] | None = None
_asked = False


def discover() -> list[Plugin]:
    """Return every installed plugin, by name; state ``found`` or ``invalid``.

    What was found before is returned again as long as nothing that it went by has changed. That is noted from
    the second time on, as most commands ask once.
    """
    global _last, _asked
    if _last is not None and _last[0] == marks.of(_last[1]):
        return list(_last[1])
    began = time.time_ns()
    found = sorted(_discovered(), key=lambda plugin: (plugin.name, plugin.distribution))
    seen = marks.of(found) if _asked else None
    _asked = True
    _last = (seen, found) if seen is not None and seen.settled(began) else None
    return list(found)


def _discovered() -> list[Plugin]:
    try:
        return [_plugin(point) for point in entry_points(group=GROUP)]
    except Exception:  # some distribution's metadata, which may be no plugin's at all
        return list(_one_by_one())


def _one_by_one() -> Iterator[Plugin]:
    """Yield the plugins of each distribution by itself, so that a broken one hides no other."""
    seen: set[str] = set()
    for metadata in distributions():
        try:
            name, version = str(metadata.name), str(metadata.version)
            text = metadata.read_text("entry_points.txt") or ""
        except Exception:  # it can't even be asked whether it has a plugin
            continue
        if name in seen or GROUP not in text:
            continue
        seen.add(name)
        try:
            yield from [_plugin(point) for point in metadata.entry_points.select(group=GROUP)]
        except Exception:
            reason = "its entry points can't be read"
            yield Plugin(name, name, version, state=INVALID, reason=reason, fix="Install the plugin again.")


def _plugin(point: EntryPoint) -> Plugin:
    known = _identity(point)
    try:
        folder = _folder(point.value)
        return Plugin(**known, folder=folder, manifest=_manifest(point, folder))
    except EmptcpError as error:
        reason = f"{error.where}: {error.sentence}" if error.where else error.sentence
        return Plugin(**known, state=INVALID, reason=reason, fix=error.fix)


def _identity(point: EntryPoint) -> dict[str, Any]:
    named: dict[str, Any] = {"name": point.name, "package": point.value, "metadata": point.dist}
    try:
        told = point.dist.metadata  # type: ignore[union-attr]  # read at each access
        return named | {"distribution": str(told["Name"]), "version": str(told["Version"])}
    except Exception:  # what stands in METADATA is a stranger's, and may be anything
        return named | {"distribution": "unknown", "version": "unknown"}


def _folder(package: str) -> Path:
    """Return the folder of a top-level package without importing it.

    A dotted name would make ``find_spec`` import its parents, so there is none.
    """
    if not package.isidentifier():
        fix = "Its entry point must name a top-level package."
        raise EmptcpError(f"the entry point's value {quoted(package)} is no name of a package", fix=fix)
    try:
        spec = importlib.util.find_spec(package)
    except Exception as error:  # a finder that a stranger's .pth installed may raise anything
        spec, reason = None, f" ({type(error).__name__})"
    else:
        reason = ""
    if spec is None or not spec.submodule_search_locations:
        fix = "Install the plugin again."
        raise EmptcpError(f"package {quoted(package)} can't be found{reason}", fix=fix)
    return Path(next(iter(spec.submodule_search_locations)))


def _manifest(point: EntryPoint, folder: Path) -> Manifest:
    found = manifests.load(folder / MANIFEST)
    if found.name != point.name:
        sentence = f"the manifest is of '{found.name}', the entry point of {quoted(point.name)}"
        raise EmptcpError(sentence, fix="Give both the same name.")
    if found.module and found.module.split(".")[0] != point.value:
        sentence = f"module '{found.module}' is outside package '{point.value}'"
        raise EmptcpError(sentence, fix="Name a module of the plugin's own package.")
    if found.object and not (folder / found.object).is_file():
        fix = "Compile it, or install the plugin again."
        raise EmptcpError(f"the object {found.object} is missing", fix=fix)
    return found


def matching(plugins: list[Plugin], name: str) -> Iterator[Plugin]:
    """Yield the plugins that ``name`` or ``dist:name`` means."""
    distribution, _, plain = name.rpartition(":")
    for plugin in plugins:
        if plugin.name == plain and canonical(distribution) in ("", canonical(plugin.distribution)):
            yield plugin
