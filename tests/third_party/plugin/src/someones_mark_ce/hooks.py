# SPDX-License-Identifier: Apache-2.0
"""The Python side of mark_ce: what it marked is a metric."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from emptcp.api import FlowEntry, hookimpl

NAME = "mark_ce"
MARKED = struct.Struct("<QQ")
"""struct marked."""


@hookimpl
def emptcp_metrics(entries: Sequence[FlowEntry]) -> list[Mapping[str, float]]:
    """Tell of each subflow how many packets were marked."""
    return [{"ce_marked": marked(one.state[NAME])} if NAME in one.state else {} for one in entries]


def marked(state: bytes) -> int:
    """Return how many packets of a subflow were marked."""
    _packets, found = MARKED.unpack_from(state)
    return int(found)
