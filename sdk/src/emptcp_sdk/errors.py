# SPDX-License-Identifier: Apache-2.0
"""The one error that reaches the author of a plugin while it is built."""

from __future__ import annotations


class BuildError(Exception):
    """A refusal in one sentence, then the fix; ``output`` is what the compiler said, whole."""

    def __init__(self, sentence: str, *, fix: str = "", output: str = "") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.fix = fix
        self.output = output

    def __str__(self) -> str:
        return "\n".join(part.rstrip() for part in (self.output, self.sentence, self.fix) if part)
