# SPDX-License-Identifier: Apache-2.0
"""The lowest kernel that a plugin runs on, told from its object and its manifest. Nothing is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emptcp.errors import EmptcpError
from emptcp.plugins.manifest import StageDeclaration
from emptcp.pybpf import since
from emptcp.pybpf.feature_table import FEATURES
from emptcp.pybpf.since import Version

if TYPE_CHECKING:
    from pathlib import Path

    from emptcp.plugins.discovery import Plugin
    from emptcp.pybpf.needs import Need

_PARTS = ("xdp", "tc")
_SOCKET_PARTS = ("ops", "iter")
"""Ends of the names of a fragment's functions, and of a socket companion's (``emptcp/socket.h``)."""


@dataclass(frozen=True)
class Lowest:
    """From which kernel on a plugin, or a part of it, runs; ``needs`` says why it is no older one."""

    version: Version
    needs: tuple[Need, ...] = ()

    @property
    def number(self) -> str:
        """The kernel: ``"5.17"``."""
        return since.text(self.version)

    @property
    def text(self) -> str:
        """As one says it: ``"Linux 5.17 and later: bpf_loop (5.17)"``."""
        why = f": {', '.join(need.text for need in self.needs)}" if self.needs else ""
        return f"Linux {self.number} and later{why}"


def of_plugin(plugin: Plugin) -> Lowest:
    """Return what all stages of a plugin need together, without their socket companions.

    Raises :class:`EmptcpError` when its object can't be read.
    """
    return _lowest(need for _, found in _stages(plugin) for need in found)


def of_stages(plugin: Plugin) -> dict[str, Lowest]:
    """Return what each stage needs by itself, by ``"actor set_backup"``."""
    return {name: _lowest(found) for name, found in _stages(plugin)}


def of_sockets(plugin: Plugin) -> dict[str, Lowest]:
    """Return what each socket companion needs, by its fragment; a stage does without one that is missing."""
    if plugin.manifest is None or plugin.folder is None:
        return {}
    path = plugin.folder / plugin.manifest.object
    companions = (one for stage in plugin.manifest.stages for one in stage.companions)
    names = dict.fromkeys(one.fragment for one in companions if one.hook == "socket")
    return {name: _lowest(_programs(path, name, _SOCKET_PARTS)) for name in names}


def _stages(plugin: Plugin) -> Iterator[tuple[str, list[Need]]]:
    if plugin.manifest is not None and plugin.folder is not None:
        path = plugin.folder / plugin.manifest.object
        for stage in plugin.manifest.stages:
            yield f"{stage.kind} {stage.name}", list(_stage(path, stage))


def _stage(path: Path, stage: StageDeclaration) -> Iterator[Need]:
    from emptcp.pybpf.needs import Need, of_maps

    yield from of_maps(path)
    fragments = [one.fragment for one in stage.companions if one.hook != "socket"]
    for name in dict.fromkeys([stage.fragment, *fragments]):
        yield from _programs(path, name, _PARTS)
    for name in stage.features:
        feature = FEATURES[name]
        if feature.since is not None and feature.since > since.BASE:
            yield Need(feature.since, feature.what)


def _programs(path: Path, name: str, parts: Iterable[str]) -> list[Need]:
    from emptcp.pybpf.errors import BpfError
    from emptcp.pybpf.needs import of_program

    try:
        return [need for part in parts for need in of_program(path, f"{name}__{part}")]
    except BpfError as error:
        raise EmptcpError(error.sentence, fix=error.fix) from None


def _lowest(needs: Iterable[Need]) -> Lowest:
    found = tuple(sorted(set(needs), reverse=True))
    return Lowest(since.highest(need.version for need in found), found)
