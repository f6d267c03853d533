# SPDX-License-Identifier: Apache-2.0
"""Places in an operator's input, as errors name them: ``home.toml:12:8``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """A line and a column, both counted from 1, in a named source; line 0 means the source as a whole."""

    source: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        if not self.line:
            return self.source
        if self.source:
            return f"{self.source}:{self.line}:{self.column}"
        return f"column {self.column}" if self.line == 1 else f"line {self.line}, column {self.column}"


NOWHERE = Place()
"""The place of what was built in Python rather than read from a text."""

Locate = Callable[[int], Place]
"""Tells the place of the character at an index of one text."""


def line_and_column(text: str, index: int) -> tuple[int, int]:
    """Return the line and the column, from 1, of ``text[index]``."""
    line = text.count("\n", 0, index) + 1
    return line, index - (text.rfind("\n", 0, index) + 1) + 1


def within(source: str, text: str) -> Locate:
    """Return what tells the place of an index in the whole text of ``source``."""
    return lambda index: Place(source, *line_and_column(text, index))
