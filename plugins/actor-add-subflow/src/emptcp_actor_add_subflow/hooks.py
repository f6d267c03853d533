# SPDX-License-Identifier: Apache-2.0
"""The Python side of add_subflow: what is stored for the subflows that exist is given back at once."""

from __future__ import annotations

from emptcp.api import BoundStage, Change, EmptcpError, Policy, StageEvent, hookimpl

NAME = "add_subflow"


@hookimpl
def emptcp_validate(stage: BoundStage, policy: Policy) -> None:
    """Refuse an announcement that nobody can take, or that does not go out."""
    if stage.type.name != NAME:
        return
    wrong = _wrong(stage, policy)
    if wrong is not None:
        sentence, fix = wrong
        message = f"policy '{policy.name}': add_subflow {sentence}"
        raise EmptcpError(message, fix=fix, where=str(stage.spec.where))


def _wrong(stage: BoundStage, policy: Policy) -> tuple[str, str] | None:
    """Return what is wrong, and the fix."""
    given = {name for name in ("announce", "id", "port") if name in stage.values}
    if given and not {"announce", "id"} <= given:
        return "announces an address together with its ID", "Write announce=ADDRESS, id=NUMBER."
    if given and "egress" not in policy.hooks:
        return "announces addresses in packets that go out", 'Write hook = "egress".'
    return None


@hookimpl
def emptcp_applied(change: Change) -> None:
    """Give back and announce in an ACK of its own: idle subflows don't wait for a packet."""
    if change.stage.type.name != NAME:
        return
    from emptcp_actor_blk_subflow.give_back import give_back

    give_back(change)
    if change.value("announce") is not None and change.hook == "egress":
        from .announce import announce

        announce(change)


@hookimpl
def emptcp_event(event: StageEvent) -> None:
    """Announce on a connection that began after the policy."""
    if event.plugin == NAME:
        from .announce import announce_on

        announce_on(event)
