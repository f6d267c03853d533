# SPDX-License-Identifier: Apache-2.0
"""The Python side of record: what a policy must have, and the metrics as numbers."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from emptcp.api import BoundStage, EmptcpError, FlowEntry, Policy, hookimpl

NAME = "record"

# struct record_state of record.bpf.c: packets and bytes of both ends; sum, samples, min and last of the RTT
_SLOT = struct.Struct("=2Q2QQIII")
_MICROSECOND = 1e-6


@hookimpl
def emptcp_validate(stage: BoundStage, policy: Policy) -> None:
    """Refuse ``rtt`` where no packet comes in: it is measured when an echo arrives."""
    if stage.type.name != NAME or "rtt" not in stage.values.get("what", ()):
        return
    if "ingress" not in policy.hooks:
        hooks = ", ".join(f'"{hook}"' for hook in (*policy.hooks, "ingress"))
        raise EmptcpError(
            f"policy '{policy.name}': record('rtt') measures when an echo comes in, at hook 'ingress', and "
            f"the policy has '{policy.hooks[0]}' only",
            fix=f"Write hook = [{hooks}] in the policy, or leave 'rtt' out.",
            where=str(stage.spec.where),
        )


@hookimpl
def emptcp_metrics(entries: Sequence[FlowEntry]) -> Sequence[Mapping[str, float]]:
    """Tell packets and bytes of both ends, and the round-trip time in seconds.

    ``_0`` is what the first of the entry's endpoints sent, ``_1`` the second. What was not asked for, or not
    seen yet, is left out.
    """
    return [_metrics(entry.state[NAME]) if NAME in entry.state else {} for entry in entries]


def _metrics(state: bytes) -> dict[str, float]:
    packets0, packets1, bytes0, bytes1, total, samples, least, last = _SLOT.unpack_from(state)
    counts = {"packets_0": packets0, "packets_1": packets1, "bytes_0": bytes0, "bytes_1": bytes1}
    found: dict[str, float] = {name: count for name, count in counts.items() if count}
    if samples:
        found["rtt_min"] = least * _MICROSECOND
        found["rtt_last"] = last * _MICROSECOND
        found["rtt_mean"] = total / samples * _MICROSECOND
    return found
