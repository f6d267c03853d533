# SPDX-License-Identifier: Apache-2.0
"""What the answer to "which plugins are there?" went by: as long as it is the same, so is the answer."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from emptcp.plugins.whereabouts import MANIFEST

if TYPE_CHECKING:
    from emptcp.plugins.discovery import Plugin

SETTLED = 2_000_000_000
"""Nanoseconds after which another change of a file has another time for sure."""

_TEXTS = ("METADATA", "entry_points.txt")


@dataclass(frozen=True)
class Marks:
    """Who searches, what the plugins' metadata say, and when which folder or file changed how.

    ``stamps`` are paths, times (nanoseconds since the epoch) and sizes; those of what is not there are 0.
    """

    finders: tuple[int, ...]
    texts: tuple[str | None, ...]
    stamps: tuple[tuple[str, int, int], ...]

    def settled(self, now: int) -> bool:
        """Tell whether nothing has changed so shortly before a time that a later change might look alike."""
        return all(changed + SETTLED < now for _, changed, _ in self.stamps)


def of(plugins: Iterable[Plugin]) -> Marks | None:
    """Return what these plugins were found by; ``None`` where that can't be told of one."""
    texts, files = list[str | None](), [path for entry in sys.path for path in _searched(entry)]
    for plugin in plugins:
        if plugin.metadata is None or plugin.folder is None or plugin.manifest is None:
            return None
        try:
            texts += map(plugin.metadata.read_text, _TEXTS)
        except Exception:  # a stranger's, which may be anything
            return None
        names = (MANIFEST, plugin.manifest.object)
        files += [os.path.join(plugin.folder, name) for name in names if name]
    return Marks(tuple(map(id, sys.meta_path)), tuple(texts), tuple(map(_stamp, files)))


def _searched(entry: str) -> Iterator[str]:
    """Yield a folder in which Python searches, and what tells in it that a distribution has plugins."""
    yield entry or "."
    try:
        names = os.listdir(entry or ".")
    except OSError:  # an archive, or nothing at all
        return
    for name in names:
        if name.endswith((".dist-info", ".egg-info")):
            yield os.path.join(entry, name)
            yield os.path.join(entry, name, "entry_points.txt")


def _stamp(path: str) -> tuple[str, int, int]:
    try:
        told = os.stat(path)
    except (OSError, ValueError):
        return path, 0, 0
    return path, told.st_mtime_ns, told.st_size
