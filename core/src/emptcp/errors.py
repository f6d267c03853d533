# SPDX-License-Identifier: Apache-2.0
"""The one error type that reaches an operator, and the spelling hint that goes with it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class EmptcpError(Exception):
    """A refusal in one sentence that names the object and the rule, then the fix.

    ``where`` is a place in the operator's input (``home.toml:12:8``), printed before the sentence.
    ``fix`` is printed on a line of its own. The command line prints at most six lines and exits with 1.
    """

    def __init__(self, sentence: str, *, fix: str = "", where: str = "") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.fix = fix
        self.where = where

    def __str__(self) -> str:
        head = f"{self.where}: {self.sentence}" if self.where else self.sentence
        return f"{head}\n{self.fix}" if self.fix else head


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"did you mean 'x'?"`` for the nearest of the known words, else an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean '{near[0]}'?" if near else ""


def quoted(text: str, limit: int = 48) -> str:
    """Return ``text`` in quotes for a sentence: on one line, without control characters, shortened."""
    head = text[: limit + 1]
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in head)
    return f"'{shown[:limit]}...'" if len(shown) > limit else f"'{shown}'"
