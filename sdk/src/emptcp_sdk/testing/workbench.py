# SPDX-License-Identifier: Apache-2.0
"""The plugins under test: those that the pyproject.toml of the tests' root declares, enabled for the tests.

They are enabled in a settings folder of the test run, so neither /etc/emptcp nor what it says is touched.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

GROUP = "emptcp.plugins"


def declared(root: Path) -> list[str]:
    """Return the plugins that the project in a folder provides, as ``dist:name``; none without a project."""
    file = root / "pyproject.toml"
    if not file.exists():
        return []
    project = tomllib.loads(file.read_text(encoding="utf-8")).get("project", {})
    names = project.get("entry-points", {}).get(GROUP, {})
    return [f"{project['name']}:{name}" for name in names]


@contextmanager
def enabled(plugins: Sequence[str], settings: Path) -> Iterator[None]:
    """Enable plugins in a settings folder, and use that folder, as long as the block lasts.

    Raises :class:`~emptcp.errors.EmptcpError` when one is not installed, or broken.
    """
    from emptcp.plugins import state

    before = os.environ.get("EMPTCP_ETC")
    os.environ["EMPTCP_ETC"] = str(settings)
    try:
        for plugin in plugins:
            state.enable(plugin)
        yield
    finally:
        if before is None:
            del os.environ["EMPTCP_ETC"]
        else:
            os.environ["EMPTCP_ETC"] = before
