# SPDX-License-Identifier: Apache-2.0
"""What is wrong with an object, and between it and its manifest. Needs neither libbpf nor root."""

from __future__ import annotations

import json
from collections.abc import Iterator

from emptcp.errors import EmptcpError
from emptcp.plugins import agreement, layout
from emptcp.plugins.manifest import VERDICTS, StageDeclaration
from emptcp.pybpf.elf import ObjectSpec, ProgramSpec
from emptcp.pybpf.errors import BpfError

from .. import build_info
from .answers import answers
from .finding import Finding, Measured
from .subject import Subject

MOST_STACK = 256
MOST_INSTRUCTIONS = 4000


def findings(subject: Subject) -> Iterator[Finding]:
    """Yield what is wrong with the object that a plugin's manifest names."""
    if not subject.manifest.object:
        return
    try:
        spec = ObjectSpec.read(subject.object)
        _types = spec.btf
    except BpfError as error:
        rule = "btf" if subject.object.is_file() and "BTF" in error.sentence else "object"
        yield Finding(rule, subject.shown(subject.object), error.sentence, error.fix or "Compile it again.")
        return
    yield from _lines(subject, spec)
    yield from _record(subject)
    yield from _agreement(subject)
    for stage in subject.manifest.stages:
        yield from _answers(subject, spec, stage)
    for one in _fragments(subject, spec):
        yield from _size(subject, one)


def measured(subject: Subject) -> Iterator[Measured]:
    """Yield each fragment's instructions and stack, by back-end."""
    if subject.manifest.object and subject.object.is_file():
        for one in _fragments(subject, ObjectSpec.read(subject.object)):
            backend, _, name = one.section.removeprefix("emptcp.").partition("/")
            yield Measured(name, backend, instructions=one.instructions, stack=one.stack)


def _fragments(subject: Subject, spec: ObjectSpec) -> list[ProgramSpec]:
    return [one for one in spec.programs.values() if one.section.startswith("emptcp.")]


def _lines(subject: Subject, spec: ObjectSpec) -> Iterator[Finding]:
    if not spec.section(".BTF.ext"):
        sentence = f"the object {subject.manifest.object} does not tell its C lines"
        yield Finding(
            "btf", subject.shown(subject.object), sentence, "Compile it with -g, and don't strip it."
        )


def _record(subject: Subject) -> Iterator[Finding]:
    file = build_info.info_path(subject.object)
    where, fix = subject.shown(file), "Build it with emptcp-sdk's build hook."
    found = build_info.read(file)
    if found is None:
        yield Finding("record", where, f"there is no record of {subject.manifest.object}", fix)
    elif found.object != build_info.digest(subject.object):
        yield Finding("record", where, f"the record is of another {subject.manifest.object}", fix)


def _agreement(subject: Subject) -> Iterator[Finding]:
    try:
        found = layout.read(subject.object)
    except EmptcpError as error:
        yield Finding("object", subject.shown(subject.object), error.sentence, error.fix)
        return
    for problem in agreement.problems(subject.manifest, found):
        where = subject.in_manifest(*problem.path)
        yield Finding(problem.rule, where, problem.sentence, problem.fix)


# Answers


def _answers(subject: Subject, spec: ObjectSpec, stage: StageDeclaration) -> Iterator[Finding]:
    found: set[int] = set()
    for backend in stage.backends:
        code = spec.section(f"emptcp.{backend}/{stage.fragment}")
        told = answers(code) if code else None
        if told is None:
            return  # it depends on what the program reads
        found |= told
    known = {0, 1} if stage.kind == "selector" else set(range(len(VERDICTS)))
    place = subject.in_source(rf"EMPTCP_\w+\({stage.fragment}\b")
    what = f"{stage.kind} '{stage.name}'"
    for number in sorted(found - known):
        fix = (
            "Answer whether the packet matches." if stage.kind == "selector" else "Answer an EMPTCP_ verdict."
        )
        yield Finding("answer", place, f"{what} answers {number}", fix)
    if stage.kind == "actor":
        yield from _verdicts(subject, stage, {VERDICTS[number] for number in found & known}, place)


def _verdicts(subject: Subject, stage: StageDeclaration, given: set[str], place: str) -> Iterator[Finding]:
    index = [one for one in subject.manifest.stages if one.kind == "actor"].index(stage)
    manifest = subject.in_manifest("actor", index, "verdicts")
    for verdict in sorted(given - {"NEXT", *stage.verdicts}):
        sentence = f"actor '{stage.name}' answers {verdict}, which its manifest does not declare"
        yield Finding("verdict", place, sentence, f'Add "{verdict}" to verdicts.')
    for verdict in sorted(set(stage.verdicts) - given - {"NEXT"}):
        sentence = f"actor '{stage.name}' declares {verdict}, and never answers it"
        yield Finding("verdict-unused", manifest, sentence, f'Take "{verdict}" out of verdicts.')


def _size(subject: Subject, one: ProgramSpec) -> Iterator[Finding]:
    name = one.section.partition("/")[2]
    place = subject.in_source(rf"EMPTCP_\w+\({name}\b")
    backend = one.section.removeprefix("emptcp.").partition("/")[0]
    if one.stack > MOST_STACK:
        sentence = f"fragment '{name}' uses {one.stack} bytes of stack for {backend}"
        yield Finding("stack", place, sentence, "Keep local data smaller, or put it into a per-CPU array.")
    if one.instructions > MOST_INSTRUCTIONS:
        sentence = f"fragment '{name}' has {one.instructions} instructions for {backend}"
        fix = "Put what is repeated into a function that is not inlined."
        yield Finding("instructions", place, sentence, fix)


def compiler(subject: Subject) -> str:
    """Return the version line of the compiler that made the object; empty where that is not recorded."""
    try:
        told = json.loads(build_info.info_path(subject.object).read_text(encoding="utf-8"))
        return str(told["compiler"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
