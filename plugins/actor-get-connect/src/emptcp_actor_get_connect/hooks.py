# SPDX-License-Identifier: Apache-2.0
"""The Python side of get_connect: what follows from the keys."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from emptcp.api import StageEvent, hookimpl, keys

NAME = "get_connect"

# struct connection_event of get_connect.bpf.c
_EVENT = struct.Struct("=8s8sBB6x")


@hookimpl
def emptcp_describe(event: StageEvent, secrets: bool) -> Mapping[str, Any] | None:
    """Tell a connection from the side of who opened it; keys only if asked for."""
    if event.plugin != NAME or event.endpoints is None:
        return None
    first, second, version, opener = _EVENT.unpack_from(event.data)
    ends = list(zip(event.endpoints, (first, second), strict=True))
    (source, key), (target, remote_key) = reversed(ends) if opener else ends
    told = {
        "event": "ESTABLISHED",
        "token": keys.token(key, version),
        "remote_token": keys.token(remote_key, version),
        "saddr": source[0],
        "sport": source[1],
        "daddr": target[0],
        "dport": target[1],
        "version": version,
        "idsn": keys.initial_sequence(key, version),
        "remote_idsn": keys.initial_sequence(remote_key, version),
    }
    return told | ({"key": key.hex(), "remote_key": remote_key.hex()} if secrets else {})
