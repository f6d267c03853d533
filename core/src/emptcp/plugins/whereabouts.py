# SPDX-License-Identifier: Apache-2.0
"""Where plugins are found, and what the operator said of them. Imports nothing that costs."""

from __future__ import annotations

import os

GROUP = "emptcp.plugins"
"""The entry point group. A plugin's value there is the name of its top-level package."""

MANIFEST = "emptcp.toml"
"""The manifest's name, in the package's folder."""


def settings() -> str:
    """Return the folder of emptcp's settings: ``EMPTCP_ETC``, else ``/etc/emptcp``."""
    return os.environ.get("EMPTCP_ETC") or "/etc/emptcp"


def state_file() -> str:
    """Return the path of the file that says which plugins the operator enabled."""
    return os.path.join(settings(), "plugins.toml")
