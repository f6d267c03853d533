# SPDX-License-Identifier: Apache-2.0
"""What a plugin's distribution brings beside its package: it can act without the plugin being enabled."""

from __future__ import annotations

from pathlib import PurePosixPath

from emptcp.errors import EmptcpError
from emptcp.plugins.digest import is_editable, recorded_names
from emptcp.plugins.discovery import Plugin


def strays(plugin: Plugin) -> list[str]:
    """Return the distribution's files outside of the plugin's package and of its own metadata.

    A ``.pth`` file is run by every Python that starts there, and stands first. Empty for an editable install,
    which is a ``.pth`` file itself, and where the list of files can't be read, which enabling tells of.
    """
    if plugin.metadata is None or is_editable(plugin):
        return []
    try:
        names = recorded_names(plugin)
    except EmptcpError:
        return []
    found = sorted({name for name in names if _is_stray(PurePosixPath(name), plugin.package)})
    return sorted(found, key=lambda name: not name.endswith(".pth"))


def _is_stray(path: PurePosixPath, package: str) -> bool:
    # Scripts stand in ../../../bin, which is no package's either.
    return path.parts[0] != package and not path.parts[0].endswith(".dist-info")


def warning(plugin: Plugin) -> str:
    """Return a sentence about the plugin's strays; empty when it has none."""
    found = strays(plugin)
    if not found:
        return ""
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    acts = (
        " (.pth files run in every Python that starts there, enabled or not)"
        if found[0].endswith(".pth")
        else ""
    )
    return f"it brings files outside of its package: {', '.join(found[:3])}{more}{acts}"
