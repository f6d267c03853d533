# SPDX-License-Identifier: Apache-2.0
"""Keys that plugins provide: what identifies a packet in sets and maps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from emptcp.plugins.imports import Imported
from emptcp.plugins.manifest import KeyDeclaration


@dataclass(frozen=True)
class KeyType:
    """A key that a plugin provides. ``object`` is the file that holds its fragment.

    ``imports`` are the maps of other plugins that the object uses.
    """

    plugin: str
    distribution: str
    declaration: KeyDeclaration
    object: Path
    imports: tuple[Imported, ...] = ()

    @property
    def kind(self) -> str:
        """``"key"``."""
        return self.declaration.kind

    @property
    def name(self) -> str:
        """The name without its distribution."""
        return self.declaration.name
