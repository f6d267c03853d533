# SPDX-License-Identifier: Apache-2.0
"""What a package was made from: the answers, and every file as the template gave it.

It stands in the package as ``.emptcp-sdk.json``, so that a later SDK can tell the author's changes from the
template's without having earlier templates at hand. Licence texts are left out: no update touches them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from ..errors import TemplateError
from .template import Answers

NAME = ".emptcp-sdk.json"
SCHEMA = 1
_BROKEN = (ValueError, TypeError, KeyError, AttributeError, OSError)


@dataclass(frozen=True)
class Origin:
    """The SDK's version, the answers, and the files: path in the package -> text."""

    sdk: str
    answers: Answers
    files: Mapping[str, str]

    @classmethod
    def of(cls, made: Path, answers: Answers) -> Origin:
        """Return the origin of a package that was just made in a folder."""
        return cls(version("emptcp-sdk"), answers, dict(sorted(_files(made))))

    @classmethod
    def read(cls, package: Path) -> Origin:
        """Read a package's origin. Raises :class:`TemplateError` when it has none, or a broken one."""
        file = package / NAME
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
            if found.pop("schema") != SCHEMA:
                raise TemplateError(f"{file} is of a later emptcp-sdk", fix="Install that one.")
            return cls(**found)
        except FileNotFoundError:
            raise TemplateError(
                f"{package} was not made by emptcp-sdk: it has no {NAME}",
                fix="Name the folder of a package that `emptcp-sdk new` made.",
            ) from None
        except _BROKEN as error:
            raise TemplateError(
                f"{file} can't be read: {error}", fix="Take it from version control."
            ) from None

    def write(self, package: Path) -> None:
        """Write it into a package."""
        told = {"schema": SCHEMA, "sdk": self.sdk, "answers": self.answers, "files": dict(self.files)}
        (package / NAME).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def _files(folder: Path) -> list[tuple[str, str]]:
    found = (path for path in folder.rglob("*") if path.is_file())
    named = ((path.relative_to(folder), path) for path in found)
    return [
        (name.as_posix(), path.read_text(encoding="utf-8"))
        for name, path in named
        if name.parts[0] != "LICENSES" and name.name != NAME
    ]
