# SPDX-License-Identifier: Apache-2.0
"""What can be declared in a policy file and is not carried out yet. The one place where it is refused."""

from __future__ import annotations

from emptcp.errors import EmptcpError, quoted
from emptcp.policy import model
from emptcp.policy.place import Place


def refuse_unsupported(table: model.Table) -> None:
    """Raise :class:`EmptcpError` when ``table`` uses what this release only reads.

    A path that nothing uses is harmless, and stays.
    """
    for policy in table.policies:
        if "socket" in policy.hooks:
            raise _not_yet(f"hook 'socket' of policy {quoted(policy.name)}", policy.where)


def _not_yet(what: str, where: Place) -> EmptcpError:
    fix = "Remove it for now; this release only reads it."
    return EmptcpError(f"{what} is not carried out by this release", fix=fix, where=str(where))
