# SPDX-License-Identifier: Apache-2.0
"""The Python side of add_subflow: what is stored for the subflows that exist is given back at once."""

from __future__ import annotations

from emptcp.api import Change, hookimpl

NAME = "add_subflow"


@hookimpl
def emptcp_applied(change: Change) -> None:
    """Give back stored addresses in an ACK of their own: idle subflows don't wait for a packet."""
    if change.stage.type.name == NAME:
        from emptcp_actor_blk_subflow.give_back import give_back

        give_back(change)
