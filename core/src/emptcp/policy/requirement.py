# SPDX-License-Identifier: Apache-2.0
"""What a policy file needs to be installed: ``emptcp-actor-drop>=0.1,<1``, as pip writes it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from emptcp.errors import EmptcpError, quoted
from emptcp.policy.place import NOWHERE, Place
from emptcp.policy.tokens import DISTRIBUTION

_VERSION = r"(?:===?|!=|~=|<=?|>=?)\s*[0-9A-Za-z][0-9A-Za-z.*+!_-]*"
_REQUIREMENT = re.compile(
    rf"(?P<name>{DISTRIBUTION.pattern})\s*(?P<versions>{_VERSION}(?:\s*,\s*{_VERSION})*)?"
)
EXAMPLE = "'emptcp-actor-drop>=0.1,<1'"


@dataclass(frozen=True, slots=True)
class Requirement:
    """A distribution, and which versions of it will do: empty for any."""

    name: str
    versions: str = ""
    where: Place = field(default=NOWHERE, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.name}{self.versions}"


def parse(text: str, where: Place = NOWHERE) -> Requirement:
    """Read a requirement. Raises :class:`EmptcpError` when it is none, or asks for more than versions."""
    match = _REQUIREMENT.fullmatch(text.strip())
    if match is None:
        fix = f"Write a distribution and its versions, as in {EXAMPLE}."
        raise EmptcpError(f"{quoted(text)} is no requirement", fix=fix, where=str(where))
    return Requirement(match["name"], "".join((match["versions"] or "").split()), where)
