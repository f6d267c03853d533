# SPDX-License-Identifier: Apache-2.0
"""The errors that reach the author of a plugin."""

from __future__ import annotations


class SdkError(Exception):
    """A refusal in one sentence, then the fix; ``output`` is what a tool said, whole."""

    def __init__(self, sentence: str, *, fix: str = "", output: str = "") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.fix = fix
        self.output = output

    def __str__(self) -> str:
        return "\n".join(part.rstrip() for part in (self.output, self.sentence, self.fix) if part)


class BuildError(SdkError):
    """A BPF object can't be built."""


class TemplateError(SdkError):
    """A package can't be made from the template, or brought up to date with it."""
