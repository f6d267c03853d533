# SPDX-License-Identifier: Apache-2.0
"""A verifier's rejection in a few lines: the C line, the reason, what to do, where the whole log is.

A log is instructions with what the verifier knows about the registers, between them the C lines (``; text @
file:line``, the place since kernel 6.8), and at its end one or more sentences that say why. The rest is for
those who ask.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from emptcp.pybpf.errors import BpfError

_INSTRUCTION = re.compile(r"^(\d+): \([0-9a-f]{2}\)")
_SOURCE = re.compile(r"^; (?P<text>.*?)(?: @ (?P<file>[^\s:]+):(?P<line>\d+))?$")
# Lines that say what the verifier did, not why it refused.
_NOISE = re.compile(
    r"^(\d+: |; |processed \d|verification time|stack depth|mark_precise|(cur|old) state:|from \d+ to \d+|"
    r"Validating |Func#\d+ .* is safe|R\d+(_\w+)?=|propagating |\(|$)"
)

_HINTS = (
    (
        r"invalid access to packet|outside of the packet",
        "Compare the pointer with data_end, by the size that is read, before this line.",
    ),
    (
        r"invalid mem access '\w*_or_null'|_or_null' expected|Possibly NULL pointer",
        "Test the pointer for NULL before this line.",
    ),
    (
        r"invalid mem access '(scalar|inv)'",
        "This is a number to the verifier, not a pointer: read packet pointers again after a helper that "
        "moves the packet.",
    ),
    (
        r"unbounded memory access|unbounded min value|min value is (negative|outside)|max value is outside|"
        r"invalid access to map value|invalid access to memory",
        "Bound the index with a comparison or a mask before this line.",
    ),
    (
        r"Processed \d+ insn|too many instructions|program is too large|sequence of \d+ jumps is too complex|"
        r"too many states",
        "There are too many paths: give loops a small constant bound, and put repeated work into a noinline "
        "function.",
    ),
    (r"infinite loop|back-edge", "Give the loop a bound that the verifier can see."),
    (
        r"combined stack size|stack (depth|size).*(too large|exceed)|invalid stack (off|access)|"
        r"invalid (write to|access to) stack",
        "Keep local data smaller (a fragment has 256 bytes), or put it into a per-CPU array.",
    ),
    (
        r"variable-offset (read|write|access)? ?(from|to)? ?stack|indirect (read|access).*stack|"
        r"invalid (indirect )?read from stack",
        "Initialise the whole variable first, and index it only with constants or masked values.",
    ),
    (r"!read_ok", "A value is used before it is set: initialise it on every path."),
    (
        r"cannot use helper|unknown func|invalid func|program of this type",
        "This hook or this kernel has no such helper: use it only where the features say so.",
    ),
    (r"GPL", "State a GPL-compatible licence in the section 'license', such as \"Dual BSD/GPL\"."),
    (r"reference leak|[Uu]nreleased reference", "Submit or discard what was reserved, on every path."),
    (r"invalid bpf_context access", "Read only fields that this hook's context has."),
    (r"modified ctx ptr", "Use the context pointer as it was given, without arithmetic."),
    (r"write into map forbidden|cannot write into|read-only", "What is written to here is read-only."),
    (r"Caller passes invalid args", "Hand global functions the context and numbers only, or make it static."),
    (r"type=\w+ expected=", "The helper wants another kind of pointer for this argument."),
    (
        r"pointer (\+|-|\+=|-=) pointer|pointer arithmetic|math between .* pointer|prohibited",
        "The verifier does not follow this arithmetic on a pointer: add bounded numbers only.",
    ),
    (r"should have been in|At program exit", "Return only what this hook knows as an answer."),
    (r"unreachable insn", "Some instruction can never be reached: the program was put together wrongly."),
    (r"tail_call", "Tail calls are not to be made from here."),
)


class Line(NamedTuple):
    """Where the instruction at an offset (counted in instructions) comes from."""

    offset: int
    file: str
    text: str
    line: int
    column: int


@dataclass(frozen=True)
class Explanation:
    """A verifier's log in short.

    ``file`` is empty and ``line`` 0 where the place is not known; ``instruction`` is the number of the last
    instruction the verifier looked at, None if there is none; ``omitted`` counts the log's lines not shown.
    """

    reason: str
    source_line: str
    file: str
    line: int
    hint: str
    omitted: int
    instruction: int | None

    @property
    def place(self) -> str:
        """``file:line``, or what of it is known."""
        return f"{self.file}:{self.line}" if self.file else ""


class VerifierError(BpfError):
    """The kernel rejected a program.

    ``log`` is the verifier's whole log, ``log_file`` where it was written (None: nowhere), ``explanation``
    its short form. As text it has at most five lines.
    """

    def __init__(
        self, what: str, *, errno: int, log: str, lines: Sequence[Line] = (), log_file: Path | None = None
    ) -> None:
        self.explanation = explain(log, lines)
        self.log_file = log_file
        super().__init__(
            f"the verifier refuses {what}: {self.explanation.reason}",
            fix=_advice(self.explanation, log_file),
            where=self.explanation.place,
            errno=errno,
            log=log,
        )

    @property
    def summary(self) -> str:
        """The reason alone."""
        return self.explanation.reason


def _advice(found: Explanation, log_file: Path | None) -> str:
    source = f"    {found.source_line}" if found.source_line else ""
    kept = f"; the whole log is in {log_file}" if log_file else ""
    lines = "1 line" if found.omitted == 1 else f"{found.omitted} lines"
    omitted = f"({lines} omitted{kept})" if found.omitted or kept else ""
    return "\n".join(filter(None, (source, found.hint, omitted)))


def explain(log: str, lines: Sequence[Line] = ()) -> Explanation:
    """Return a verifier's log in short.

    :param lines: where the instructions come from, by rising offset; without it the log's own C lines are
        used.
    """
    rows = log.splitlines()
    reason, hint = _reason(rows)
    instruction = _instruction(rows)
    source = _known_source(lines, instruction) or _logged_source(rows)
    shown = sum(bool(text) for text in (reason, source.text))
    return Explanation(
        reason=reason or "it does not say why",
        source_line=source.text,
        file=source.file,
        line=source.line,
        hint=hint,
        omitted=max(0, len([row for row in rows if row.strip()]) - shown),
        instruction=instruction,
    )


def _reason(rows: list[str]) -> tuple[str, str]:
    """Return the last sentence at the log's end that there is advice for, else the last, and the advice."""
    sentences = []
    for row in reversed(rows):
        if _INSTRUCTION.match(row):
            break
        if not _NOISE.match(row):
            sentences.append(row.strip())
    advised = ((sentence, _hint(sentence)) for sentence in sentences)
    return next((pair for pair in advised if pair[1]), (sentences[0] if sentences else "", ""))


