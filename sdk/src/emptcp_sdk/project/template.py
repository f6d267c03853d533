# SPDX-License-Identifier: Apache-2.0
"""Fill in the template that this SDK ships, by copier, which asks the questions and judges the answers."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from ..errors import TemplateError

FOLDER = Path(__file__).resolve().parent.parent / "template"
KINDS = ("selector", "actor", "controller")

Answers = dict[str, Any]


def fill(into: Path, given: Mapping[str, Any], *, defaults: bool, folder: Path | None = None) -> Answers:
    """Write the package's files into an empty folder, and return the answers they were made from.

    What ``given`` leaves open is asked at the terminal; with ``defaults`` nothing is. ``folder`` is another
    template. Raises :class:`TemplateError` when an answer is refused, or there is nobody to ask.
    """
    copier, errors = _copier()
    try:
        worker = copier.run_copy(
            str(folder or FOLDER), into, data=dict(given), defaults=defaults, overwrite=True, quiet=True
        )
    except errors.InteractiveSessionError:
        fix = "Take the defaults: --defaults; or answer: --answer author='..'"
        raise TemplateError("there is no terminal to ask questions at", fix=fix) from None
    except (errors.CopierError, ValueError) as error:
        # What copier says names the question, and what is wrong with the answer.
        raise TemplateError(" ".join(str(error).split())) from None
    except KeyboardInterrupt:
        raise TemplateError("no package was made: a question was not answered") from None
    _add_licence(into)
    asked = worker.template.questions_data
    return {name: value for name, value in worker.answers.combined.items() if _is_asked(asked.get(name))}


def _is_asked(question: Mapping[str, Any] | None) -> bool:
    return question is not None and question.get("when") is not False


def _add_licence(into: Path) -> None:
    """Copy the long licence: the SDK travels with the same text."""
    text = distribution("emptcp-sdk").read_text("licenses/LICENSES/GPL-2.0-only.txt")
    if text is None:
        raise TemplateError(
            "the installed emptcp-sdk lacks its licence GPL-2.0-only.txt", fix="Install it again."
        )
    (into / "LICENSES" / "GPL-2.0-only.txt").write_text(text, encoding="utf-8")


def _copier() -> tuple[Any, Any]:
    try:
        import copier
        from copier import errors
    except ImportError:
        raise TemplateError(
            "making a package needs copier, which is not installed",
            fix="Run: pip install 'emptcp-sdk[new]'",
        ) from None
    return copier, errors
