# SPDX-License-Identifier: Apache-2.0
"""All checks of a project's folder or a wheel."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..build import build, sources_of
from ..errors import BuildError
from . import licence_rules, manifest_rules, object_rules, python_rules, wheel_rules
from .finding import ERROR, Finding, Measured
from .subject import Examined, Subject, examined

RULES = (manifest_rules, python_rules, licence_rules, object_rules)

_CLANG = re.compile(r"^(?P<file>[^\s:]+):(?P<line>\d+):\d+: (?:fatal )?error: (?P<said>.*)$", re.MULTILINE)


@dataclass
class Report:
    """What was found in ``path``, worst first.

    ``compilers`` made the objects; ``loaded`` tells whether the kernel was asked too.
    """

    path: Path
    findings: list[Finding] = field(default_factory=list)
    measured: list[Measured] = field(default_factory=list)
    compilers: list[str] = field(default_factory=list)
    loaded: bool = False

    @property
    def failed(self) -> bool:
        """Whether one of the findings is an error."""
        return any(one.level == ERROR for one in self.findings)


def check(path: Path, *, static: bool = False) -> Report:
    """Check a project's folder, whose objects are brought up to date first, or a wheel.

    Root also loads every stage, unless ``static`` or something is wrong with its plugin already. Raises
    :class:`SdkError` when the path is neither.
    """
    report = Report(path)
    with examined(path) as found:
        report.findings += found.findings
        if not found.is_wheel:
            report.findings += _built(path)
        report.findings += wheel_rules.findings(found)
        for subject in found.subjects:
            _check(report, subject, found, static=static)
    report.findings.sort(key=lambda one: one.level != ERROR)
    return report


def _check(report: Report, subject: Subject, found: Examined, *, static: bool) -> None:
    own = [one for rules in RULES for one in rules.findings(subject)]
    report.findings += own
    report.measured += object_rules.measured(subject) if not any(one.level == ERROR for one in own) else []
    report.compilers += filter(None, [object_rules.compiler(subject)])
    if static or os.geteuid() or any(one.level == ERROR for one in report.findings):
        return
    from . import kernel

    refused, measured = kernel.check(subject, found.subjects)
    report.findings += refused
    report.measured += measured
    report.loaded = True


def _built(path: Path) -> Iterator[Finding]:
    if not sources_of(path):
        return
    try:
        build(path)
    except BuildError as error:
        places = list(_CLANG.finditer(error.output))
        for place in places:
            files = sorted((path / "src").rglob(place["file"].rpartition("/")[2]))
            name = files[0].relative_to(path).as_posix() if files else place["file"]
            yield Finding("compile", f"{name}:{place['line']}", place["said"], "Mend the C code.")
        if not places:
            yield Finding("compile", "src", error.sentence, error.fix or error.output)
