# SPDX-License-Identifier: Apache-2.0
"""The Python side of record: what a policy must have, and the metrics as numbers."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from emptcp.api import (
    BoundStage,
    ConnectionEntry,
    EmptcpError,
    FlowEntry,
    Policy,
    hookimpl,
    open_plugin_map,
)
from emptcp_actor_record import metrics
from emptcp_actor_record.tracks import Slot, Track

NAME = "record"
MAP = "record_flows"

Tracks = Mapping[bytes, bytes]

_BY_RTT = ("rtt", "rtt_histogram")


@hookimpl
def emptcp_validate(stage: BoundStage, policy: Policy) -> None:
    """Refuse ``rtt`` where no packet comes in: it is measured when an echo arrives."""
    if stage.type.name != NAME or "ingress" in policy.hooks:
        return
    for what in (one for one in _BY_RTT if one in stage.values.get("what", ())):
        hooks = ", ".join(f'"{hook}"' for hook in (*policy.hooks, "ingress"))
        raise EmptcpError(
            f"policy '{policy.name}': record('{what}') measures when an echo comes in, at hook 'ingress', "
            f"and the policy has '{policy.hooks[0]}' only",
            fix=f"Write hook = [{hooks}] in the policy, or leave '{what}' out.",
            where=str(stage.spec.where),
        )


@hookimpl
def emptcp_metrics(entries: Sequence[FlowEntry]) -> Sequence[Mapping[str, float]]:
    """Tell what was kept of each subflow; see the README for the names.

    ``_0`` is what the first of the entry's endpoints sent, ``_1`` the second. What was not asked for, or not
    seen yet, is left out.
    """
    tracks = _tracks()
    return [metrics.of_subflow(_kept(entry, tracks)) if NAME in entry.state else {} for entry in entries]


@hookimpl
def emptcp_connection_metrics(connections: Sequence[ConnectionEntry]) -> Sequence[Mapping[str, float]]:
    """Tell the same of all subflows of each connection; ``_0`` is what the end with its first token sent."""
    tracks = _tracks()
    return [
        metrics.of_connection(
            [_kept(one, tracks, connection.end(one)) for one in connection.subflows if NAME in one.state]
        )
        for connection in connections
    ]


def _tracks() -> Tracks:
    """Return all that is in the plugin's map, read in batches."""
    opened = open_plugin_map(NAME, MAP)
    if opened is None:
        return {}
    with opened:
        return dict(opened.items())


def _kept(entry: FlowEntry, tracks: Tracks, first: int = 0) -> metrics.Kept:
    value = tracks.get(entry.key + struct.pack("=I", entry.netns))
    track = Track.of(value) if value is not None else None
    if track is not None and track.since != entry.since:
        track = None  # of a connection before, with the same ends
    return metrics.Kept(Slot.of(entry.state[NAME]), track, first)
