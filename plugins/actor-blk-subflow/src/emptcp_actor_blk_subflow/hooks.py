# SPDX-License-Identifier: Apache-2.0
"""The Python side of blk_subflow: what was kept back is given back when the stage goes."""

from __future__ import annotations

from emptcp.api import BoundStage, Change, EmptcpError, Policy, hookimpl

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
