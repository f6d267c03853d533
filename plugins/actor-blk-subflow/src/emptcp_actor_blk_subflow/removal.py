# SPDX-License-Identifier: Apache-2.0
"""Forget an address that was removed, whichever subflow of its connection said so (RFC 8684, 3.4.2)."""

from __future__ import annotations

from typing import Literal

from emptcp.api import StageEvent, SubflowReader, namespaces, open_plugin_map

from .blocked import ADDRESSES, PLUGIN, forget, key_of, removed
from .subflow import is_between


def forget_on_all(event: StageEvent) -> None:
    """Forget it on all subflows of the connection, as far as this host has it."""
    namespace = namespaces.by_cookie(event.netns)
    with SubflowReader() as reader:
        ours = reader.read(namespace)
    carrier = next((one for one in ours if is_between(one, event.endpoints)), None)
    table = open_plugin_map(PLUGIN, ADDRESSES)
    if carrier is None or table is None or event.endpoints is None:
        return
    source = event.endpoints[event.direction]
    announcer: Literal["us", "peer"] = "us" if source == (carrier.local, carrier.local_port) else "peer"
    with table:
        for subflow in (one for one in ours if one.token == carrier.token):
            forget(table, key_of(subflow, announcer, namespace.cookie), removed(event.data))
