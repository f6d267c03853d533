# SPDX-License-Identifier: Apache-2.0
"""Commands that plugins add. A built-in command always goes first, so none can be taken over."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from emptcp.errors import EmptcpError
from emptcp.plugins import commands
from emptcp.pybpf.errors import BpfError

if TYPE_CHECKING:
    from emptcp.plugins.discovery import Plugin


def name_all(groups: Any, built_in: Collection[str]) -> None:
    """Let ``--help`` name the commands of plugins, without importing any."""
    for name, text in commands.listed().items():
        if name not in built_in:
            groups.add_parser(name, help=text.replace("%", "%%"))


def register(
    groups: Any, parser: argparse.ArgumentParser, name: str, built_in: Collection[str]
) -> AbstractContextManager[None]:
    """Add a plugin's command to the subcommands; return what has to be around its run.

    Raises :class:`EmptcpError` naming the plugin when it may not be used, or fails; a command that no plugin
    has is wrong usage.
    """
    plugin = commands.owner(name)
    if plugin is None:
        parser.error(commands.unknown(name, built_in))
    commands.fill(plugin, name, groups.add_parser(name))
    return _blaming(plugin, name)


@contextmanager
def _blaming(plugin: Plugin, name: str) -> Iterator[None]:
    """Turn what the plugin raises by mistake into a sentence with its name."""
    try:
        yield
    except (EmptcpError, BpfError, BrokenPipeError):
        raise
    except Exception as error:
        raise commands.failed(plugin, name, error) from error
