# SPDX-License-Identifier: Apache-2.0
"""The hatchling build hook ``emptcp``: compiles a plugin's BPF C when its wheel is built.

A plugin turns it on with ``hooks.emptcp = {}`` under ``[tool.hatch.build.targets.wheel]``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.plugin import hookimpl

from . import build
from .errors import BuildError


class BpfBuildHook(BuildHookInterface[Any]):
    """Compiles every ``*.bpf.c`` to an object beside it, and has the wheel carry the objects."""

    PLUGIN_NAME = "emptcp"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before hatchling collects files; ``version`` is ``standard`` or ``editable``."""
        try:
            results = build.build(Path(self.root))
        except BuildError as error:
            self.app.abort(str(error))
            return
        for result in results:
            # Version control ignores objects, and so would hatchling without these patterns.
            output = result.object.relative_to(Path(self.root).resolve())
            build_data["artifacts"] += [f"/{output}", f"/{output.with_suffix('.json')}"]

    def clean(self, versions: list[str]) -> None:
        """Delete the objects (``hatchling build --clean``)."""
        build.remove(Path(self.root))


@hookimpl
def hatch_register_build_hook() -> type[BpfBuildHook]:
    """Tell hatchling of the hook."""
    return BpfBuildHook
