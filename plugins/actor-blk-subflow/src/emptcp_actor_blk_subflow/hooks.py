# SPDX-License-Identifier: Apache-2.0
"""The Python side of blk_subflow: what was kept back is given back when the stage goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emptcp.api import BoundStage, Change, EmptcpError, Policy, StageEvent, hookimpl

NAME = "blk_subflow"


@hookimpl
def emptcp_validate(stage: BoundStage, policy: Policy) -> None:
    """Refuse a stage that blocks nothing."""
    if stage.type.name != NAME or stage.values.get("addresses") or stage.values.get("joins"):
        return
    raise EmptcpError(
        f"policy '{policy.name}': blk_subflow is to block neither addresses nor joins",
        fix="Leave out addresses=false, or joins=false.",
        where=str(stage.spec.where),
    )


@hookimpl
def emptcp_applied(change: Change) -> None:
    """Give the addresses back when they are blocked no more."""
    before = change.before.values if change.before else {}
    if change.stage.type.name == NAME and before.get("addresses") and not change.value("addresses"):
        from .give_back import give_back

        give_back(change)


@hookimpl
def emptcp_removed(change: Change) -> None:
    """Give the addresses back. Held SYNs pass by themselves: TCP sends them again."""
    if change.stage.type.name == NAME and change.value("addresses"):
        from .give_back import give_back

        give_back(change)


@hookimpl
def emptcp_event(event: StageEvent) -> None:
    """Echo what was kept back."""
    if event.plugin == NAME:
        from .echo import echo

        echo(event)


@hookimpl
def emptcp_describe(event: StageEvent) -> Mapping[str, Any] | None:
    """Tell what was kept back, and on which subflow: who announced, and to whom."""
    if event.plugin != NAME or event.endpoints is None:
        return None
    from .blocked import kept

    source, target = event.endpoints[event.direction], event.endpoints[1 - event.direction]
    return {
        "event": "ADDRESS_KEPT",
        "id": kept(event.data)[3],
        "saddr": source[0],
        "sport": source[1],
        "daddr": target[0],
        "dport": target[1],
    }
