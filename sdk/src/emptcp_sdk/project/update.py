# SPDX-License-Identifier: Apache-2.0
"""``emptcp-sdk update``: bring to a package what changed in the template since it was made.

A three-way merge of each file: as the template gave it then, as it gives it now, as the author has it. The
merging itself is git's (``git merge-file``), which needs no repository.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import TemplateError
from . import template
from .origin import Origin

CHANGED, ADDED, REMOVED, CONFLICT, KEPT = "changed", "added", "removed", "conflict", "kept"


@dataclass(frozen=True)
class Merged:
    """What becomes of a file; ``text`` is ``None`` when it goes, or stays as it is (``kept``)."""

    name: str
    outcome: str
    text: str | None


def update(package: Path, *, dry_run: bool = False, folder: Path | None = None) -> list[Merged]:
    """Merge the template's changes into a package and return what became of the files that they touch.

    A file that author and template changed at the same place gets conflict markers, as by ``git merge``; one
    that the author deleted stays away. Raises :class:`TemplateError` when the package has no origin.
    """
    origin = Origin.read(package)
    with tempfile.TemporaryDirectory(prefix="emptcp-sdk-") as scratch:
        made = Path(scratch) / "package"
        answers = template.fill(made, origin.answers, defaults=True, folder=folder)
        now = Origin.of(made, answers)
    found = list(_merged(package, origin, now))
    if not dry_run:
        for one in found:
            _write(package / one.name, one)
        now.write(package)
    return found


def _merged(package: Path, then: Origin, now: Origin) -> Iterator[Merged]:
    for name in sorted({*then.files, *now.files}):
        before, after = then.files.get(name), now.files.get(name)
        if before != after:
            found = _one(package / name, name, before, after)
            if found:
                yield found


def _one(file: Path, name: str, before: str | None, after: str | None) -> Merged | None:
    mine = file.read_text(encoding="utf-8") if file.exists() else None
    if mine == after:
        return None
    if after is None:
        return Merged(name, REMOVED, None) if mine == before else Merged(name, KEPT, None)
    if mine is None:
        return Merged(name, ADDED, after) if before is None else Merged(name, KEPT, None)
    if mine == before:
        return Merged(name, CHANGED, after)
    text, conflicts = merge(mine, before or "", after)
    return Merged(name, CONFLICT if conflicts else CHANGED, text)


def merge(mine: str, before: str, after: str) -> tuple[str, bool]:
    """Return a text with both sides' changes since ``before``, and whether they conflict somewhere.

    Raises :class:`TemplateError` when git is missing or fails.
    """
    with tempfile.TemporaryDirectory(prefix="emptcp-sdk-") as scratch:
        files = []
        for name, text in (("mine", mine), ("before", before), ("after", after)):
            files.append(Path(scratch, name))
            files[-1].write_text(text, encoding="utf-8")
        labels = [word for label in ("yours", "template then", "template now") for word in ("-L", label)]
        try:
            answer = subprocess.run(
                ["git", "merge-file", "-p", *labels, *files], capture_output=True, text=True, check=False
            )
        except FileNotFoundError:
            raise TemplateError("merging needs git, which was not found", fix="Install git.") from None
    # The exit code counts conflicts; an error is beyond 127.
    if not 0 <= answer.returncode <= 127:
        raise TemplateError("git merge-file failed", output=answer.stderr)
    return answer.stdout, bool(answer.returncode)


def _write(file: Path, one: Merged) -> None:
    if one.outcome == REMOVED:
        file.unlink(missing_ok=True)
    elif one.text is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(one.text, encoding="utf-8")
