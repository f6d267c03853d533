# SPDX-License-Identifier: Apache-2.0
"""A verifier's rejection, in a few lines instead of thousands."""

from __future__ import annotations

from emptcp.pybpf.errors import BpfError


class VerifierError(BpfError):
    """The kernel rejected a program.

    ``log`` is the verifier's whole log, ``summary`` the short explanation.
    """

    def __init__(
        self, sentence: str, *, fix: str = "", errno: int = 0, log: str = "", summary: str = ""
    ) -> None:
        super().__init__(sentence, fix=fix, errno=errno, log=log)
        self.summary = summary or sentence