def _hint(sentence: str) -> str:
    return next((hint for pattern, hint in _HINTS if re.search(pattern, sentence)), "")


def _instruction(rows: list[str]) -> int | None:
    found = (match for row in reversed(rows) if (match := _INSTRUCTION.match(row)))
    return next((int(match.group(1)) for match in found), None)


def _known_source(lines: Sequence[Line], instruction: int | None) -> Line | None:
    if instruction is None:
        return None
    before = [line for line in lines if line.offset <= instruction]
    return _shortened(before[-1]) if before else None


def _logged_source(rows: list[str]) -> Line:
    for row in reversed(rows):
        match = _SOURCE.match(row)
        if match:
            return _shortened(Line(0, match["file"] or "", match["text"], int(match["line"] or 0), 0))
    return Line(0, "", "", 0, 0)


def _shortened(line: Line) -> Line:
    text = line.text.strip()
    text = text if len(text) <= 100 else text[:97] + "..."
    return line._replace(text=text)


def log_folder() -> Path:
    """Return where whole logs go: ``EMPTCP_RUN`` or ``/run/emptcp``."""
    return Path(os.environ.get("EMPTCP_RUN", "/run/emptcp"))


def keep_log(name: str, log: str) -> Path | None:
    """Write a whole log to a file of its own and return its path; None if there is no place for it.

    In :func:`log_folder` one file per program's name, else a new temporary file.
    """
    plain = re.sub(r"[^\w.-]", "_", name) or "program"
    try:
        return _write(log_folder() / f"verifier-{plain}.log", log)
    except OSError:
        return _write_elsewhere(plain, log)


def _write(path: Path, log: str) -> Path:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
        file.write(log)
    return path


def _write_elsewhere(name: str, log: str) -> Path | None:
    try:
        descriptor, path = tempfile.mkstemp(prefix=f"emptcp-verifier-{name}-", suffix=".log")
    except OSError:
        return None
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(log)
    return Path(path)
