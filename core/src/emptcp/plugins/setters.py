# SPDX-License-Identifier: Apache-2.0
"""What controllers may set, and the actors that put it in force. A new kind of setting begins here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Setter:
    """One thing that controllers set.

    With a ``parameter``, that of the ``actor`` is read from a map, by subflow, of values of ``type``. Without
    one there is a set of connections for each path, and the actor works on what the set tells of.
    """

    actor: str
    parameter: str = ""
    type: str = ""
    key: str = "subflow"

    @property
    def by_path(self) -> bool:
        """Whether it is set for the paths of a connection, and not for its subflows."""
        return not self.parameter


SETTERS: Mapping[str, Setter] = {
    "backup": Setter("set_backup", "on", "bool"),
    "rate": Setter("rate_limit", "rate", "rate"),
    "block": Setter("blk_subflow", key="connection"),
    "steer": Setter("steer", "link", "int"),
}

UNLESS_TOLD = ("backup", "rate")
"""What a controller sets whose manifest does not tell."""
