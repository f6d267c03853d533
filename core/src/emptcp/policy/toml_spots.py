# SPDX-License-Identifier: Apache-2.0
"""Find where in a TOML text each key and each value stands.

The standard library's reader tells places of syntax errors only; this one is run on a text that it
accepted, so it checks nothing. TOML 1.0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

Path = tuple[str | int, ...]
"""Keys and indices from the top of the document: ``("policy", 0, "do", 1)``."""

_BLANK = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_PLAIN = re.compile(r"[^,\]}\n#]+")
_STRING = re.compile(
    r'"""(?:[^"\\]|\\.|"{1,2}(?!"))*"{3,5}'
    r"|'''(?:[^']|'{1,2}(?!'))*'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_ESCAPES = {"u": 6, "U": 10, "x": 4}
_LINE_END = re.compile(r"\\[ \t]*\n[ \t\n]*")


@dataclass(frozen=True, slots=True)
class Spot:
    """Indices into the text: where the key begins, and where the value does.

    For a table both are where its header's or its braces' key stands; for an item of an array, its first
    character.
    """

    key: int
    value: int


def spots(text: str) -> dict[Path, Spot]:
    """Return the spot of every key, table and array item of a valid TOML text (with ``\\n`` line ends)."""
    scanner = _Scanner(text)
    scanner.document()
    return scanner.found


def inside(text: str, start: int, index: int) -> int:
    """Return where character ``index`` of the string value that begins at ``start`` stands in ``text``.

    ``index`` may be the string's length: that is its closing quote.
    """
    at = start + (3 if text.startswith(('"""', "'''"), start) else 1)
    if at - start == 3 and text.startswith("\n", at):
        at += 1
    escaped = text[start] == '"'
    while escaped and (trimmed := _LINE_END.match(text, at)):
        at = trimmed.end()
    for _ in range(index):
        at += _ESCAPES.get(text[at + 1], 2) if escaped and text[at] == "\\" else 1
        while escaped and (trimmed := _LINE_END.match(text, at)):
            at = trimmed.end()
    return at


class _Scanner:
    """One pass over the text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._arrays: dict[Path, int] = {}
        self.found: dict[Path, Spot] = {}

    def document(self) -> None:
        """Walk the whole text."""
        table: Path = ()
        while self._skip(_BLANK) < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)

    def _skip(self, pattern: re.Pattern[str]) -> int:
        match = pattern.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return self._at

    def _header(self) -> Path:
        """Read ``[a.b]`` or ``[[a.b]]`` and return the path of the table that it opens."""
        double = self._text.startswith("[[", self._at)
        self._at += 1 + double
        parts = self._key()
        self._skip(_SPACE)
        self._at += 1 + double
        path: Path = ()
        for name, at in parts[:-1]:
            path = self._opened((*path, name), at)
        name, at = parts[-1]
        path = (*path, name)
        if not double:
            self.found[path] = Spot(at, at)
            return path
        self._arrays[path] = self._arrays.get(path, -1) + 1
        return self._opened(path, at)

    def _opened(self, path: Path, at: int) -> Path:
        """Note a table on the way; of an array of tables it is the last one so far."""
        self.found.setdefault(path, Spot(at, at))
        if path not in self._arrays:
            return path
        last = (*path, self._arrays[path])
        self.found.setdefault(last, Spot(at, at))
        return last

    def _key(self) -> list[tuple[str, int]]:
        """Read a dotted key: each part and where it begins."""
        parts: list[tuple[str, int]] = []
        while True:
            self._skip(_SPACE)
            start = self._at
            if self._text[start] in "'\"":
                self._skip(_STRING)
                parts.append((_decoded(self._text[start : self._at]), start))
            else:
                parts.append((self._text[start : self._skip(_BARE_KEY)], start))
            self._skip(_SPACE)
            if not self._text.startswith(".", self._at):
                return parts
            self._at += 1

    def _pair(self, table: Path) -> None:
        parts = self._key()
        path = table
        for name, at in parts[:-1]:
            path = (*path, name)
            self.found.setdefault(path, Spot(at, at))
        self._at += 1  # the equals sign
        self._skip(_SPACE)
        name, at = parts[-1]
        self.found[(*path, name)] = Spot(at, self._at)
        self._value((*path, name))

    def _value(self, path: Path) -> None:
        first = self._text[self._at]
        if first in "'\"":
            self._skip(_STRING)
        elif first == "[":
            self._array(path)
        elif first == "{":
            self._inline_table(path)
        else:
            self._skip(_PLAIN)

    def _array(self, path: Path) -> None:
        self._at += 1
        index = 0
        while self._text[self._skip(_BLANK)] != "]":
            self.found[(*path, index)] = Spot(self._at, self._at)
            self._value((*path, index))
            index += 1
            if self._text[self._skip(_BLANK)] == ",":
                self._at += 1
        self._at += 1

    def _inline_table(self, path: Path) -> None:
        self._at += 1
        while self._text[self._skip(_BLANK)] != "}":
            self._pair(path)
            if self._text[self._skip(_BLANK)] == ",":
                self._at += 1
        self._at += 1


def _decoded(raw: str) -> str:
    """Return the key that a quoted key spells."""
    if raw[0] == "'":
        return raw[1:-1]
    import tomllib

    return str(tomllib.loads(f"k = {raw}")["k"])
