# SPDX-License-Identifier: Apache-2.0
"""What a manifest leaves unsaid that operators read."""

from __future__ import annotations

from collections.abc import Iterator

from emptcp.plugins.manifest import KINDS

from .finding import Finding
from .subject import Subject


def findings(subject: Subject) -> Iterator[Finding]:
    """Yield the stages and parameters without a help text."""
    if not subject.manifest.summary:
        fix = 'Add summary = "..".'
        yield Finding("help", subject.in_manifest("name"), "the plugin has no summary", fix)
    for kind in KINDS:
        stages = [one for one in subject.manifest.stages if one.kind == kind]
        for index, stage in enumerate(stages):
            if not stage.help:
                where = subject.in_manifest(kind, index, "name")
                yield Finding("help", where, f"{kind} '{stage.name}' has no help", 'Add help = "..".')
            for number, parameter in enumerate(stage.parameters):
                if not parameter.help:
                    where = subject.in_manifest(kind, index, "parameter", number, "name")
                    sentence = f"parameter '{parameter.name}' of {kind} '{stage.name}' has no help"
                    yield Finding("help", where, sentence, 'Add help = "..".')
