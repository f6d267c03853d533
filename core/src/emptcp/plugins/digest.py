# SPDX-License-Identifier: Apache-2.0
"""A digest over all of a plugin's files: what ``enable`` records, and what a change is noticed by."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from emptcp.errors import EmptcpError, quoted
from emptcp.plugins.discovery import Plugin

_LEFT_OUT = ("RECORD", "__pycache__")
"""RECORD holds digests of the others; the cache is written by the interpreter, and not used by us
(:mod:`emptcp.plugins.sources`)."""


def digest(plugin: Plugin) -> str:
    """Return the sha256, in hexadecimal, over the names and contents of the plugin's files.

    These are the distribution's files and all of the package's folder, since a file beside the recorded
    ones can be imported too. Of an editable install it is the folder alone.
    Raises :class:`EmptcpError` when a file can't be read.
    """
    whole = hashlib.sha256()
    for name, path in sorted(_files(plugin).items()):
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            content = b"missing"
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            sentence = f"file {quoted(str(path), 256)} of plugin '{plugin.name}' can't be read: {reason}"
            raise EmptcpError(sentence, fix="Install the plugin again.") from None
        # Lengths first: else bytes could move from a name to a content without a trace.
        encoded = name.encode("utf-8", "surrogateescape")
        whole.update(b"%d %d\n" % (len(encoded), len(content)) + encoded + content)
    return whole.hexdigest()


def size(plugin: Plugin) -> int:
    """Return the bytes of the plugin's files. Raises :class:`EmptcpError` as :func:`digest` does."""
    return sum(path.stat().st_size for path in _files(plugin).values() if path.is_file())


def top_level(plugin: Plugin) -> set[str]:
    """Return the names under which the plugin's files can be imported.

    Raises :class:`EmptcpError` as :func:`digest` does.
    """
    names = {plugin.package, *(name.partition("/")[0].removesuffix(".py") for name in _recorded(plugin))}
    return {name for name in names if name.isidentifier()}


def _files(plugin: Plugin) -> dict[str, Path]:
    return {
        **(dict(_folder_files(plugin.folder)) if plugin.folder is not None else {}),
        **_recorded(plugin),
    }


def _recorded(plugin: Plugin) -> dict[str, Path]:
    """Return the distribution's files; of an editable install they are not the plugin's."""
    if plugin.metadata is None or is_editable(plugin):
        return {}
    locate = plugin.metadata.locate_file
    return {name: Path(str(locate(name))) for name in recorded_names(plugin)}


def _folder_files(folder: Path) -> Iterator[tuple[str, Path]]:
    for parent, folders, names in os.walk(folder, followlinks=False):
        folders[:] = [name for name in folders if name not in _LEFT_OUT]
        for name in names:
            path = Path(parent, name)
            yield str(path.relative_to(folder.parent)), path


def recorded_names(plugin: Plugin) -> list[str]:
    """Return the names of the files that RECORD lists, also of those that are no longer there.

    ``Distribution.files`` would leave these out in newer Pythons, and raise at a line that is no record.
    Raises :class:`EmptcpError` when RECORD can't be read.
    """
    try:
        text = plugin.metadata.read_text("RECORD") if plugin.metadata is not None else ""
        names = [row[0] for row in csv.reader((text or "").splitlines()) if row]
    except (OSError, ValueError, csv.Error):
        sentence = f"the list of files (RECORD) of {plugin.distribution} can't be read"
        raise EmptcpError(sentence, fix="Install the plugin again.") from None
    return [name for name in names if not any(part in _LEFT_OUT for part in PurePosixPath(name).parts)]


def is_editable(plugin: Plugin) -> bool:
    """Return whether the plugin's distribution is a link to its sources (PEP 610)."""
    if plugin.metadata is None:
        return False
    try:
        told = json.loads(plugin.metadata.read_text("direct_url.json") or "{}")
        return bool(told["dir_info"]["editable"])
    except (ValueError, KeyError, TypeError):
        return False
