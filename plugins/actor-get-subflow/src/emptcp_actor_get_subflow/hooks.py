# SPDX-License-Identifier: Apache-2.0
"""The Python side of get_subflow: its events in words."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from emptcp.api import StageEvent, hookimpl

NAME = "get_subflow"

# struct subflow_event of get_subflow.bpf.c
_EVENT = struct.Struct("=II2B2BB3x")
_NAMES = {1: "SF_ESTABLISHED", 2: "SF_CLOSED"}


@hookimpl
def emptcp_describe(event: StageEvent) -> Mapping[str, Any] | None:
    """Tell a subflow from the side of who opened it; a token that is not known is left out."""
    if event.plugin != NAME or event.endpoints is None or event.type not in _NAMES:
        return None
    *rest, opener = _EVENT.unpack_from(event.data)
    here, there = (1, 0) if opener else (0, 1)
    tokens, ids, backups = rest[:2], rest[2:4], rest[4:]
    source, target = event.endpoints[here], event.endpoints[there]
    told = {
        "event": _NAMES[event.type],
        "token": tokens[here] or None,
        "remote_token": tokens[there] or None,
        "locid": ids[here],
        "remid": ids[there],
        "saddr": source[0],
        "sport": source[1],
        "daddr": target[0],
        "dport": target[1],
        "backup": bool(backups[here]),
        "remote_backup": bool(backups[there]),
    }
    return {name: value for name, value in told.items() if value is not None}
