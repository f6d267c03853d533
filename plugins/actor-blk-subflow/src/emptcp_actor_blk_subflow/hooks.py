# SPDX-License-Identifier: Apache-2.0
"""The Python side of blk_subflow: what was kept back is given back when the stage goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emptcp.api import BoundStage, Change, EmptcpError, Policy, StageEvent, hookimpl

from .blocked import ADDRESS_KEPT, ADDRESS_REMOVED, kept, removed

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
    """Echo what was kept back; forget what was removed, for all subflows of the connection."""
    if event.plugin != NAME:
        return
    if event.type == ADDRESS_KEPT:
        from .echo import echo

        echo(event)
    elif event.type == ADDRESS_REMOVED:
        from .removal import forget_on_all

        forget_on_all(event)


@hookimpl
def emptcp_describe(event: StageEvent) -> Mapping[str, Any] | None:
    """Tell what was kept back or removed, and on which subflow: who said so, and to whom."""
    if event.plugin != NAME or event.endpoints is None:
        return None
    source, target = event.endpoints[event.direction], event.endpoints[1 - event.direction]
    ends = {"saddr": source[0], "sport": source[1], "daddr": target[0], "dport": target[1]}
    if event.type == ADDRESS_REMOVED:
        return {"event": "ADDRESS_REMOVED", "ids": sorted(removed(event.data)), **ends}
    return {"event": "ADDRESS_KEPT", "id": kept(event.data)[3], **ends}
