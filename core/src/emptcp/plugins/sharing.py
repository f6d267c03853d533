# SPDX-License-Identifier: Apache-2.0
"""Maps that one plugin lends to others, as manifests declare them: ``[[export]]`` and ``[[import]]``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from emptcp.errors import quoted
from emptcp.policy.document import Section
from emptcp.policy.tokens import NAME

EXPORT_KEYS = ("map", "help")
IMPORT_KEYS = ("map", "from", "as")

CORES = frozenset({"emptcp_packet", "emptcp_flows", "emptcp_connections", "emptcp_events", "emptcp_lost"})
"""Maps of core, which every object may name."""

# Fragments of plugins' names, with a distribution before a colon.
_SOURCE = re.compile(rf"(?:[A-Za-z0-9][A-Za-z0-9._-]*:)?{NAME.pattern}")


@dataclass(frozen=True)
class Export:
    """A map of the plugin's object that other plugins may use."""

    map: str
    help: str = ""


@dataclass(frozen=True)
class Import:
    """A map of another plugin: ``map`` is its name there, ``name`` the one in the importing object.

    ``source`` is the exporting plugin's name, or ``dist:name``.
    """

    map: str
    source: str
    name: str


def exports(top: Section) -> tuple[Export, ...]:
    """Return what a manifest exports."""
    return tuple(_exports(top))


def imports(top: Section, plugin: str) -> tuple[Import, ...]:
    """Return what the manifest of ``plugin`` imports."""
    return tuple(_imports(top, plugin))


def _exports(top: Section) -> Iterator[Export]:
    seen: set[str] = set()
    for section in top.sections("export", "an export"):
        section.refuse_unknown(EXPORT_KEYS)
        section.require("map", 'Add map = "..", a map of the object.')
        yield Export(_fresh(section, "map", "exports", seen), section.text("help"))


def _imports(top: Section, plugin: str) -> Iterator[Import]:
    exported = {section.text("map") for section in top.sections("export", "an export")}
    seen: set[str] = set()
    for section in top.sections("import", "an import"):
        section.refuse_unknown(IMPORT_KEYS)
        section.require("map", 'Add map = "..", a map that the other plugin exports.')
        section.require("from", 'Add from = "..", the other plugin.')
        wanted = _map(section, "map")
        name = _fresh(section, "as" if "as" in section else "map", "imports", seen)
        if name in exported:
            fix = "A plugin exports only maps of its own."
            raise section.error(f"map '{name}' is exported and imported", fix=fix)
        yield Import(wanted, _source(section, plugin), name)


def _fresh(section: Section, key: str, verb: str, seen: set[str]) -> str:
    name = _map(section, key)
    if name in seen:
        raise section.error(f"the manifest {verb} map '{name}' twice", key, fix="Remove one.")
    seen.add(name)
    return name


def _map(section: Section, key: str) -> str:
    name = section.text(key)
    if not NAME.fullmatch(name):
        fix = "Write the name it has in the C file."
        raise section.error(f"{quoted(name)} can't be the name of a map", key, fix=fix)
    if name in CORES:
        fix = "Every object may name it as it is."
        raise section.error(f"map '{name}' is core's and shared anyway", key, fix=fix)
    return name


def _source(section: Section, plugin: str) -> str:
    source = section.text("from")
    if not _SOURCE.fullmatch(source):
        fix = "Write a plugin's name, or DIST:NAME."
        raise section.error(f"{quoted(source)} can't be the name of a plugin", "from", fix=fix)
    if source.rpartition(":")[2] == plugin:
        fix = "A plugin's own maps need no import."
        raise section.error(f"plugin '{plugin}' imports a map from itself", "from", fix=fix)
    return source
