# SPDX-License-Identifier: Apache-2.0
"""Commands that plugins add to ``emptcp``: named by the manifests, run by the plugins' Python sides.

Listing is part of ``emptcp --help``, which answers at once, so it has a way of its own: it reads entry points
and manifests as plain files, and passes over whatever it can't read. Nothing is decided by that list. When a
command is called, its plugin is discovered and judged like any other, and only that plugin is imported.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tomllib
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, NamedTuple

from emptcp.errors import EmptcpError, did_you_mean
from emptcp.plugins.distributions import FIRST_PARTY, canonical
from emptcp.plugins.whereabouts import GROUP, MANIFEST, state_file

if TYPE_CHECKING:
    import argparse

    from emptcp.plugins.discovery import Plugin
    from emptcp.plugins.manager import Failure


def listed() -> dict[str, str]:
    """Return the commands of enabled plugins and their lines of help, by name.

    A plugin that changed since it was enabled is listed: only calling its command compares its files.
    """
    return dict(sorted(_commands()))


# Listing


class _Point(NamedTuple):
    distribution: str
    name: str
    package: str


def _commands() -> Iterator[tuple[str, str]]:
    recorded = None
    for point in dict.fromkeys(_points()):
        if not (found := _declared(point)):
            continue
        recorded = _recorded() if recorded is None else recorded
        if recorded.get((point.distribution, point.name), point.distribution in FIRST_PARTY):
            yield from found


def _points() -> Iterator[_Point]:
    """Yield the plugins' entry points. Importing ``importlib.metadata`` alone would take half of the time."""
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")
        except OSError:
            continue
        for name in names:
            if name.endswith((".dist-info", ".egg-info")):
                yield from _points_of(folder, name)


def _points_of(folder: str, name: str) -> Iterator[_Point]:
    lines = iter(_read(os.path.join(folder, name, "entry_points.txt")).splitlines())
    if not any(line.strip() == f"[{GROUP}]" for line in lines):
        return
    for line in lines:
        if line.startswith("["):
            return
        point, equals, package = line.partition("=")
        if equals:
            yield _Point(canonical(name.partition("-")[0]), point.strip(), package.strip())


def _declared(point: _Point) -> list[tuple[str, str]]:
    """Return what the plugin's manifest says of its commands."""
    try:
        spec = importlib.util.find_spec(point.package) if point.package.isidentifier() else None
        folder = next(iter(spec.submodule_search_locations or ()), "") if spec else ""
        text = _read(os.path.join(folder, MANIFEST)) if folder else ""
        tables = tomllib.loads(text)["command"] if "command" in text else ()
        return [(table["name"], _printable(table.get("help", ""))) for table in tables]
    except Exception:  # the manifest, and finders installed by a .pth, are strangers': they may be anything
        return []


def _recorded() -> dict[tuple[str, str], bool]:
    """Return what the operator said: whether the plugin of this distribution and name is enabled."""
    try:
        records = tomllib.loads(_read(state_file())).get("plugin", ())
        return {(canonical(one["distribution"]), one["name"]): one["enabled"] for one in records}
    except (tomllib.TOMLDecodeError, LookupError, TypeError, AttributeError):
        return {}


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable())


# Calling


def owner(command: str) -> Plugin | None:
    """Return the plugin whose command this is; ``None`` when no installed plugin has it.

    Raises :class:`EmptcpError` when its plugin may not be used, or when two have it.
    """
    from emptcp.plugins import state

    found = [one for one in state.judged() if f"command {command}" in one.provides]
    usable = [plugin for plugin in found if plugin.usable]
    if len(usable) > 1:
        both = " and ".join(plugin.id for plugin in usable)
        fix = f"Run: emptcp plugins disable {usable[1].id}"
        raise EmptcpError(f"command '{command}' is provided by {both}", fix=fix)
    if found and not usable:
        sentence = f"command '{command}' comes from plugin '{found[0].name}', which is {found[0].state}"
        raise EmptcpError(f"{sentence}: {found[0].reason}", fix=found[0].fix)
    return usable[0] if usable else None


def fill(plugin: Plugin, command: str, parser: argparse.ArgumentParser) -> None:
    """Import the plugin's Python side, and no other's, and let it fill in the command's parser.

    Raises :class:`EmptcpError` naming the plugin when it fails.
    """
    from emptcp.plugins.manager import Manager

    manager = Manager(report=_refuse)
    manager.load([plugin])
    manager.hook.emptcp_commands(name=command, parser=parser)


def _refuse(failure: Failure) -> None:
    raise EmptcpError(str(failure), fix=_way_out(failure.plugin)) from failure.error


def failed(plugin: Plugin, command: str, error: Exception) -> EmptcpError:
    """Return the sentence for what a plugin's command raised."""
    said = f": {str(error).splitlines()[0]}" if str(error) else ""
    what = f"plugin '{plugin.name}' failed in command '{command}' ({type(error).__name__}{said})"
    return EmptcpError(what, fix=_way_out(plugin.name))


def _way_out(plugin: str) -> str:
    return f"Tell its authors, or run: emptcp plugins disable {plugin}"


def unknown(command: str, built_in: Collection[str]) -> str:
    """Return the sentence for a command that nobody has."""
    hint = did_you_mean(command, [*built_in, *listed()])
    return f"there is no command '{command}'; {hint or 'see: emptcp --help'}"
