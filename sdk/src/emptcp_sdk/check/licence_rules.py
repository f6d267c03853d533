# SPDX-License-Identifier: Apache-2.0
"""Whether a plugin's BPF code may become part of the program that core loads."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from emptcp.pybpf.elf import ObjectSpec
from emptcp.pybpf.errors import BpfError

from .finding import Finding
from .subject import Subject

STATED = ("GPL", "GPL v2", "GPL and additional rights", "Dual BSD/GPL", "Dual MIT/GPL", "Dual MPL/GPL")
"""What an object may state for the kernel to call it GPL-compatible (include/linux/license.h)."""

COMPATIBLE = frozenset(
    (
        *("0BSD", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "Unlicense", "Zlib"),
        *("GPL-2.0", "GPL-2.0+", "GPL-2.0-only", "GPL-2.0-or-later"),
        *("LGPL-2.1", "LGPL-2.1+", "LGPL-2.1-only", "LGPL-2.1-or-later"),
    )
)
"""SPDX identifiers of licences whose code may be part of a program under GPL, version 2."""

_SPDX = re.compile(r"SPDX-License-Identifier:\s*(?P<expression>[^*\n]+)")
_FIX = "Write /* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */, for instance."


def findings(subject: Subject) -> Iterator[Finding]:
    """Yield the C files and the object whose licence is none, or another than the joined program's."""
    for source in sorted((*subject.folder.rglob("*.bpf.c"), *subject.folder.rglob("*.h"))):
        yield from _source(subject, source)
    try:
        stated = ObjectSpec.read(subject.object).license if subject.manifest.object else ""
    except BpfError:
        return  # told of the object
    # A fragment states none: it is a part of core's program.
    if stated and stated not in STATED:
        sentence = f"the object {subject.object.name} states licence '{stated}'"
        yield Finding("licence", subject.in_source(r'SEC\("license"\)'), sentence, 'State "Dual BSD/GPL".')


def _source(subject: Subject, source: Path) -> Iterator[Finding]:
    for number, line in enumerate(source.read_text(encoding="utf-8").splitlines(), 1):
        found = _SPDX.search(line)
        if found:
            expression = found["expression"].strip()
            if not compatible(expression):
                sentence = f"the licence '{expression}' is not compatible with GPL, version 2"
                yield Finding("licence", subject.shown(source, number), sentence, _FIX)
            return
    yield Finding("licence", subject.shown(source, 1), "the file states no licence", _FIX)


def compatible(expression: str) -> bool:
    """Tell whether an SPDX expression lets the code become part of a program under GPL, version 2."""
    words = re.sub(r"[A-Za-z0-9.+-]+", lambda word: _word(word[0]), expression)
    try:
        return _holds(ast.parse(words.strip(), mode="eval").body)
    except SyntaxError:
        return False


def _word(word: str) -> str:
    return word.lower() if word in ("AND", "OR") else str(word in COMPATIBLE)


def _holds(node: ast.expr) -> bool:
    if isinstance(node, ast.BoolOp):
        every = isinstance(node.op, ast.And)
        return (all if every else any)(_holds(one) for one in node.values)
    return isinstance(node, ast.Constant) and node.value is True
