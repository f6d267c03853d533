# SPDX-License-Identifier: Apache-2.0
"""The words of the small language of ``when`` and ``do``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from emptcp.errors import EmptcpError, quoted
from emptcp.policy.place import Locate

WORD = re.compile(r"[A-Za-z0-9_.:/%*?+!-]+")
"""A name, a keyword, or a value that needs no quotes (``10mbit``, ``fd00::/8``, ``wwan*``)."""

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""A selector, an actor, a key, a parameter, a label."""

DECLARED_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
"""A chain, a set, a map, a path."""

DISTRIBUTION = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
"""What may stand before the colon in ``dist:name``."""

RESERVED = ("and", "or", "not", "in", "goto")
"""Words that name no selector, actor, key or label."""

_TOKEN = re.compile(
    rf"(?P<space>\s+)|(?P<word>{WORD.pattern})|(?P<sign>[()\[\],=@])"
    r"""|(?P<quote>'(?:[^'\\]|\\['"\\])*'|"(?:[^"\\]|\\['"\\])*")""",
)
_ESCAPE = re.compile(r"""\\(['"\\])""")
_PYTHON = {"&": "and", "|": "or", "~": "not", "^": "or", "<": "in", ">": "in"}


@dataclass(frozen=True, slots=True)
class Token:
    """``kind`` is ``word``, ``sign``, ``quote`` or ``end``; ``text`` of a quote is what it stands for."""

    kind: str
    text: str
    at: int
    end: int

    def __str__(self) -> str:
        return "the end" if self.kind == "end" else quoted(self.text)


def tokens(text: str, locate: Locate) -> Iterator[Token]:
    """Yield the tokens of ``text`` and one ``end``.

    Raises :class:`EmptcpError` at the first character that begins none.
    """
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise _stray(text, at, locate)
        kind, found = str(match.lastgroup), match[0]
        if kind == "quote":
            found = _ESCAPE.sub(r"\1", found[1:-1])
        if kind != "space":
            yield Token(kind, found, at, match.end())
        at = match.end()
    yield Token("end", "", at, at)


def quote(text: str) -> str:
    """Return ``text`` between single quotes, as :func:`tokens` reads it back."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _stray(text: str, at: int, locate: Locate) -> EmptcpError:
    """Return the error for a character that is not of this language."""
    character, where = text[at], str(locate(at))
    if character in "'\"":
        return _open_quote(text, at, locate)
    if character in _PYTHON:
        fix = f"Write '{_PYTHON[character]}' instead; the words are and, or, not, in."
    else:
        fix = "Put a value with other characters than letters, digits and _.:/%*?+!- into quotes."
    return EmptcpError(f"{quoted(character)} has no meaning here", fix=fix, where=where)


def _open_quote(text: str, at: int, locate: Locate) -> EmptcpError:
    """Tell a quote that is never closed from one with an escape that is not ours."""
    mark = text[at]
    body = re.compile(rf"""(?:[^{mark}\\]|\\['"\\])*""")
    match = body.match(text, at + 1)
    end = match.end() if match else at
    if text[end : end + 1] == "\\":
        fix = "Only \\', \\\" and \\\\ are known; every other character stands for itself."
        return EmptcpError("a backslash in quotes escapes nothing here", fix=fix, where=str(locate(end)))
    fix = f"Add {mark} at its end."
    return EmptcpError(f"the quote {mark} is never closed", fix=fix, where=str(locate(at)))
