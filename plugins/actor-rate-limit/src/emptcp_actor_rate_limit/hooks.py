# SPDX-License-Identifier: Apache-2.0
"""The Python side of rate_limit: what goes together, and the subflows that exist already."""

from __future__ import annotations

import struct

from emptcp.api import (
    BoundStage,
    Change,
    EmptcpError,
    Policy,
    Subflow,
    SubflowReader,
    features,
    hookimpl,
    selected_subflows,
)

NAME = "rate_limit"
AUTO, PACING, MARK = 0, 1, 3
PER_SUBFLOW = 0

# The first word of struct rate_limit_state: bytes per second that each end may send
_WANTED = struct.Struct("=2I")
_UNPACED = 0xFFFFFFFF

_PACING_NEEDS = ("sock_ops", "netns_cookie", "bpf_iter_setsockopt")


@hookimpl
def emptcp_validate(stage: BoundStage, policy: Policy) -> None:
    """Refuse pacing where it can't act, and marks where they can't be read."""
    if stage.type.name != NAME or stage.values["mode"] != PACING:
        return
    where = str(stage.spec.where)
    if stage.values["per"] != PER_SUBFLOW:
        raise EmptcpError(
            f"policy '{policy.name}': rate_limit(mode=pacing) paces sockets, so a rate is per subflow",
            fix="Write per=subflow, or mode=police.",
            where=where,
        )
    if "egress" not in policy.hooks:
        raise EmptcpError(
            f"policy '{policy.name}': rate_limit(mode=pacing) paces what this host sends, at hook 'egress', "
            "which the policy has not",
            fix='Write hook = "egress" in the policy, or mode=police.',
            where=where,
        )
    missing = next(filter(None, map(features.reason, _PACING_NEEDS)), "")
    if missing:
        raise EmptcpError(
            f"policy '{policy.name}': rate_limit(mode=pacing) needs what this kernel lacks: {missing}",
            fix="Write mode=police.",
            where=where,
        )


@hookimpl
def emptcp_applied(change: Change) -> None:
    """Want the rate for the subflows that are there; the socket companion then paces them."""
    if _paces(change):
        _want(change, min(int(change.value("rate", 0)), _UNPACED - 1))


@hookimpl
def emptcp_removed(change: Change) -> None:
    """Want what was there before, for the subflows that were selected."""
    if _paces(change):
        _want(change, _UNPACED)


def _paces(change: Change) -> bool:
    if change.stage.type.name != NAME or change.hook != "egress":
        return False
    return change.value("mode") in (AUTO, PACING) and change.value("per") == PER_SUBFLOW


def _want(change: Change, rate: int) -> None:
    flows = change.flows
    if flows is None:
        return
    with SubflowReader() as reader:
        for subflow, _device in selected_subflows(change, "peer", reader):
            ends = ((subflow.local, subflow.local_port), (subflow.remote, subflow.remote_port))
            slot = flows.get(*ends)
            wanted = list(_WANTED.unpack_from(slot)) if slot is not None else [0, 0]
            wanted[_our_end(subflow)] = rate
            flows.put(*ends, _WANTED.pack(*wanted))


def _our_end(subflow: Subflow) -> int:
    """Return the place of the local end in the flow's key, which is ordered by bytes on the wire."""
    local = (subflow.local.packed, subflow.local_port)
    return int(local > (subflow.remote.packed, subflow.remote_port))
