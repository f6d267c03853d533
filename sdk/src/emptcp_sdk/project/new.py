# SPDX-License-Identifier: Apache-2.0
"""``emptcp-sdk new``: a package from the template."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import TemplateError
from . import template
from .origin import Origin


def new(given: Mapping[str, Any], into: Path | None, *, defaults: bool) -> Path:
    """Make a package and return its folder: ``into``, or one named as the distribution, here.

    Raises :class:`TemplateError` when the folder has something in it, or an answer is refused; then nothing
    is left behind.
    """
    with tempfile.TemporaryDirectory(prefix="emptcp-sdk-") as scratch:
        made = Path(scratch) / "package"
        answers = template.fill(made, given, defaults=defaults)
        target = into or Path(answers["distribution"])
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise TemplateError(f"{target} is there already", fix="Name another folder: --into DIR")
        Origin.of(made, answers).write(made)
        shutil.copytree(made, target, dirs_exist_ok=True)
    return target
