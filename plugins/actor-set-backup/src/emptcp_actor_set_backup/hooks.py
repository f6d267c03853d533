# SPDX-License-Identifier: Apache-2.0
"""The Python side of set_backup: what a policy must have, and the subflows that exist already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from emptcp.api import (
    Action,
    BoundStage,
    Change,
    EmptcpError,
    Ends,
    FlowEntry,
    FromMap,
    Policy,
    hookimpl,
)

from .told import UNKNOWN, End, Told, value

NAME = "set_backup"

NEEDS: dict[End, str] = {"us": "ingress", "peer": "egress"}
"""The hook by which the packets go that steer an end: an MP_PRIO steers who receives it (RFC 8684 §3.3.8)."""

_WHAT: dict[End, str] = {
    "us": "what this host sends, by packets that come in",
    "peer": "what the peer sends, by packets that go out",
}


@hookimpl
def emptcp_validate(stage: BoundStage, policy: Policy) -> None:
    """Refuse ``steers`` where the policy lacks the hook that it takes."""
    if stage.type.name != NAME:
        return
    for end in _steered(stage):
        if NEEDS[end] not in policy.hooks:
            raise EmptcpError(
                f"policy '{policy.name}': set_backup steers '{end}' ({_WHAT[end]}), which takes hook "
                f"'{NEEDS[end]}', and the policy has {_listed(policy.hooks)}",
                fix=f"Write hook = [{_listed((*policy.hooks, NEEDS[end]), quote=True)}] in the policy.",
                where=str(stage.spec.where),
            )


@hookimpl
def emptcp_applying(change: Change) -> None:
    """Note the bits of the subflows that exist, to give them back later."""
    end = _end(change)
    if end:
        from .steer import judge

        judge(change, end)


@hookimpl
def emptcp_applied(change: Change) -> None:
    """Tell the new bit on the subflows that exist, once each. What a map says, passing packets tell."""
    end = _end(change)
    if end and not isinstance(change.value("on"), FromMap):
        from .steer import steer

        steer(change, end, bool(change.value("on", True)))


@hookimpl
def emptcp_entries(change: Change, parameter: str, entries: Mapping[Ends, bool | None]) -> None:
    """Tell what the map says now of subflows that exist; give back where it says nothing any more."""
    end = _end(change)
    if end and parameter == "on":
        from .steer import follow

        follow(change, end, entries)


@hookimpl
def emptcp_removed(change: Change) -> None:
    """Tell the bit of before on the subflows that were changed."""
    end = _end(change)
    if end:
        from .steer import give_back

        give_back(change, end)


@hookimpl
def emptcp_actions(entries: Sequence[FlowEntry]) -> Sequence[Sequence[Action]]:
    """Tell the bit that was said last: an option in one end's name steers what the other one sends."""
    return [_actions(one.state[NAME]) if NAME in one.state else [] for one in entries]


def _actions(slot: bytes) -> list[Action]:
    said = enumerate(Told.decode(slot).told)
    found = [(1 - end, bit == value(True)) for end, bit in said if bit != UNKNOWN]
    return [Action(NAME, "backup" if backup else "not backup", end, backup) for end, backup in found]


def _end(change: Change) -> End | None:
    """Return whom the change's hook steers, None when it is not for this plugin or not wanted."""
    if change.stage.type.name != NAME:
        return None
    wanted = _steered(change.stage) or tuple(NEEDS)
    return next((end for end in wanted if NEEDS[end] == change.hook), None)


def _steered(stage: BoundStage) -> tuple[End, ...]:
    """Return whom the stage steers; nothing stands for all that its policy's hooks reach."""
    names = stage.values.get("steers") or ()
    return tuple(NEEDS) if "both" in names else tuple(end for end in NEEDS if end in names)


def _listed(hooks: tuple[str, ...], *, quote: bool = False) -> str:
    return ", ".join(f'"{hook}"' if quote else f"'{hook}'" for hook in hooks)
