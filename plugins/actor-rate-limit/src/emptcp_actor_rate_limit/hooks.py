# SPDX-License-Identifier: Apache-2.0
"""The Python side of rate_limit: what goes together, and the subflows that exist already."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from typing import Literal

from emptcp.api import (
    Action,
    BoundStage,
    Change,
    EmptcpError,
    Ends,
    FlowEntry,
    FlowStates,
    Policy,
    Snapshot,
    Subflow,
    SubflowReader,
    features,
    hookimpl,
    selected_subflows,
    subflows_on_devices,
)
from emptcp_actor_rate_limit import coverage, parted
from emptcp_actor_rate_limit.values import (
    AUTO,
    CONNECTION,
    DEV,
    PACING,
    POLICY,
    SUBFLOW,
    WINDOW,
    our_end,
    way_of,
)

NAME = "rate_limit"

# The first word of struct rate_limit_state: bytes per second that each end may send; and what we set
_WANTED = struct.Struct("=2I")
_PACED_AT = 8
_UNPACED = 0xFFFFFFFF

_PACING_NEEDS = ("sock_ops", "netns_cookie", "bpf_iter_setsockopt")

SHARED_WINDOWS = (5, 19)
"""The Linux since which subflows send by the connection's window (mptcp_check_allowed_size)."""


@hookimpl
def emptcp_validate(stage: BoundStage, policy: Policy) -> None:
    """Refuse what can't be had together: a mode, what has the rate, the hooks, this kernel."""
    if stage.type.name != NAME:
        return
    wrong = _wrong(stage.values["mode"], stage.values["per"], policy)
    if wrong is not None:
        sentence, fix = wrong
        message = f"policy '{policy.name}': rate_limit {sentence}"
        raise EmptcpError(message, fix=fix, where=str(stage.spec.where))


def _wrong(mode: int, per: int, policy: Policy) -> tuple[str, str] | None:
    """Return what is wrong, and the fix."""
    if mode == PACING:
        return _wrong_pacing(per, policy)
    if mode == WINDOW and per in (POLICY, DEV):
        return "by mode=window limits connections", "Write per=connection, or mode=police."
    if mode == WINDOW and per == SUBFLOW and _kernel() >= SHARED_WINDOWS:
        return (
            "by mode=window can't limit a subflow: since Linux 5.19 a sender takes the window of the whole "
            "connection for each of them",
            "Write per=connection, or mode=pacing.",
        )
    if per == CONNECTION and mode not in (AUTO, WINDOW):
        return "per=connection limits by the receive window", "Write mode=window."
    return None


def _wrong_pacing(per: int, policy: Policy) -> tuple[str, str] | None:
    if per != SUBFLOW:
        return "by mode=pacing paces sockets, so a rate is per subflow", "Write per=subflow, or mode=police."
    if "egress" not in policy.hooks:
        sentence = "by mode=pacing paces what this host sends, at hook 'egress', which the policy has not"
        return sentence, 'Write hook = "egress" in the policy, or mode=police.'
    missing = next(filter(None, map(features.reason, _PACING_NEEDS)), "")
    return (
        (f"by mode=pacing needs what this kernel lacks: {missing}", "Write mode=police.") if missing else None
    )


def _kernel() -> tuple[int, ...]:
    """Return version and patch level of the running kernel."""
    return tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])


@hookimpl
def emptcp_applied(change: Change) -> None:
    """Tell the socket companion of the subflows that are there, and what is wanted of them."""
    rate = change.value("rate")
    if _windows(change):
        _follow(change)
    if _paces(change) and isinstance(rate, int):  # one from a map is looked up with each packet
        _want(change, min(rate, _UNPACED - 1))


@hookimpl
def emptcp_entries(change: Change, parameter: str, entries: Mapping[Ends, int | None]) -> None:
    """Want what the map says now of subflows that exist, and what was before where it says nothing more."""
    if not _paces(change) or parameter != "rate" or change.flows is None:
        return
    with SubflowReader() as reader:
        for subflow, _device in subflows_on_devices(change, reader):
            ends = (subflow.local, subflow.local_port), (subflow.remote, subflow.remote_port)
            for rate in (entries[one] for one in (ends, ends[::-1]) if one in entries):
                _write(change.flows, subflow, _UNPACED if rate is None else min(rate, _UNPACED - 1))


@hookimpl
def emptcp_removed(change: Change) -> None:
    """Want what was there before, for the subflows that were selected."""
    if _paces(change):
        _want(change, _UNPACED)
    if _is_of_connections(change):
        parted.forget(change)


@hookimpl
def emptcp_sockets(changes: Sequence[Change], reader: Snapshot) -> None:
    """Let go of connections that have subflows elsewhere, and limit those that have none any more."""
    if _is_of_connections(changes[0]):
        parted.mark(changes, reader)


def _paces(change: Change) -> bool:
    if change.stage.type.name != NAME or change.hook != "egress":
        return False
    return change.value("mode") in (AUTO, PACING) and change.value("per") == SUBFLOW


def _windows(change: Change) -> bool:
    if change.stage.type.name != NAME or not features.has("bpf_iter_tcp"):
        return False
    return way_of(change.value("mode"), change.value("per")) == WINDOW


def _is_of_connections(change: Change) -> bool:
    return _windows(change) and change.value("per") == CONNECTION


def _follow(change: Change) -> None:
    """Make the state of the subflows that are there: the socket companion writes what it knows into it."""
    if change.flows is None:
        return
    to: Literal["us", "peer"] = "us" if change.hook == "ingress" else "peer"
    with SubflowReader() as reader:
        for subflow, _device in selected_subflows(change, to, reader):
            ends = ((subflow.local, subflow.local_port), (subflow.remote, subflow.remote_port))
            if change.flows.get(*ends) is None:
                change.flows.put(*ends, _WANTED.pack(0, 0))


def _want(change: Change, rate: int) -> None:
    flows = change.flows
    if flows is None:
        return
    with SubflowReader() as reader:
        for subflow, _device in selected_subflows(change, "peer", reader):
            _write(flows, subflow, rate)


def _write(flows: FlowStates, subflow: Subflow, rate: int) -> None:
    ends = ((subflow.local, subflow.local_port), (subflow.remote, subflow.remote_port))
    slot = flows.get(*ends)
    wanted = list(_WANTED.unpack_from(slot)) if slot is not None else [0, 0]
    wanted[our_end(subflow)] = rate
    flows.put(*ends, _WANTED.pack(*wanted))


@hookimpl
def emptcp_actions(entries: Sequence[FlowEntry]) -> Sequence[Sequence[Action]]:
    """Tell at which rate sockets are paced."""
    return [_actions(one.state[NAME]) if NAME in one.state else [] for one in entries]


def _actions(slot: bytes) -> list[Action]:
    paced = enumerate(_WANTED.unpack_from(slot, _PACED_AT))
    return [Action(NAME, f"paced at {rate * 8 / 1e6:g}mbit", end) for end, rate in paced if rate]


@hookimpl
def emptcp_notes(changes: Sequence[Change]) -> Sequence[str]:
    """Tell which connections are not covered, and why."""
    if changes[0].stage.type.name != NAME or not features.has("bpf_iter_tcp"):
        return []
    return coverage.notes(changes)
